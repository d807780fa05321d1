/** What the laws of merging are tried on: every variant of an adapter, over models that random numbers describe. */
import { sizeOf } from "../../core/aval.ts";
import type { DType } from "../../core/dtype.ts";
import { newInput, type Value } from "../../core/ir/graph.ts";
import type { Leaf, Model } from "../../core/model.ts";
import { matmul } from "../../core/ops/contract.ts";
import { add, convert } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { type HostTensor, upload } from "../../core/tensor.ts";
import { isPacked } from "../../core/packed/blocks.ts";
import { flatten, mapTree } from "../../core/tree.ts";
import { type LoraOptions, type Method, methods, type Trainable, tune, type Tuned } from "../../lora/mod.ts";
import { optionsOf } from "../../lora/check_options.ts";
import { chosenBy, familyOf } from "../../lora/methods/mod.ts";
import { tuneFromWeights } from "../../lora/start.ts";
import fc from "fast-check";
import { convertTo } from "../../testing/oracle_scalar.ts";
import { toHost } from "../../testing/oracle.ts";
import { randomPacked } from "../../testing/packed_reference.ts";
import { noise } from "../../testing/toy_models.ts";
import { oracleRuntime } from "../runtimes.ts";

/** One trial: `rows` inputs of `k` numbers to `n` outputs, through weights stored as `dtype`. */
export interface MergeTrial {
  readonly rows: number;
  readonly k: number;
  readonly n: number;
  readonly r: number;
  readonly alpha: number;
  readonly rslora: boolean;
  readonly layout: "in,out" | "out,in";
  readonly dtype: DType;
  readonly seed: number;
}

/** Trials from the smallest up, so that a failing one shrinks to the smallest shape that fails. */
export const trials: fc.Arbitrary<MergeTrial> = fc.record({
  rows: fc.integer({ min: 1, max: 5 }),
  k: fc.integer({ min: 1, max: 24 }),
  n: fc.integer({ min: 1, max: 24 }),
  rank: fc.nat(),
  alpha: fc.integer({ min: 1, max: 64 }),
  rslora: fc.boolean(),
  layout: fc.constantFrom("in,out" as const, "out,in" as const),
  dtype: fc.constantFrom<DType>("f32", "f32", "bf16", "f16", "q8_0", "nf4"),
  seed: fc.nat(),
}).map(({ rank, ...rest }) => ({ ...rest, r: 1 + rank % Math.min(rest.k, rest.n) }));

/** Trees of parameters differ between the variants. */
export type Params = any;
type Toy = Model<Params, any, Value[]>;
export type ToyTuned = Tuned<Params, any, Value[]>;

/** A model with everything that is drawn for it, on the host. Adapters stand one over the other, the first the innermost. */
export interface MergeSubject {
  readonly variant: string;
  readonly trial: MergeTrial;
  readonly model: Toy;
  readonly layers: readonly Layer[];
  readonly frozen: Params;
  readonly x: Readonly<Record<string, HostTensor>>;
}

/** One adapter: how it stands on the model below it, and its values. */
export interface Layer {
  over(model: Toy): ToyTuned;
  readonly trainable: Trainable;
}

/** The adapted model and how it is merged: outermost first. */
export function stack({ model, layers }: MergeSubject, values: readonly Trainable[]) {
  let below = model;
  const tuned = layers.map((layer, i) => {
    const one = layer.over(below);
    below = one.with(values[i]);
    return one;
  });
  return {
    tuned,
    apply: below.apply,
    merge: (frozen: Params): Params => tuned.reduceRight((p, one, i) => one.merge(values[i], p), frozen),
  };
}

export const isHost = (x: unknown) => typeof x === "object" && x !== null && "data" in x && "shape" in x;

/** Random numbers that a dtype holds. */
export function draw(shape: readonly number[], dtype: DType, seed: number, scale = 1): HostTensor {
  if (isPacked(dtype)) return { shape, dtype, data: randomPacked(dtype, sizeOf(shape), seed) };
  const next = noise(seed);
  const data = Float64Array.from(
    { length: sizeOf(shape) },
    () => convertTo(Math.fround(scale * next()), dtype, "f32"),
  );
  return toHost({ shape, dtype, data });
}

const placeholder = (shape: readonly number[], dtype: DType = "f32") => newInput({ shape, dtype });

/** Two linears side by side over one input, one of them with a bias and outputs of two parts. */
function linears({ rows, k, n, layout, dtype }: MergeTrial): Toy {
  const shape = layout === "in,out" ? [k, n] : [n, k];
  const product = (x: Value, w: Leaf) => matmul(x, w, { transposeB: layout === "out,in" });
  return {
    architecture: "toy",
    params: {
      q: { weight: placeholder(shape, dtype), bias: placeholder([n]) },
      k: { weight: placeholder(shape, dtype) },
    },
    sample: { x: placeholder([rows, k]) },
    apply: (p, { x }) => [add(product(x, p.q.weight), p.q.bias), product(x, p.k.weight)],
    ...(n % 2 === 0 && { parts: { q: ["left", "right"] } }),
  };
}

/** A table [k, n] whose rows are looked up, and which is multiplied by under another name. */
function table({ rows, k, n, dtype }: MergeTrial): Toy {
  return {
    architecture: "toy",
    params: { q: { weight: placeholder([k, n], dtype) } },
    sample: { x: placeholder([rows, n]), ids: newInput({ shape: [rows], dtype: "i32" }) },
    apply: (p, { x, ids }) => [
      convert(gather(p.q.weight, ids), "f32"),
      matmul(x, (p.k ?? p.q).weight, { transposeB: true }),
    ],
    tied: { k: "q" },
  };
}

/** A variant: its model, and the options of its adapters, the innermost first. */
interface Variant {
  readonly model: (trial: MergeTrial) => Toy;
  readonly adapters: (trial: MergeTrial) => readonly Partial<LoraOptions<any>>[];
  /** The method: by default the one of LoRA's that the options switch on. */
  readonly method?: Method<any, any>;
}

/**
 * Options of a method by what each of them takes: small numbers, its own switch, and the modules that `names` has.
 */
export function optionsLike(
  { options, switch: own }: Method<any, any>,
  { targets, whole, table }: {
    readonly targets: readonly string[];
    readonly whole?: string;
    readonly table?: string;
  },
): Record<string, unknown> {
  const likely: Record<string, unknown> = {
    "a positive integer": 2,
    "a whole number": 4,
    "a number": 3,
    "a list of names or null": whole && [whole],
    "a list of names or one pattern": targets.slice(1),
    "a list of token ids, or lists by the embedding's name": table && { [table]: [3, 1] },
  };
  const found = Object.entries(options).map(([name, { file }]) => {
    const is = file?.is;
    return [name, name === own ? true : typeof is === "object" ? is[1] : likely[is ?? ""]] as const;
  });
  return Object.fromEntries(found.filter(([, value]) => value !== undefined));
}

/** A method of the list as a variant. */
export function methodVariant(method: Method<any, any>): Variant {
  const options = Object.entries(optionsLike(method, { targets: ["q", "k"] }));
  // What a trial draws is the trial's.
  return { model: linears, adapters: (t) => [Object.fromEntries(options.filter(([name]) => !(name in t)))], method };
}

const half = ({ n, r }: MergeTrial) =>
  n % 2 === 0 ? { targets: ["q[right]"], r: Math.min(r, n / 2) } : { targets: ["q"] };
const of = (model: Variant["model"], ...adapters: Partial<LoraOptions<any>>[]): Variant => ({
  model,
  adapters: () => adapters,
});

export const variants: Readonly<Record<string, Variant>> = {
  plain: of(linears, {}),
  DoRA: of(linears, { dora: true }),
  patterns: of(linears, { rankPattern: { k: 1 }, alphaPattern: { q: 3 } }),
  "biases and a module in full": of(linears, { targets: ["q"], loraBias: true, bias: "all", modulesToSave: ["k"] }),
  slices: { model: linears, adapters: (trial) => [half(trial)] },
  "slices with DoRA": { model: linears, adapters: (trial) => [{ ...half(trial), dora: true }] },
  "two adapters": of(linears, {}, { r: 1, alpha: 7, targets: ["q"] }),
  "an adapter over DoRA": of(linears, { dora: true }, { r: 1, alpha: 7 }),
  PiSSA: { ...of(linears, { targets: ["q"] }), method: methods.pissa },
  embeddings: of(table, { targets: ["q"] }),
  "embeddings with DoRA": of(table, { targets: ["q"], dora: true }),
  "tied, both uses": of(table, { targets: ["q", "k"] }),
  "tied, every use by one": of(table, { targets: ["q"], tie: "all" }),
  tokens: { model: table, adapters: ({ k }) => [{ targets: ["k"], trainableTokens: { q: k > 2 ? [2, 0] : [0] } }] },
};

/** Random weights, and adapters whose B is not zero and whose change is of the weights' own size. */
export async function makeSubject(drawn: MergeTrial, of: string | Variant = "plain"): Promise<MergeSubject> {
  const { model: make, adapters, method } = typeof of === "string" ? variants[of] : of;
  const variant = typeof of === "string" ? of : of.method!.name;
  // What PiSSA leaves of a weight is stored as the weight was, so it takes none that is packed.
  const trial = method?.start && isPacked(drawn.dtype) ? { ...drawn, dtype: "f32" as const } : drawn;
  const { r, alpha, rslora, seed } = trial;
  const model = make(trial);
  const { k: vocabulary } = trial;
  const host = (leaf: Leaf, path: string, i: number): HostTensor =>
    path === "ids"
      ? { ...leaf.aval, data: Int32Array.from({ length: leaf.shape[0] }, (_, row) => (seed + 3 * row) % vocabulary) }
      : draw(leaf.shape, leaf.dtype, seed + i);
  let count = 0;
  const fill = (tree: unknown) => mapTree<Leaf, HostTensor>(tree, (leaf, path) => host(leaf, path, count++));
  let frozen = fill(model.params) as Params;
  const x = fill(model.sample) as MergeSubject["x"];
  const layers: Layer[] = [];
  for (const extra of adapters(trial)) {
    const own = method ?? chosenBy(familyOf(methods.lora), extra);
    const known = optionsOf(own);
    const drawn = Object.entries({ r, alpha, rslora }).filter(([name]) => name in known);
    const options = { ...Object.fromEntries(drawn), targets: ["q", "k"], ...extra };
    const over = (below: Toy): ToyTuned => tune(below, own, options);
    const { matched, trainable } = over(model);
    const size = (path: string) => {
      const m = matched.find((m) => path === `${m.path}.B` || path === `${m.path}.biasB`);
      return m === undefined ? 1 : 1 / (m.scaling * Math.sqrt(m.r));
    };
    let values = mapTree<Leaf, HostTensor>(trainable, (leaf, path) => {
      const drawn = draw(leaf.shape, "f32", seed + 20 + count++, size(path));
      // A magnitude is a length: away from zero, as norms are.
      return path.endsWith("magnitude") ? { ...drawn, data: drawn.data.map((x) => 0.5 + Math.abs(x)) } : drawn;
    }) as unknown as Trainable;
    if (own.start) {
      ({ frozen, values } = await begun(model, { ...own, start: own.start }, { options, frozen, moved: values }));
    }
    layers.push({ over, trainable: values });
  }
  return { variant, trial, model, layers, frozen, x };
}

/** What a start leaves of the weights, and an adapter that has moved from there. */
async function begun(
  model: Toy,
  method: Parameters<typeof tuneFromWeights>[1],
  { options, frozen, moved }: { readonly options: any; readonly frozen: Params; readonly moved: Trainable },
) {
  const params = mapTree<HostTensor, Leaf>(frozen, (x) => upload(oracleRuntime.home, x), isHost);
  const started = await tuneFromWeights({ ...model, params }, method, options);
  const [start, residual] = await oracleRuntime.read([started.trainable, started.frozen]);
  const leaves = flatten<HostTensor>(moved, isHost).leaves;
  const flat = flatten<HostTensor>(start, isHost);
  const values = flat.unflatten(flat.leaves.map((leaf, i) => ({
    ...leaf,
    data: (leaf.data as Float32Array).map((x, j) => Math.fround(x + leaves[i].data[j] / 4)),
  }))) as Trainable;
  return { frozen: residual, values };
}
