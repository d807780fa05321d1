import { formatAval } from "../aval.ts";
import { ShapeError } from "../errors.ts";
import { bind1, type Primitive, type Value } from "../ir/graph.ts";
import type { Operand } from "../tensor.ts";
import { axesOf, showArgument } from "./arguments.ts";
import { asValue } from "./constant.ts";
import { convert } from "./elementwise.ts";
import { asNumbers } from "./quantize.ts";
import { transpose } from "./structure.ts";
import { checkOptions } from "../options.ts";

/** Which axes of a and b are summed over, and which run along with each other; the rest are free. */
export interface DotDims {
  /** The axes of either side that are summed over, in pairs. */
  readonly contract: readonly [readonly number[], readonly number[]];
  /** The axes of either side that go together, in pairs; they lead the result. */
  readonly batch: readonly [readonly number[], readonly number[]];
}

/** The axes of an operand of a dot that are neither contracted nor batch axes. */
export function freeAxes(rank: number, contract: readonly number[], batch: readonly number[]): number[] {
  return Array.from({ length: rank }, (_, i) => i).filter((i) => !contract.includes(i) && !batch.includes(i));
}

/**
 * A product with dimension numbers: out[batch…, free of a…, free of b…] = Σ a·b over the contracting axes, accumulated in
 * f32. Operands may be stored as f16 or bf16; the result is f32.
 */
export const dotPrim: Primitive<DotDims> = {
  name: "dot",
  infer: ([a, b], { contract, batch }) => {
    for (const [x, i] of [[a, 0], [b, 1]] as const) axesOf("matmul", x, [...contract[i], ...batch[i]]);
    for (const [what, [as, bs]] of [["contracted", contract], ["batch", batch]] as const) {
      const [sa, sb] = [as.map((i) => a.shape[i]), bs.map((i) => b.shape[i])];
      if (sa.length !== sb.length || sa.some((d, i) => d !== sb[i])) {
        throw new ShapeError(
          `Cannot matmul ${formatAval(a)} and ${formatAval(b)}: ${what} sizes must match: got ${sa} and ${sb}`,
        );
      }
    }
    if ([a, b].some((x) => x.dtype === "i32" || x.dtype === "u32" || x.dtype === "bool")) {
      throw new ShapeError(`Cannot matmul ${formatAval(a)} and ${formatAval(b)}: products are of floats`);
    }
    const shape = [
      ...batch[0].map((i) => a.shape[i]),
      ...freeAxes(a.shape.length, contract[0], batch[0]).map((i) => a.shape[i]),
      ...freeAxes(b.shape.length, contract[1], batch[1]).map((i) => b.shape[i]),
    ];
    return [{ shape, dtype: "f32" }];
  },
  vjp: ({ cts: [ct], needs, inputs: [a, b], params: { contract: [ac, bc], batch: [ab, bb] } }) => {
    if (!ct) return [null, null];
    const [fa, fb] = [freeAxes(a.shape.length, ac, ab), freeAxes(b.shape.length, bc, bb)];
    const n = ab.length;
    const ctBatch = ab.map((_, i) => i), ctA = fa.map((_, i) => n + i), ctB = fb.map((_, i) => n + fa.length + i);
    return [
      needs[0] ? adjoint(ct, ctBatch, ctB, b, bb, fb, bc, a, ab, fa, ac) : null,
      needs[1] ? adjoint(ct, ctBatch, ctA, a, ab, fa, ac, b, bb, fb, bc) : null,
    ];
  },
  batch: ({ inputs: [a, b], batched: [xa, xb], params: { contract, batch } }) => {
    const up = (axes: readonly number[], by: boolean) => by ? axes.map((i) => i + 1) : axes;
    const shifted = { contract: [up(contract[0], xa), up(contract[1], xb)] as const };
    const batches = [up(batch[0], xa), up(batch[1], xb)] as const;
    if (xa && xb) {
      return [bind1(dotPrim, [a, b], { ...shifted, batch: [[0, ...batches[0]], [0, ...batches[1]]] })];
    }
    // The batched axis is one more free axis: one product serves all, the other operand is not repeated.
    const out = bind1(dotPrim, [a, b], { ...shifted, batch: batches });
    const n = batch[0].length;
    const at = xa ? n : n + freeAxes(a.shape.length, contract[0], batch[0]).length;
    const order = out.shape.map((_, i) => i).filter((i) => i !== at);
    return [transpose(out, [at, ...order])];
  },
  lowering: { kind: "contract" },
};

/** The cotangent of `x`: ct times the other operand over the other's free axes, with its axes put back in x's order. */
function adjoint(
  ct: Value,
  ctBatch: readonly number[],
  ctOther: readonly number[],
  other: Value,
  otherBatch: readonly number[],
  otherFree: readonly number[],
  otherContract: readonly number[],
  x: Value,
  xBatch: readonly number[],
  xFree: readonly number[],
  xContract: readonly number[],
): Value {
  // Free axes come out as [mine, contract] or [contract, mine]: take the order that x has, so that nothing moves.
  const mineFirst = xFree.length === 0 || xContract.length === 0 || xFree[0] < xContract[0];
  const sorted = xContract.map((axis, i) => ({ axis, other: otherContract[i] })).sort((p, q) => p.other - q.other);
  const contractAxes = sorted.map((p) => p.axis);
  const out = mineFirst
    ? bind1(dotPrim, [ct, other], { contract: [ctOther, otherFree], batch: [ctBatch, otherBatch] })
    : bind1(dotPrim, [other, ct], { contract: [otherFree, ctOther], batch: [otherBatch, ctBatch] });
  const order = [...xBatch, ...(mineFirst ? [...xFree, ...contractAxes] : [...contractAxes, ...xFree])];
  return convert(transpose(out, x.shape.map((_, i) => order.indexOf(i))), x.dtype);
}

/**
 * A product with explicit dimension numbers.
 *
 * @throws {ShapeError} when an axis is missing or named twice, or sizes differ
 */
export function dot(a: Operand, b: Operand, dims: DotDims): Value {
  const [x, y] = [asNumbers(a), asNumbers(b)];
  const pair = (axes: unknown): [number[], number[]] => {
    if (!Array.isArray(axes) || axes.length !== 2 || !axes.every((list) => Array.isArray(list))) {
      throw new ShapeError(`Cannot matmul by axes ${showArgument(axes)}: give a list of axes for either side`);
    }
    return [axesOf("matmul", x.aval, axes[0]), axesOf("matmul", y.aval, axes[1])];
  };
  return bind1(dotPrim, [x, y], { contract: pair(dims?.contract), batch: pair(dims?.batch) });
}

/**
 * a[…, k] · b[k, n] → […, n], or with `transposeB` a[…, k] · b[n, k] → […, n]; equal leading axes of both are batch axes
 * when b has more than two.
 *
 * @throws {ShapeError} when the contracted sizes differ
 */
export function matmul(a: Operand, b: Operand, options: { transposeB?: boolean } = {}): Value {
  checkOptions("matmul", options, { transposeB: true });
  const [x, w] = [asValue(a), asValue(b)];
  const extra = Math.max(0, w.shape.length - 2);
  const batch = Array.from({ length: extra }, (_, i) => i);
  const k = options.transposeB || w.shape.length < 2 ? -1 : -2;
  return dot(x, w, { contract: [[-1], [k]], batch: [batch, batch] });
}
