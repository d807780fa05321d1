/** Products: from dimension numbers and windows to one row axis, one column axis and one contracted axis a segment. */
import { type DotDims, freeAxes } from "../../core/ops/contract.ts";
import type { ContractKernel, Segment, Store } from "../ir/kernel.ts";
import { finisher, foldAxes, indicesOf } from "./axes.ts";
import type { Context } from "./context.ts";
import { copyOf, Operands } from "./emit.ts";
import { type Buffer, type DraftIndex, type DraftStore, isBuffer, type Repr } from "./repr.ts";

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

/** Whether axes of a window can be read as one axis. */
function isOneAxis(repr: Repr, axes: readonly number[]): boolean {
  const strides = axes.map((i) => repr.view.strides[i]);
  return foldAxes(axes.map((i) => repr.view.shape[i]), axes.map((_, i) => i), [{ offset: 0, strides }]).keep.length <=
    1;
}

/** The window itself where its free and contracted axes each read as one, else a copy for which they do. */
function asMatrix(ctx: Context, repr: Repr, contract: readonly number[], batch: readonly number[]): Repr {
  const free = freeAxes(repr.view.shape.length, contract, batch);
  if (isBuffer(repr.base) && isOneAxis(repr, free) && isOneAxis(repr, contract)) return repr;
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
  stores: readonly DraftStore[],
): void {
  const rank = shape.length;
  const axes = Array.from({ length: rank }, (_, i) => i);
  const batchAxes = axes.slice(0, contraction.batch);
  const rowAxes = axes.slice(contraction.batch, contraction.batch + contraction.free);
  const columnAxes = axes.slice(contraction.batch + contraction.free);

  const segments = contraction.segments.map(({ a, b, dims, rounded }) => {
    // Both operands must list the contracted axes in one order; that of a's memory is as good as any.
    const order = dims.contract[0].map((_, i) => i)
      .sort((i, j) => a.view.strides[dims.contract[0][j]] - a.view.strides[dims.contract[0][i]]);
    const ca = order.map((i) => dims.contract[0][i]), cb = order.map((i) => dims.contract[1][i]);
    const ma = asMatrix(ctx, a, ca, dims.batch[0]), mb = asMatrix(ctx, b, cb, dims.batch[1]);
    const va = axesOf(ma, ca, dims.batch[0]), vb = axesOf(mb, cb, dims.batch[1]);
    const sizes = ca.map((i) => a.view.shape[i]);
    const zeros = (list: readonly number[]) => list.map(() => 0);
    // Over the axes of the output: a does not move along columns, b not along rows.
    const indexA: DraftIndex = {
      offset: ma.view.offset,
      strides: [...va.batchStrides, ...va.freeStrides, ...zeros(columnAxes)],
    };
    const indexB: DraftIndex = {
      offset: mb.view.offset,
      strides: [...vb.batchStrides, ...zeros(rowAxes), ...vb.freeStrides],
    };
    const last = sizes.findLastIndex((d) => d !== 1);
    return {
      k: sizes.reduce((n, d) => n * d, 1),
      rounded,
      a: { buffer: ma.base as Buffer, index: indexA, step: last < 0 ? 1 : va.contractStrides[last] },
      b: { buffer: mb.base as Buffer, index: indexB, step: last < 0 ? 1 : vb.contractStrides[last] },
    };
  }).sort((x, y) => y.k - x.k);

  const indices = [...indicesOf([], stores), ...segments.flatMap((s) => [s.a.index, s.b.index])];
  const rows = foldAxes(shape, rowAxes, indices);
  const columns = foldAxes(shape, columnAxes, indices);
  // Where rows or columns do not read as one axis everywhere, the outer ones become batch axes.
  const outer = [...batchAxes, ...rows.keep.slice(0, -1), ...columns.keep.slice(0, -1)];
  const outerShape = axes.map((i) => shape[i]);
  rows.keep.slice(0, -1).forEach((axis, i) => outerShape[axis] = rows.shape[i]);
  columns.keep.slice(0, -1).forEach((axis, i) => outerShape[axis] = columns.shape[i]);
  const batch = foldAxes(outerShape, outer, indices);
  const keep = [...batch.keep, rows.keep.at(-1) ?? -1, columns.keep.at(-1) ?? -1];

  const operands = new Operands();
  const { expr, index } = finisher(keep, (b) => operands.read(b));
  const n = batch.keep.length;
  const finished: Segment[] = segments.map(({ k, rounded, a, b }) => {
    const at = index(a.index), bt = index(b.index);
    return {
      k,
      a: {
        operand: operands.read(a.buffer),
        index: { offset: at.offset, strides: [...at.strides.slice(0, n + 1), a.step] },
      },
      b: {
        operand: operands.read(b.buffer),
        index: { offset: bt.offset, strides: [...bt.strides.slice(0, n), b.step, bt.strides[n + 1]] },
      },
      ...(rounded && { rounded }),
    };
  });
  const done: Store[] = stores.map((s) => ({
    value: expr(s.value),
    index: index(s.index),
    operand: operands.write(s.buffer),
  }));
  const kernel: ContractKernel = {
    kind: "contract",
    operands: operands.list(),
    batch: batch.shape,
    m: rows.shape.at(-1) ?? 1,
    n: columns.shape.at(-1) ?? 1,
    segments: finished,
    stores: done,
  };
  ctx.launch({ kernel, buffers: operands.buffers });
}
