/** Large products by the system's BLAS: each unit of work is one of its products, stored like any other. */
import { sizeOf } from "../../core/aval.ts";
import type { ContractKernel, Store } from "../kernel.ts";
import type { ImportedFunction } from "./assembler.ts";
import type { Area } from "./gemm_loops.ts";
import type { GemmOperands } from "./gemm_operands.ts";
import type { Depth } from "./gemm_pack.ts";
import { evenBlock, type GemmPlan, planSegment, roundUp, type SegmentPlan, type Side } from "./gemm_plan.ts";
import { storesRunAlongRows } from "./gemm_plan.ts";

/** Multiply-adds from which a product gains by a BLAS; measured by bench/blas.ts. */
export const blasCrossover = 1 << 15;

/** What a kernel that calls a BLAS imports, as function 0. */
export const blasImport: ImportedFunction = { module: "b", name: "product", parameters: new Array(12).fill("i32") };

/** Rows and columns of a unit, at most: the largest that leave enough units to share out. */
const tiles = [[256, 256], [256, 192], [256, 128], [128, 128], [128, 96]] as const;
const wantedUnits = 8;

/** The plan of a product that a BLAS is to compute, or null where the kernels built in are faster or alone can. */
export function planBlas(kernel: ContractKernel, from: number): GemmPlan | null {
  const { batch, m, n, stores } = kernel;
  if (m * n * kernel.segments[0].k < from) return null;
  const swapped = storesRunAlongRows(stores, batch.length);
  const [rows, columns] = swapped ? [n, m] : [m, n];
  const segments = kernel.segments.map((s): SegmentPlan => {
    return { ...planSegment(s, kernel.operands, swapped), splatMode: "inPlace", panelMode: "inPlace" };
  });
  const fits = segments.every(({ k, splat, panel }) => form(splat, rows, k) && form(panel, columns, k));
  if (!fits) return null;
  const blocks = tiles.map(([most, wide]) => [evenBlock(rows, most), evenBlock(columns, wide)]);
  const units = ([high, wide]: number[]) => sizeOf(batch) * Math.ceil(rows / high) * Math.ceil(columns / wide);
  const [rowBlock, columnBlock] = blocks.find((block) => units(block) >= wantedUnits) ?? blocks[blocks.length - 1];
  return {
    by: "blas",
    swapped,
    transposed: false,
    rows,
    columns,
    segments,
    tileRows: rowBlock,
    vectors: 1,
    rowBlock,
    columnBlock: roundUp(columnBlock, 4),
    group: rowBlock,
    depthBlock: segments[0].k,
    pass: segments[0].k,
  };
}

/** How a side lies in memory as a row-major matrix: its row length, and whether its rows run along k. Null if it does not. */
function form(
  { dtype, index, free, k: alongK }: Side,
  size: number,
  k: number,
): { length: number; byK: boolean } | null {
  if (dtype !== "f32" || index.dynamic?.length) return null;
  if (alongK === 1 && (free >= k || size === 1)) return { length: Math.max(free, k), byK: true };
  if (free === 1 && (alongK >= size || k === 1)) return { length: Math.max(alongK, size), byK: false };
  return null;
}

/** The store that the product itself can be, where nothing else is done with it. */
export function soleStore({ stores, batch, operands }: ContractKernel, plan: GemmPlan): Store | null {
  const [store] = stores, rank = batch.length;
  const [row, column] = plan.swapped ? [rank + 1, rank] : [rank, rank + 1];
  const plain = stores.length === 1 && store.value.kind === "result" && operands[store.operand].dtype === "f32" &&
    !store.index.dynamic?.length;
  return plain && store.index.strides[column] === 1 && store.index.strides[row] >= plan.columns ? store : null;
}

/** Multiplies an area into the rows of `row` elements at the address that `pushTo` pushes. */
export function emitBlasProducts(operands: GemmOperands, area: Area, pushTo: () => void, row: number): void {
  const { code, plan: { rows, columns, segments } } = operands;
  const { outer, first, last, column, columnEnd } = area;
  const all: Depth = { start: null, length: { constant: 0 }, end: { constant: 0 }, most: 0 };
  segments.forEach(({ splat, panel, k }, i) => {
    const left = form(splat, rows, k)!, right = form(panel, columns, k)!;
    const a = operands.address(splat, outer, first, all), b = operands.address(panel, outer, column, all);
    code.i32(left.byK ? 0 : 1).i32(right.byK ? 1 : 0);
    code.get(last).get(first).op("i32.sub").get(columnEnd).get(column).op("i32.sub").i32(k);
    code.get(a).i32(left.length).get(b).i32(right.length).i32(i > 0 ? 1 : 0);
    pushTo();
    code.i32(row).call(0);
  });
}
