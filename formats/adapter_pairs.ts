/** An adapter as pairs with their scalings: what every other tool's format is written from, and read into. */
import { FileError } from "../core/errors.ts";
import type { HostTensor } from "../core/tensor.ts";
import type { ModelConfig } from "../models/load/config.ts";
import { familyOf } from "../models/families/mod.ts";
import { listed } from "../models/load/weights.ts";
import { methods } from "../lora/mod.ts";
import { pairConfig } from "../lora/methods/lora.ts";
import { adapterScaling, makeAdapterConfig, matchesWhole, methodOf, parseAdapterConfig } from "./peft/config.ts";
import { type AdapterFiles, type AdapterTensor, tensorsByKey } from "./peft/files.ts";
import { baseWeight, partOf } from "./peft/keys.ts";
import { refuseChangedBase } from "./peft/methods.ts";
import { toF32 } from "./host_tensors.ts";

/** One module's change s·B·A, all f32: A [r, in], B [out, r]; of an embedding A [r, rows], B [width, r]. */
export interface ScaledPair {
  /** The module's path as PEFT's file spells it. */
  readonly module: string;
  readonly embedding: boolean;
  readonly A: HostTensor & { readonly data: Float32Array };
  readonly B: HostTensor & { readonly data: Float32Array };
  readonly r: number;
  readonly scaling: number;
  /** [out], DoRA's. */
  readonly magnitude?: HostTensor;
}

/**
 * The pairs of an adapter, for a format that can express only pairs (and magnitudes, where `magnitudes` is true). The
 * copy of an embedding that PEFT puts beside its adapter is no part of the change and is left out.
 *
 * @throws {FileError} that names the keys which that format has no place for, or halves of pairs
 */
export function scaledPairs(
  { path, config, tensors }: AdapterFiles,
  { format, magnitudes }: { readonly format: string; readonly magnitudes: boolean },
): ScaledPair[] {
  refuseChangedBase(path, config);
  if (config.alora_invocation_tokens) {
    throw new FileError(
      `${path} acts only from its invocation on (alora_invocation_tokens), which ${format} can't express: use it as it is.`,
    );
  }
  const modules = Map.groupBy(tensors, ({ module }) => module);
  const known = ["A", "B", baseWeight.leaf, ...(magnitudes ? ["magnitude"] : [])];
  const foreign = tensors.filter(({ part }) => !known.includes(part.leaf)).map(({ key }) => key);
  if (foreign.length > 0) {
    throw new FileError(
      `${path} has what ${format} can't express. ${listed("Without a place there", foreign)}Merge it into its base ` +
        `(lowrank merge) and convert the merged model.`,
    );
  }
  return [...modules].map(([module, parts]) => {
    const [a, b, magnitude] = ["A", "B", "magnitude"].map((leaf) => parts.find(({ part }) => part.leaf === leaf));
    if (a === undefined || b === undefined || !fit(a, b)) {
      throw new FileError(
        `${path} has no pair of A [r, in] and B [out, r] for ${module}: it has ${
          parts.map(({ key, tensor }) => `${key} [${tensor.shape}]`).join(", ")
        }. Save the adapter again.`,
      );
    }
    const r = a.tensor.shape[0];
    return {
      ...{ module, r, scaling: adapterScaling(config, module, r), embedding: a.part.on === "embedding" },
      ...{ A: toF32(a.tensor), B: toF32(b.tensor) },
      ...(magnitude && { magnitude: toF32(magnitude.tensor) }),
    };
  });
}

function fit({ tensor: a }: AdapterTensor, { tensor: b }: AdapterTensor): boolean {
  return a.shape.length === 2 && b.shape.length === 2 && a.shape[0] === b.shape[1];
}

/**
 * Refuses adapters of either use of a tied weight: another tool has one tensor for both, under the embedding's name, so that
 * an adapter of the embedding would change the head, too, and one of the head belongs to no tensor that is there.
 */
export function refuseTied({ path }: AdapterFiles, pairs: readonly ScaledPair[], config: ModelConfig): void {
  const { tables: [table], tiedHead = false } = familyOf(config.modelType)!;
  if (!config.flag("tie_word_embeddings", tiedHead)) return;
  const named = (name: string) => pairs.find(({ module }) => matchesWhole(name, module))?.module;
  const embedding = named(table), head = named("lm_head");
  if (embedding === undefined && head === undefined) return;
  throw new FileError(
    `${path} adapts ${embedding ?? head}, which ${
      embedding === undefined
        ? `is tied to the embedding in ${config.path} and no tensor of its own in that format`
        : `is the head of ${config.path} as well; in that format both uses would change`
    }. Merge it into its base (lowrank merge) and convert the merged model.`,
  );
}

/** A pair of a higher rank that is the same change: the added rows of A and columns of B are zeros. */
export function padded(pair: ScaledPair, r: number): ScaledPair {
  if (pair.r === r) return pair;
  const [[, inputs], [outputs]] = [pair.A.shape, pair.B.shape];
  const A = new Float32Array(r * inputs), B = new Float32Array(outputs * r);
  A.set(pair.A.data);
  for (let o = 0; o < outputs; o++) B.set(pair.B.data.subarray(o * pair.r, (o + 1) * pair.r), o * r);
  return {
    ...pair,
    r,
    A: { shape: [r, inputs], dtype: "f32", data: A },
    B: { shape: [outputs, r], dtype: "f32", data: B },
  };
}

/** Pairs that were read from another format, as PEFT's files. `path` is for error sentences. */
export function filesFromPairs(
  path: string,
  pairs: readonly ScaledPair[],
  { baseModel, fanInFanOut, metadata = { format: "pt" } }: {
    readonly baseModel: string | null;
    readonly fanInFanOut: boolean;
    readonly metadata?: Readonly<Record<string, string>>;
  },
): AdapterFiles {
  // alpha = s·r; scalings are quotients of two numbers, and the product of r and their rounding is mostly the number again.
  const alphas = pairs.map(({ r, scaling }) => scaling * r);
  const own = pairConfig(pairs.map(({ module, r }, i) => ({ name: module, r, alpha: alphas[i] })));
  const dora = pairs.some(({ magnitude }) => magnitude !== undefined);
  const { peftType } = methods.lora;
  const raw = makeAdapterConfig(
    { ...own, fan_in_fan_out: fanInFanOut, ...(dora && { use_dora: true }) },
    { peftType: peftType!, targets: pairs.map(({ module }) => module).sort(), baseModel },
  );
  const method = methodOf(raw)!;
  const parts = pairs.flatMap(({ module, embedding, A, B, magnitude }) => [
    { module, part: partOf(method, "A", { embedding }), tensor: A },
    { module, part: partOf(method, "B", { embedding }), tensor: B },
    ...(magnitude ? [{ module, part: partOf(method, "magnitude", {}), tensor: magnitude }] : []),
  ]);
  const keys = [...tensorsByKey(parts).keys()];
  const tensors = parts.map((part, i) => ({ ...part, key: keys[i] }));
  return { path, method, raw, config: parseAdapterConfig(raw, path), tensors, metadata };
}

/** A matrix [rows, columns] transposed. */
export function transposed({ shape: [rows, columns], data }: ScaledPair["A"]): ScaledPair["A"] {
  const turned = new Float32Array(data.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) turned[c * rows + r] = data[r * columns + c];
  return { shape: [columns, rows], dtype: "f32", data: turned };
}

/** Every value times a number, rounded once. */
export function times(tensor: ScaledPair["A"], factor: number): ScaledPair["A"] {
  return factor === 1 ? tensor : { ...tensor, data: tensor.data.map((x) => x * factor) };
}
