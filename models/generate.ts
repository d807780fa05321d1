/** Greedy generation for a batch of prompts, over a cache of keys and values that stays on the device. */
import type { LanguageModel } from "../core/model.ts";
import { DataError, OptionError } from "../core/errors.ts";
import type { Value } from "../core/ir/graph.ts";
import { broadcastTo, full, reshape } from "../core/ops/broadcast.ts";
import { add, ge, max, select, sub } from "../core/ops/elementwise.ts";
import { argmax } from "../core/ops/reduce.ts";
import { iota } from "../core/ops/structure.ts";
import type { Runtime } from "../core/runtime.ts";
import { type HostTensor, Tensor, upload } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";

/** What is generated, and where it ends. */
export interface GenerateOptions {
  /** The most tokens a row may get; fewer where the model's context ends. */
  readonly maxNewTokens: number;
  /** Tokens after which a row is complete; they are not part of it. */
  readonly stopIds?: readonly number[];
  /** Whether a row's new tokens are complete as they are (a closing brace, a stop string). */
  readonly isComplete?: (ids: readonly number[]) => boolean;
  /** How many tokens are computed before the host looks at them: reading costs the same for one as for many. 8 by default. */
  readonly readEvery?: number;
}

/** One prompt's continuation. */
export interface Generated {
  readonly ids: number[];
  /** Whether it stopped by itself or was cut off at the greatest length. */
  readonly finish: "stop" | "length";
}

/** Continues prompts (token ids) with a model's parameters. */
export type Generate = (params: any, prompts: readonly (readonly number[])[], options: GenerateOptions) => Promise<
  Generated[]
>;

// Prompts go in by chunks of one size, and caches come in multiples of one length, so that few programs are compiled.
const chunk = 32;
const cacheBucket = 64;

type State = { token: Value; cache: any; index: Value };

/**
 * Makes the generator of a model. Its programs are compiled on first use and kept: one for a chunk of the prompts and one for a
 * single token, for each batch and cache length.
 */
export function generator(model: Omit<LanguageModel, "params">, runtime: Runtime): Generate {
  // Prompts are padded on the left, so that all rows end together. A place's position is its distance from the padding.
  const advance = (params: any, ids: Value, cache: any, index: Value, pads: Value): State => {
    const [b, t] = ids.shape;
    const length = cache[0].k.shape[1];
    const padding = (n: number) => broadcastTo(reshape(pads, [b, 1]), [b, n]);
    const positionIds = max(sub(add(iota([b, t], 1), index), padding(t)), 0);
    const mask = select(ge(iota([b, length], 1), padding(length)), full([b, length], 1, "i32"), 0);
    const out = model.step(params, { inputIds: ids, positionIds, mask, index, cache });
    return { token: reshape(argmax(out.logits, 1), [b, 1]), cache: out.cache, index: add(index, t) };
  };
  const makers = new Map<number, (pads: Tensor) => any>();
  const emptyCache = (length: number, pads: Tensor) => {
    const zeros = makers.get(length) ?? runtime.jit((pads: Value) => ({
      cache: model.cacheAvals(pads.shape[0], length).map(({ k, v }) => ({ k: full(k.shape, 0), v: full(v.shape, 0) })),
      index: full([], 0, "i32"),
    }));
    makers.set(length, zeros);
    return zeros(pads);
  };
  const prefill = runtime.jit(
    (params, ids: Value, cache, index: Value, pads: Value) => advance(params, ids, cache, index, pads),
    { donate: [2, 3] },
  );
  const decode = runtime.jit(
    (params, token: Value, cache, index: Value, pads: Value) => advance(params, token, cache, index, pads),
    { donate: [2, 3] },
  );

  return async (params, prompts, options) => {
    const { maxNewTokens, stopIds = [], isComplete = () => false, readEvery = 8 } = options;
    checkPrompts(prompts, model.sizes.contextLength, maxNewTokens);
    if (prompts.length === 0) return [];
    const longest = Math.max(...prompts.map((p) => p.length));
    const padded = Math.ceil(longest / chunk) * chunk;
    const rounds = Math.min(maxNewTokens, model.sizes.contextLength - longest);
    const length = Math.ceil((padded + rounds) / cacheBucket) * cacheBucket;

    const { home } = flatten(params).leaves.find((x) => x instanceof Tensor) as Tensor;
    const ints = (shape: number[], data: Int32Array) => upload(home, { shape, dtype: "i32", data });
    using pads = ints([prompts.length], Int32Array.from(prompts, (p) => padded - p.length));
    let { cache, index } = emptyCache(length, pads);
    let token!: Tensor;
    for (let at = 0; at < padded; at += chunk) {
      const data = new Int32Array(prompts.length * chunk);
      prompts.forEach((p, row) => {
        for (let i = 0; i < chunk; i++) data[row * chunk + i] = p[at + i - (padded - p.length)] ?? 0;
      });
      using ids = ints([prompts.length, chunk], data);
      ({ token, cache, index } = prefill(params, ids, cache, index, pads));
    }

    const rows = prompts.map(() => ({ ids: [] as number[], finish: null as Generated["finish"] | null }));
    for (let made = 0; made < rounds && rows.some((r) => r.finish === null);) {
      const group: Tensor[] = [];
      while (group.length < readEvery && made < rounds) {
        group.push(token);
        if (++made < rounds) ({ token, cache, index } = decode(params, token, cache, index, pads));
      }
      for (const { data } of await runtime.read(group) as HostTensor[]) {
        rows.forEach((row, i) => {
          if (row.finish !== null) return;
          if (!stopIds.includes(data[i])) row.ids.push(data[i]);
          if (stopIds.includes(data[i]) || isComplete(row.ids)) row.finish = "stop";
        });
      }
      for (const read of group) if (read !== token) read.dispose();
    }
    for (const leaf of flatten<Tensor>({ token, cache, index }).leaves) leaf.dispose();
    return rows.map(({ ids, finish }) => ({ ids, finish: finish ?? "length" }));
  };
}

function checkPrompts(prompts: readonly (readonly number[])[], contextLength: number, maxNewTokens: number): void {
  if (!Number.isInteger(maxNewTokens) || maxNewTokens < 1) {
    throw new OptionError(`can't generate ${maxNewTokens} tokens: give a whole number of at least 1`);
  }
  prompts.forEach((p, i) => {
    if (p.length === 0) throw new DataError(`prompt ${i + 1} is empty: generation continues at least one token`);
    if (p.length >= contextLength) {
      throw new DataError(
        `prompt ${
          i + 1
        } has ${p.length} tokens, and the model's context of ${contextLength} leaves no place to continue ` +
          `it: shorten it`,
      );
    }
  });
}
