/**
 * How a kernel's work is done: a plain value, decided from the kernel and from whether there is a BLAS, so that results depend
 * on neither machine nor thread count. The emitters decide nothing more.
 */
import { sizeOf } from "../../core/aval.ts";
import { accessesOf, rootsOf, walk } from "../ir/expr.ts";
import type { KernelKind, KernelOf, RowKernel } from "../ir/kernel.ts";
import { type GemmPlan, planBlas, planGemm, planGemv, storesPlainly } from "./gemm/plan.ts";

/** What a schedule depends on beside the kernel. */
export interface Target {
  /** The least product that an imported BLAS computes, as a measure of its work; null where there is none. */
  readonly blasFrom?: number | null;
}

interface Schedules {
  /** A unit is at most `block` points of the innermost axis. */
  readonly map: { readonly block: number };
  /** A unit is `block` rows. Reductions that lanes along the columns do are gathered in so many vectors. */
  readonly row: { readonly lanesAlong: "columns" | "rows"; readonly block: number; readonly accumulators: 1 | 4 };
  /** A BLAS may multiply `inPlace`, into what is stored. */
  readonly contract: GemmPlan & { readonly inPlace: boolean };
  /** A unit owns `block` rows of the target. */
  readonly scatter: { readonly block: number };
  /** A unit is `block` of the rows, queries or (in backward-kv) keys; the columns that they meet may be `packed`. */
  readonly attention: {
    readonly rows: number;
    readonly columns: number;
    readonly block: number;
    readonly packed: boolean;
  };
}

/** The schedule of a kernel, with its units of work and how many of them are worth a call. */
export type Schedule<K extends KernelKind = KernelKind> = {
  [kind in K]: Schedules[kind] & { readonly kind: kind; readonly units: number; readonly grain: number };
}[K];

/** About as many points as make a call of tens of microseconds: long enough to pay for it, short enough to share out. */
const pointsPerCall = 16384;
/** Multiplications that do. */
const productsPerCall = 1 << 18;
/** Rows that one unit covers where lanes lie along rows: whole cache lines of f32. */
const rowsPerUnit = 64;
/** Columns from which a reduction takes several accumulators. */
const manyColumns = 64;
/** At most this many ranges of a scatter's targets: each reads every index again. */
const maxRanges = 32;
/** Rows of a block of attention: enough to use each row of the other side from cache many times. */
const maxAttentionRows = 32;
/** Rows of a block from which packing the other side pays. */
const minPackedRows = 12;

export function schedule<K extends KernelKind>(kernel: KernelOf<K>, target: Target): Schedule<K> {
  return schedulers[kernel.kind as K](kernel, target);
}

const schedulers: { readonly [K in KernelKind]: (kernel: KernelOf<K>, target: Target) => Schedule<K> } = {
  map({ kind, shape }) {
    const length = shape.at(-1) ?? 1, block = Math.min(length, pointsPerCall);
    return { kind, block, ...work(sizeOf(shape.slice(0, -1)) * Math.ceil(length / block), block) };
  },
  row(kernel) {
    const { kind, rows, cols, phases } = kernel;
    const lanesAlong = prefersRows(kernel) ? "rows" : "columns", block = lanesAlong === "rows" ? rowsPerUnit : 1;
    const accumulators = lanesAlong === "columns" && cols >= manyColumns ? 4 : 1;
    const units = sizeOf(rows.slice(0, -1)) * Math.ceil((rows.at(-1) ?? 1) / block);
    return { kind, lanesAlong, block, accumulators, ...work(units, cols * phases.length * block) };
  },
  contract(kernel, { blasFrom }) {
    const blas = blasFrom == null ? null : planBlas(kernel, blasFrom);
    const plan = blas ?? planGemv(kernel) ?? planGemm(kernel);
    const { by, rows, columns, rowBlock, columnBlock, segments } = plan;
    const inPlace = by === "blas" && storesPlainly(kernel, plan);
    const units = sizeOf(kernel.batch) * Math.ceil(rows / rowBlock) * Math.ceil(columns / columnBlock);
    const depth = segments.reduce((sum, { k }) => sum + k, 0);
    // Few rows take memory's time, not that of multiplying.
    const perCall = by === "dotGemv" ? productsPerCall / 4 : productsPerCall;
    const products = Math.min(rowBlock, rows) * Math.min(columnBlock, columns) * depth;
    return { kind: kernel.kind, ...plan, inPlace, ...work(units, products, perCall) };
  },
  scatter({ kind, count, cols, targets }) {
    const block = Math.max(1, Math.ceil(targets / maxRanges));
    return { kind, block, ...work(Math.ceil(targets / block), block * cols + count) };
  },
  attention({ kind, pass, batch, heads, kvHeads, queries, keys, width }) {
    const [rows, columns, owners] = pass === "backward-kv" ? [keys, queries, kvHeads] : [queries, keys, heads];
    const block = Math.min(maxAttentionRows, rows), packed = block >= minPackedRows;
    const costOfRow = { "forward": 4, "backward-q": 6, "backward-kv": 8 * (heads / kvHeads) }[pass] * columns * width;
    const units = batch * owners * Math.ceil(rows / block);
    return { kind, rows, columns, block, packed, ...work(units, block * costOfRow, 8 * pointsPerCall) };
  },
};

/** Units that each cost `cost`, of what a call may. */
function work(units: number, cost: number, perCall = pointsPerCall): { units: number; grain: number } {
  return { units, grain: Math.max(1, Math.floor(perCall / cost)) };
}

/** Whether the accesses are contiguous (or constant) along the last row axis rather than along the columns. */
function prefersRows({ rows, cols, phases }: RowKernel): boolean {
  if (rows.length === 0 || rows[rows.length - 1] < 4) return false;
  let alongColumns = 0, alongRows = 0;
  const awkward = (stride = 0) => stride === 0 || stride === 1 ? 0 : 1;
  for (const phase of phases) {
    if (phase.kind === "once") continue;
    const [roots, stores] = phase.kind === "reduce" ? [[phase.value], []] : [rootsOf(phase.stores), phase.stores];
    for (const { index } of accessesOf(walk(roots), stores)) {
      alongColumns += awkward(index.strides[rows.length]);
      alongRows += awkward(index.strides[rows.length - 1]);
    }
  }
  return alongRows < alongColumns || (alongRows === alongColumns && alongRows === 0 && cols < 4);
}
