/**
 * Adapted and merged are the same function, within what rounding allows: a bound that is derived (in lora/bound.ts), not tuned. Shared by the laws, which run it on every device, and by the seeded faults, which must break it.
 */
import { sizeOf } from "../../core/aval.ts";
import type { DType } from "../../core/dtype.ts";
import { newInput, type Value } from "../../core/ir/graph.ts";
import type { Leaf, Model } from "../../core/model.ts";
import { full } from "../../core/ops/broadcast.ts";
import { matmul } from "../../core/ops/contract.ts";
import { add } from "../../core/ops/elementwise.ts";
import { type HostTensor, upload } from "../../core/tensor.ts";
import { flatten } from "../../core/tree.ts";
import { gamma, mergeBound, roundoff } from "../../lora/bound.ts";
import { lora, type Trainable, type Tuned } from "../../lora/mod.ts";
import fc from "fast-check";
import { convertTo } from "../reference/oracle_scalar.ts";
import { evaluateTerms, fromHost, type OracleTensor, toHost } from "../reference/oracle.ts";
import { noise } from "../reference/toy_models.ts";
import type { OpenRuntime } from "../runtimes.ts";

/** One trial: two linears q and k of one shape, with a bias on q, over `rows` inputs. */
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
  dtype: fc.constantFrom<DType>("f32", "f32", "bf16", "f16"),
  seed: fc.nat(),
}).map(({ rank, ...rest }) => ({ ...rest, r: 1 + rank % Math.min(rest.k, rest.n) }));

type Params = { q: { weight: Leaf; bias: Leaf }; k: { weight: Leaf } };
type Toy = Model<Params, Value, Value[]>;
export type ToyTuned = Tuned<Params, Value, Value[]>;

/** What a trial is made of, on the host. */
export interface MergeSubject {
  readonly trial: MergeTrial;
  readonly model: Toy;
  readonly tuned: ToyTuned;
  readonly frozen: Params;
  readonly trainable: Trainable;
  readonly x: HostTensor;
}

function draw(shape: readonly number[], dtype: DType, seed: number, scale = 1): HostTensor {
  const next = noise(seed);
  const data = Float64Array.from(
    { length: sizeOf(shape) },
    () => convertTo(Math.fround(scale * next()), dtype, "f32"),
  );
  return toHost({ shape, dtype, data });
}

/** Random weights, and an adapter whose B is not zero and whose change is of the weights' own size. */
export function makeSubject(trial: MergeTrial): MergeSubject {
  const { rows, k, n, r, alpha, rslora, layout, dtype, seed } = trial;
  const shape = layout === "in,out" ? [k, n] : [n, k];
  const apply = (p: Params, x: Value) => {
    const product = (w: Leaf) => matmul(x, w, { transposeB: layout === "out,in" });
    return [add(product(p.q.weight), p.q.bias), product(p.k.weight)];
  };
  const placeholder = (shape: number[], dtype: DType) => newInput({ shape, dtype });
  const params: Params = {
    q: { weight: placeholder(shape, dtype), bias: placeholder([n], "f32") },
    k: { weight: placeholder(shape, dtype) },
  };
  const model: Toy = { architecture: "toy", params, apply, sample: placeholder([rows, k], "f32") };
  const tuned = lora(model, { r, alpha, targets: ["q", "k"], rslora });
  const scaling = tuned.matched[0].scaling;
  const pair = (seed: number) => ({
    A: draw([r, k], "f32", seed) as unknown as Leaf,
    B: draw([n, r], "f32", seed + 1, 1 / (scaling * Math.sqrt(r))) as unknown as Leaf,
  });
  const weight = (seed: number) => draw(shape, dtype, seed) as unknown as Leaf;
  return {
    trial,
    model,
    tuned,
    frozen: {
      q: { weight: weight(seed), bias: draw([n], "f32", seed + 1) as unknown as Leaf },
      k: { weight: weight(seed + 2) },
    },
    trainable: { q: pair(seed + 3), k: pair(seed + 5) },
    x: draw([rows, k], "f32", seed + 7),
  };
}

const isHost = (x: unknown) => typeof x === "object" && x !== null && "data" in x && "shape" in x;

/** A tree of host arrays as tensors of a runtime. */
export function uploadTree<T>(runtime: OpenRuntime, tree: T): T {
  const flat = flatten<HostTensor>(tree, isHost);
  return flat.unflatten(flat.leaves.map((host) => upload(runtime.home, host))) as T;
}

/** Ways to do it wrong: each replaces one part of what the property uses. */
export interface Wrong {
  readonly merge?: (subject: MergeSubject, trainable: Trainable, frozen: Params) => Params;
  readonly unmerge?: (subject: MergeSubject, trainable: Trainable, merged: Params) => Params;
}

/**
 * The worst |adapted - merged| / bound of a trial: at most 1. `alarm` is the worst as a share of 16·u·Σ|terms|, which
 * random data does not come near, though nothing proves it.
 */
export async function mergeRatio(
  runtime: OpenRuntime,
  subject: MergeSubject,
  wrong: Wrong = {},
): Promise<{ ratio: number; alarm: number }> {
  const { tuned, model, trial } = subject;
  const [t, p, x] = uploadTree(runtime, [subject.trainable, subject.frozen, subject.x] as const);
  const merge = wrong.merge ? (t: any, p: any) => wrong.merge!(subject, t, p) : (t: any, p: any) => tuned.merge(t, p);
  const adapted = await hostList(runtime, runtime.jit((t: any, p: any, x: any) => tuned.apply(t, p, x))(t, p, x));
  const mergedParams = runtime.jit(merge)(t, p);
  const merged = await hostList(runtime, runtime.jit((p: any, x: any) => model.apply(p, x))(mergedParams, x));

  const terms = termsOf(subject);
  const { ofTerms, ofInputs } = mergeBound({ k: trial.k, r: trial.r, dtype: trial.dtype });
  const inputs = fromHost(subject.x);
  let ratio = 0, alarm = 0;
  terms.forEach((sizes, output) =>
    sizes.forEach((size, i) => {
      const row = Math.floor(i / trial.n);
      let sum = 0;
      for (let j = 0; j < trial.k; j++) sum += Math.abs(inputs.data[row * trial.k + j]);
      const apart = Math.abs(adapted[output].data[i] - merged[output].data[i]);
      ratio = Math.max(ratio, apart / (ofTerms * size + ofInputs * sum));
      if (trial.dtype === "f32") alarm = Math.max(alarm, apart / (16 * roundoff.f32 * size));
    })
  );
  return { ratio, alarm };
}

/** |x||W| + s|x||A||B| (+ |bias|), by the oracle. */
function termsOf({ tuned, trainable, frozen, x }: MergeSubject): Float64Array[] {
  const flat = flatten<HostTensor>([trainable, frozen, x], isHost);
  const inputs = flat.leaves.map((host) => newInput({ shape: host.shape, dtype: host.dtype }));
  const [t, p, value] = flat.unflatten(inputs) as [Trainable, Params, Value];
  return evaluateTerms({ inputs, outputs: tuned.apply(t, p, value) }, flat.leaves.map(fromHost)).map((v) => v.terms);
}

/** The worst |W - unmerged| / (u(|W| + |W'|) + 2γ(s|A||B|)) of a trial, for weights that are f32: at most 1. */
export async function unmergeRatio(runtime: OpenRuntime, subject: MergeSubject, wrong: Wrong = {}): Promise<number> {
  const { tuned, trial } = subject;
  const [t, p] = uploadTree(runtime, [subject.trainable, subject.frozen] as const);
  const unmerge = wrong.unmerge
    ? (t: any, p: any) => wrong.unmerge!(subject, t, p)
    : (t: any, p: any) => tuned.unmerge(t, p);
  const merged = runtime.jit((t: any, p: any) => tuned.merge(t, p))(t, p);
  const back = runtime.jit(unmerge)(t, merged);
  const [weights, mergedWeights] = await runtime.read([back, merged]) as [any, any];
  const flatInputs = flatten<HostTensor>(subject.trainable, isHost);
  const inputs = flatInputs.leaves.map((host) => newInput({ shape: host.shape, dtype: host.dtype }));
  const trainable = flatInputs.unflatten(inputs) as Trainable;
  const zeros = {
    q: { weight: zeroLike(subject), bias: zeroBias(subject) },
    k: { weight: zeroLike(subject) },
  } as Params;
  const changed = tuned.merge(trainable, zeros);
  const deltas = evaluateTerms(
    { inputs, outputs: [changed.q.weight as Value, changed.k.weight as Value] },
    flatInputs.leaves.map(fromHost),
  );
  let worst = 0;
  (["q", "k"] as const).forEach((name, which) => {
    const base = fromHost(subject.frozen[name].weight as unknown as HostTensor).data;
    base.forEach((w, i) => {
      const [got, between] = [weights[name].weight.data[i], mergedWeights[name].weight.data[i]];
      const bound = roundoff.f32 * (Math.abs(w) + Math.abs(between)) + 2 * gamma(trial.r + 2) * deltas[which].terms[i];
      worst = Math.max(worst, Math.abs(got - w) / bound);
    });
  });
  return worst;
}

const zeroLike = ({ frozen }: MergeSubject): Leaf => zeros(frozen.q.weight as unknown as HostTensor);
const zeroBias = ({ frozen }: MergeSubject): Leaf => zeros(frozen.q.bias as unknown as HostTensor);
const zeros = ({ shape, dtype }: HostTensor) => full(shape, 0, dtype);

async function hostList(runtime: OpenRuntime, tensors: unknown): Promise<OracleTensor[]> {
  return (await runtime.read(tensors) as HostTensor[]).map(fromHost);
}
