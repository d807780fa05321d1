/** How a kernel's work is laid out on a GPU by a tile: a plain value. The emitters decide nothing more. */
import { sizeOf } from "../../core/aval.ts";
import { accessesOf, type Index, rootsOf, walk } from "../ir/expr.ts";
import type { KernelKind, KernelOf } from "../ir/kernel.ts";
import { isWide } from "./access.ts";
import { isContiguous, isFixed } from "./axes.ts";
import { type ProductSchedule, scheduleProduct } from "./product/product_schedule.ts";
import { type RowSchedule, scheduleRow } from "./row/row_schedule.ts";
import type { Width } from "./scalar.ts";
import type { Dispatch } from "./shader.ts";
import { fitAttention, maxRounds, type TileConfig } from "./tile.ts";

interface Schedules {
  /** Points that a lane takes, and whether the axes are one flat axis. */
  readonly map: { readonly unit: Width; readonly flat: boolean };
  readonly row: RowSchedule;
  readonly contract: ProductSchedule;
  /** Indices that a round of the loops looks at. */
  readonly scatter: { readonly unroll: number };
  /** Lanes of a workgroup, each with a 4 x 4 block of scores, and elements of the width that are read at a time. */
  readonly attention: { readonly columns: number; readonly rows: number; readonly unit: Width };
}

export type Schedule<K extends KernelKind = KernelKind> = {
  [kind in K]: Schedules[kind] & Dispatch & { readonly kind: kind };
}[K];

/** What a schedule depends on beside the kernel: `alias[i]` is the first operand that shares operand i's buffer. */
export interface Target {
  readonly tile: TileConfig;
  readonly alias: readonly number[];
}

export function schedule<K extends KernelKind>(kernel: KernelOf<K>, target: Target): Schedule<K> {
  return schedulers[kernel.kind as K](kernel, target);
}

const schedulers: { readonly [K in KernelKind]: (kernel: KernelOf<K>, target: Target) => Schedule<K> } = {
  map({ kind, shape, stores, operands }, { tile: { mapLanes: workgroupSize, window }, alias }) {
    const exprs = [...walk(rootsOf(stores))];
    const accesses = accessesOf(exprs, stores);
    const total = sizeOf(shape), last = shape.length - 1;
    const flat = !exprs.some((expr) => expr.kind === "axis") &&
      accesses.every(({ index }) => isContiguous(index, shape) || isFixed(index, shape)) &&
      stores.every(({ index }) => isContiguous(index, shape)) && total > 1;
    const wide = (index: Index) => flat ? isContiguous(index, shape) : isWide(index, last);
    const narrow = accesses.filter(({ index }) => !wide(index)).map(({ operand }) => operand);
    const aliasedNarrow = (i: number) => narrow.some((j) => alias[j] === alias[i]);
    // The last four may reach past the end, into the padding that every buffer has: not where other elements follow.
    const fills = total % 4 === 0 || stores.every(({ operand }) => operands[operand].size === total);
    const vector = flat
      ? fills && !stores.some(({ operand }) => aliasedNarrow(operand))
      : last >= 0 && shape[last] % 4 === 0 && accesses.some(({ operand }) => !aliasedNarrow(operand));
    const unit = vector ? 4 : 1, workgroups = Math.ceil(Math.ceil(total / unit) / workgroupSize);
    return {
      kind,
      unit,
      flat,
      workgroups,
      workgroupSize,
      window,
      alias,
      narrow: vector ? narrow : [...operands.keys()],
    };
  },
  row(kernel, { tile, alias }) {
    const { kind, rows, cols, phases, operands } = kernel, column = rows.length;
    const roots = phases.flatMap((phase) => phase.kind === "reduce" ? [phase.value] : rootsOf(phase.stores));
    const stores = phases.flatMap((phase) => phase.kind === "reduce" ? [] : phase.stores);
    const accesses = accessesOf(walk(roots), stores);
    const narrow = new Set(accesses.filter(({ index }) => !isWide(index, column)).map(({ operand }) => alias[operand]));
    const unit = cols % 4 === 0 && operands.some((_, i) => !narrow.has(alias[i])) ? 4 : 1;
    if (unit === 1) operands.forEach((_, i) => narrow.add(i));
    const beside = (axis: number) => accesses.some(({ index }) => index.strides[axis] === 1);
    const made = scheduleRow(kernel, tile, unit, !beside(column) && column > 0 && beside(column - 1));
    const [rowsEach, workgroupSize] = made.lanes === 1 ? [tile.mapLanes, tile.mapLanes] : [1, made.lanes];
    const workgroups = Math.ceil(sizeOf(rows) / rowsEach);
    return { kind, ...made, workgroups, workgroupSize, window: tile.window, alias, narrow: [...narrow] };
  },
  contract(kernel, { tile, alias }) {
    return { kind: kernel.kind, ...scheduleProduct(kernel, tile), window: tile.window, alias };
  },
  scatter({ kind, operands, count, cols }, { tile: { mapLanes: workgroupSize, window }, alias }) {
    const workgroups = count * Math.ceil(cols / workgroupSize);
    // Several a round where there are more than every adapter's loops have rounds.
    const unroll = Math.ceil(count / maxRounds);
    return { kind, unroll, workgroups, workgroupSize, window, alias, narrow: [...operands.keys()] };
  },
  attention(kernel, { tile, alias }) {
    const { kind, pass, operands, layouts, batch, heads, kvHeads, queries, keys, width } = kernel;
    const [columns, rows] = fitAttention(tile, kernel);
    const [owners, tokens] = pass === "backward-kv" ? [kvHeads, keys] : [heads, queries];
    const wide = width % 4 === 0 &&
      layouts.every((layout) => layout === null || Object.values(layout).every((n) => n % 4 === 0));
    const narrow = [...operands.keys()].filter((i) => !wide || layouts[i] === null);
    const workgroups = batch * owners * Math.ceil(tokens / (rows * 4)), workgroupSize = columns * rows;
    return { kind, columns, rows, unit: wide ? 4 : 1, workgroups, workgroupSize, window: tile.window, alias, narrow };
  },
};
