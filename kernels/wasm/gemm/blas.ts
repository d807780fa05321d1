/**
 * Large products by the system's BLAS: each unit of work is one of its products, stored like any other. Weights that are
 * stored narrower than f32 are unpacked for it, a block of k at a time, into the thread's scratch.
 */
import { sizeOf } from "../../../core/aval.ts";
import { isPacked } from "../../../core/packed/blocks.ts";
import type { Store } from "../../ir/expr.ts";
import type { ContractKernel } from "../../ir/kernel.ts";
import type { ImportedFunction, Local } from "../assembler.ts";
import { emitStaged } from "./blas_stage.ts";
import type { Area } from "./loops.ts";
import type { GemmOperands } from "./operands.ts";
import type { Depth } from "./pack.ts";
import {
  evenBlock,
  type GemmPlan,
  planSegment,
  roundUp,
  type SegmentPlan,
  type Side,
  storesRunAlongRows,
} from "./plan.ts";

/** Multiply-adds from which a product gains by a BLAS; measured by bench/blas.ts. */
export const blasCrossover = 1 << 15;

/** What a kernel that calls a BLAS imports, as function 0. */
export const blasImport: ImportedFunction = { module: "b", name: "product", parameters: new Array(12).fill("i32") };

/**
 * Rows and columns of a unit, at most: the largest that leave enough units to share out. Long rows are read and written by
 * the epilogue as memory likes it; more rows than these gain nothing.
 */
const tiles = [[128, 1024], [128, 512], [128, 256], [128, 128], [128, 96]] as const;
/** The same for a few columns, as a low-rank factor has them: small products, which libraries take without packing. */
const narrowTiles = [[128, 32], [64, 32], [32, 32]] as const;
/** The same where a side has to be unpacked, which more rows use. */
const stagedTiles = [[256, 512], [256, 256], [256, 128], [256, 96]] as const;
const wantedUnits = 6;
/** Rows from which unpacking pays, unless every product is to go to the BLAS. */
const stagedRows = 32;
/** Depth of k that is unpacked at once: with 256 columns, 768 KB. */
const stagedDepth = 768;

/** The plan of a product that a BLAS is to compute, or null where the kernels built in are faster or alone can. */
export function planBlas(kernel: ContractKernel, from: number): GemmPlan | null {
  const { batch, m, n, stores } = kernel;
  if (m * n * kernel.segments[0].k < from || kernel.segments.some((s) => s.rounded)) return null;
  const swapped = storesRunAlongRows(stores, batch.length);
  const [rows, columns] = swapped ? [n, m] : [m, n];
  const segments = kernel.segments.map((s): SegmentPlan => {
    return { ...planSegment(s, kernel.operands, swapped), splatMode: "inPlace", panelMode: "inPlace" };
  });
  const fits = segments.every(({ k, splat, panel }) => form(splat, rows, k) && form(panel, columns, k));
  if (!fits) return null;
  const [{ k }] = segments;
  const staged = segments.some(({ splat, panel }) => !isWide(splat) || !isWide(panel));
  if (staged && from > 0 && Math.min(m, n) < stagedRows) return null;
  const blocks = (staged ? stagedTiles : columns <= 32 ? narrowTiles : tiles)
    .map(([high, wide]) => [evenBlock(rows, high), evenBlock(columns, wide)])
    // Packed weights are read in whole runs of 32.
    .map(([high, wide]) => staged ? [roundUp(high, 32), roundUp(wide, 32)] : [high, roundUp(wide, 4)]);
  const units = ([high, wide]: number[]) => sizeOf(batch) * Math.ceil(rows / high) * Math.ceil(columns / wide);
  const [rowBlock, columnBlock] = blocks.find((block) => units(block) >= wantedUnits) ?? blocks[blocks.length - 1];
  const depthBlock = staged ? roundUp(evenBlock(k, stagedDepth), 32) : k;
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
    columnBlock,
    depthBlock,
  };
}

/** Whether a side can be read where it lies. */
function isWide({ dtype }: Side): boolean {
  return dtype === "f32";
}

/** How a side lies in memory as a row-major matrix: its row length, and whether its rows run along k. Null if it does not. */
function form(side: Side, size: number, k: number): { length: number; byK: boolean } | null {
  const { dtype, index, free, k: alongK } = side;
  if (index.dynamic?.length || (isPacked(dtype) && side.runs === null)) return null;
  if (dtype !== "f32" && dtype !== "f16" && dtype !== "bf16" && !isPacked(dtype)) return null;
  if (side.runs !== "free" && alongK === 1 && (free >= k || size === 1)) {
    return { length: Math.max(free, k), byK: true };
  }
  if (side.runs !== "k" && free === 1 && (alongK >= size || k === 1)) {
    return { length: Math.max(alongK, size), byK: false };
  }
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

/** A matrix as a BLAS is given it. */
interface Matrix {
  readonly address: Local;
  readonly length: number;
  readonly byK: boolean;
}

/**
 * Multiplies an area into the rows of `row` elements at the address that `pushTo` pushes. `reserve` gives bytes of scratch.
 */
export function emitBlasProducts(
  operands: GemmOperands,
  area: Area,
  pushTo: () => void,
  row: number,
  reserve: (bytes: number) => Local,
): void {
  const { code, plan } = operands, { rows, columns, segments, rowBlock, columnBlock, depthBlock } = plan;
  const { outer, first, last, column, columnEnd } = area;
  const [high, wide] = operands.counters(2);
  code.get(last).get(first).op("i32.sub").set(high).get(columnEnd).get(column).op("i32.sub").set(wide);
  const sides = segments.map(({ splat, panel, k }) => ({
    k,
    left: { side: splat, ...form(splat, rows, k)!, first, count: high, most: rowBlock },
    right: { side: panel, ...form(panel, columns, k)!, first: column, count: wide, most: columnBlock },
  }));
  type Part = typeof sides[number]["left"];
  // One place for each side, which the segments use in turn.
  const stages = (["left", "right"] as const).map((name) =>
    sides.every((s) => isWide(s[name].side)) ? null : reserve(sides[0][name].most * depthBlock * 4)
  );
  const matrix = ({ side, length, byK, first, count, most }: Part, depth: Depth, stage: Local | null): Matrix => {
    if (stage === null || isWide(side)) return { address: operands.address(side, outer, first, depth), length, byK };
    const rowLength = byK ? depthBlock : most;
    emitStaged(operands, { side, outer, first, count, depth }, byK, stage, rowLength);
    return { address: stage, length: rowLength, byK };
  };
  const call = (a: Matrix, b: Matrix, depth: Depth, pushBeta: () => void) => {
    code.i32(a.byK ? 0 : 1).i32(b.byK ? 1 : 0).get(high).get(wide).push(depth.length);
    code.get(a.address).i32(a.length).get(b.address).i32(b.length);
    pushBeta();
    pushTo();
    code.i32(row).call(0);
  };
  sides.forEach(({ k, left, right }, i) => {
    if (depthBlock >= k || (isWide(left.side) && isWide(right.side))) {
      const all: Depth = { start: null, length: { constant: k }, end: { constant: k }, most: k };
      const [a, b] = [left, right].map((part, s) => matrix(part, all, stages[s]));
      return call(a, b, all, () => code.i32(i > 0 ? 1 : 0));
    }
    const [start, end, length] = operands.counters(3);
    code.i32(0).set(start);
    code.loopUpTo(start, { constant: k }, 1, () => {
      code.get(start).i32(depthBlock).op("i32.add").set(end).limit(end, { constant: k });
      code.get(end).get(start).op("i32.sub").set(length);
      const part: Depth = { start, length, end, most: depthBlock };
      const [a, b] = [left, right].map((side, s) => matrix(side, part, stages[s]));
      call(a, b, part, () => i > 0 ? code.i32(1) : code.get(start).i32(0).op("i32.ne"));
      code.get(end).set(start);
    }, 0);
  });
}
