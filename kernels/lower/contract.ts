/** Products: from dimension numbers and windows to one row axis, one column axis and one contracted axis a segment. */
import { type DotDims, freeAxes } from "../../core/ops/contract.ts";
import type { Store } from "../ir/expr.ts";
import { isOneAxis } from "../ir/fold.ts";
import type { Context } from "./context.ts";
import { copyOf } from "./copy.ts";
import { type Buffer, isBuffer, type Memory, type Repr } from "./repr.ts";

/** A sum of products of one shape [batch…, rows…, columns…]: `batch` and `free` count its leading and its row axes. */
export interface Contraction {
  readonly batch: number;
  readonly free: number;
  readonly segments: readonly {
    readonly a: Repr;
    readonly b: Repr;
    readonly dims: DotDims;
    /** Whether the product rounds the rows of a to bytes. Such a one has no other beside it. */
    readonly rounded: boolean;
  }[];
}

/** The axes of an operand in the order batch, free, contracted. */
function axesOf(repr: Repr, contract: readonly number[], batch: readonly number[]) {
  const free = freeAxes(repr.view.shape.length, contract, batch);
  const pick = (axes: readonly number[]) => axes.map((i) => repr.view.strides[i]);
  return { free, batchStrides: pick(batch), freeStrides: pick(free), contractStrides: pick(contract) };
}

/** The window itself where its free and contracted axes each read as one, else a copy for which they do. */
function asMatrix(ctx: Context, repr: Repr, contract: readonly number[], batch: readonly number[]): Repr {
  const free = freeAxes(repr.view.shape.length, contract, batch);
  if (isBuffer(repr.base) && [free, contract].every((axes) => isOneAxis(repr.view.shape, axes, [repr.view]))) {
    return repr;
  }
  const order = [...batch, ...free, ...contract];
  const view = {
    shape: order.map((i) => repr.view.shape[i]),
    offset: repr.view.offset,
    strides: order.map((i) => repr.view.strides[i]),
  };
  const copy = copyOf(ctx, { ...repr, view });
  const at = repr.view.shape.map((_, i) => order.indexOf(i));
  return {
    ...copy,
    view: { shape: repr.view.shape, offset: 0, strides: at.map((i) => copy.view.strides[i]) },
  };
}

/** Launches one kernel for a contraction, with what is stored of it. */
export function launchContract(
  ctx: Context,
  shape: readonly number[],
  contraction: Contraction,
  stores: readonly Store<Memory>[],
): void {
  const { batch, free } = contraction;
  const zeros = (count: number) => new Array<number>(count).fill(0);
  const segments = contraction.segments.map(({ a, b, dims, rounded }) => {
    // Both operands must list the contracted axes in one order; that of a's memory is as good as any.
    const order = dims.contract[0].map((_, i) => i)
      .sort((i, j) => a.view.strides[dims.contract[0][j]] - a.view.strides[dims.contract[0][i]]);
    const ca = order.map((i) => dims.contract[0][i]), cb = order.map((i) => dims.contract[1][i]);
    const ma = asMatrix(ctx, a, ca, dims.batch[0]), mb = asMatrix(ctx, b, cb, dims.batch[1]);
    const va = axesOf(ma, ca, dims.batch[0]), vb = axesOf(mb, cb, dims.batch[1]);
    const sizes = ca.map((i) => a.view.shape[i]);
    // Over the axes of the output: a does not move along columns, b not along rows.
    const indexA = {
      offset: ma.view.offset,
      strides: [...va.batchStrides, ...va.freeStrides, ...zeros(shape.length - batch - free)],
    };
    const indexB = { offset: mb.view.offset, strides: [...vb.batchStrides, ...zeros(free), ...vb.freeStrides] };
    const last = sizes.findLastIndex((d) => d !== 1);
    return {
      k: sizes.reduce((n, d) => n * d, 1),
      a: { operand: ma.base as Buffer, index: indexA, step: last < 0 ? 1 : va.contractStrides[last] },
      b: { operand: mb.base as Buffer, index: indexB, step: last < 0 ? 1 : vb.contractStrides[last] },
      ...(rounded && { rounded }),
    };
  }).sort((x, y) => y.k - x.k);
  ctx.launch({ kind: "contract", shape, batch, free, segments, stores });
}
