/** Merging on a device, and the proof that it changed nothing but rounding. */
import { Value } from "../core/ir/graph.ts";
import type { Leaf } from "../core/model.ts";
import { matmul } from "../core/ops/contract.ts";
import { abs, add, convert, div, mul, sub } from "../core/ops/elementwise.ts";
import { reduceMax } from "../core/ops/reduce.ts";
import { type Operand, type Tensor, upload } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { jit, read } from "../kernels/jit.ts";
import type { Trainable, Tuned } from "../lora/mod.ts";
import { rngFrom } from "./rng.ts";

/** An adapted model, whatever it reads and returns. */
type AnyTuned<P> = Pick<Tuned<P, any, any>, "merge" | "frozen" | "matched" | "unties">;

/** The parameters with an adapter merged in: new tensors where a weight changed, the base's own everywhere else. */
export function mergeParams<P>(tuned: AnyTuned<P>, trainable: Trainable): P {
  const merged = flatten<Leaf>(tuned.merge(trainable, tuned.frozen));
  const changed = merged.leaves.filter((leaf) => leaf instanceof Value);
  const tensors: Tensor[] = jit(() => changed)();
  let i = 0;
  return merged.unflatten(merged.leaves.map((leaf) => leaf instanceof Value ? tensors[i++] : leaf)) as P;
}

/** How far a merged layer is from the adapted one. */
export interface MergeCheck {
  readonly path: string;
  /** The largest |adapted - merged| of any output, in units of its rounding bound: at most 1 where merging is right. */
  readonly ratio: number;
}

/** The unit roundoffs of the dtypes that weights are kept in; f32 is in γ. */
const roundoff = { f32: 0, f16: 2 ** -11, bf16: 2 ** -8 };
const rows = 16;

/**
 * Feeds every adapted linear layer the same random rows, adapted and merged, and compares the outputs with the bound that
 * rounding allows: 2γₙ(|x||W| + |s||x||A||B|) with n = K + r + 4, γₙ = nu/(1 - nu), u = 2⁻²⁴ (Higham 2002, section 3.1), and
 * u_W|x|(|W| + |s||A||B|) more where the weight is stored with roundoff u_W.
 */
export async function checkMerge<P>(tuned: AnyTuned<P>, trainable: Trainable, merged: P): Promise<MergeCheck[]> {
  const linears = tuned.matched.filter((m) => m.kind === "linear");
  const base = weightsByPath(tuned.frozen), after = weightsByPath(merged);
  const pairs = linears.map((m) => trainable[m.path]);
  const { home } = pairs[0].A as Tensor;
  const xs = linears.map((m, i) => {
    const width = m.shape[m.layout === "in,out" ? 0 : 1];
    const rng = rngFrom(i);
    const data = Float32Array.from({ length: rows * width }, () => 2 * rng.next() - 1);
    return upload(home, { shape: [rows, width], dtype: "f32", data });
  });
  // A name that shares its weight with another has none of its own before merging: the one it is split from.
  const splitFrom = new Map(tuned.unties.map(({ module, from }) => [module, from]));
  const before = linears.map(({ path }) => base.get(path) ?? base.get(splitFrom.get(path)!)!);
  const merges = linears.map(({ path }, i) => after.get(path) ?? before[i]);
  const ratios = jit((xs: Value[], before: Value[], pairs: { A: Value; B: Value }[], merges: Value[]) =>
    linears.map(({ layout, scaling, r }, i) => {
      const product = (x: Operand, w: Operand) => matmul(x, w, { transposeB: layout === "out,in" });
      const lowRank = (x: Operand, A: Operand, B: Operand) =>
        matmul(matmul(x, A, { transposeB: true }), B, { transposeB: true });
      const [x, w, { A, B }] = [xs[i], before[i], pairs[i]];
      const adapted = add(product(x, w), mul(lowRank(x, A, B), scaling));
      const size = abs(x);
      const wide = product(size, abs(convert(w, "f32")));
      const narrow = mul(lowRank(size, abs(A), abs(B)), Math.abs(scaling));
      const nu = (x.shape[1] + r + 4) * 2 ** -24;
      const unit = 2 * nu / (1 - nu) + roundoff[w.dtype as keyof typeof roundoff];
      return reduceMax(div(abs(sub(adapted, product(x, merges[i]))), mul(add(wide, narrow), unit)));
    })
  )(xs, before, pairs, merges);
  const found: number[] = await read(ratios, { release: true });
  for (const x of xs) x.dispose();
  return linears.map(({ path }, i) => ({ path, ratio: found[i] }));
}

function weightsByPath(params: unknown): Map<string, Leaf> {
  const { paths, leaves } = flatten<Leaf>(params);
  return new Map(paths.map((path, i) => [path.replace(/\.weight$/, ""), leaves[i]]));
}
