/**
 * How a product is computed: which side is splatted and which is read as panels of lanes, what is packed, and the
 * blocks. Decided from the kernel alone, so that results depend on neither machine nor thread count.
 *
 * One side, the splat side, gives single elements that are repeated in every lane, mostly where they lie. The other gives
 * vectors of neighbouring output columns; unless these are contiguous and used few times, they are packed first into
 * panels of `[k][width]` in the thread's scratch, widened to f32 on the way. The sides may be swapped: the tile is then
 * transposed, and a row-major weight whose contracted axis is contiguous is never packed.
 */
import type { DType } from "../../../core/dtype.ts";
import { sizeOf } from "../../../core/aval.ts";
import { isPacked } from "../../../core/packed/blocks.ts";
import type { Index, Store } from "../../ir/expr.ts";
import type { ContractKernel, Operand, Segment } from "../../ir/kernel.ts";

/** One operand of a segment: strides in elements along its free axis (m or n) and along k. */
export interface Side {
  readonly operand: number;
  readonly index: Index;
  readonly dtype: DType;
  readonly free: number;
  readonly k: number;
  /** Whether its index runs over [...batch, k, free] rather than [...batch, free, k]. */
  readonly kFirst: boolean;
  /** The axis along which a packed side lies in whole runs; null for other sides, and where it does not. */
  readonly runs: "k" | "free" | null;
}

/** `inPlace`; packed by vectors along the free axis (`copy`); or by transposing 4x4 blocks where k is contiguous. */
export type SideMode = "inPlace" | "copy" | "transpose";

export interface SegmentPlan {
  readonly k: number;
  /** Whether its k needs no walk of its own beside that of another segment, as a low-rank pair's. */
  readonly short: boolean;
  readonly splat: Side;
  readonly splatMode: SideMode;
  readonly panel: Side;
  readonly panelMode: SideMode;
  /** Whether the splat side's rows are rounded to bytes as they are read. */
  readonly rounded: boolean;
}

export interface GemmPlan {
  /**
   * What multiplies: `tiles` of registers; `dots`, which sum along k in their lanes, for few rows over a right side whose k
   * is contiguous; `sweep`, for a single row over one whose columns are; or the imported `blas`.
   */
  readonly by: "tiles" | "dotGemv" | "gemv" | "blas";
  /** Whether rows are n and columns m, rather than rows m and columns n. */
  readonly swapped: boolean;
  /** Whether the stores run along the rows, so that the tile block is transposed first. */
  readonly transposed: boolean;
  readonly rows: number;
  readonly columns: number;
  readonly segments: readonly SegmentPlan[];
  /** Rows of a tile, and vectors of four columns. */
  readonly tileRows: number;
  readonly vectors: number;
  /** Rows and columns of a unit of work. */
  readonly rowBlock: number;
  readonly columnBlock: number;
  /** The most of k that is packed and multiplied at once. */
  readonly depthBlock: number;
}

/** Depth up to which a segment is short. */
const shortDepth = 64;
/** The most of k at once: six rows and eight columns of it, 21 KB, stay in a first-level cache. */
const deepest = 384;
/**
 * Rows and columns of a unit, the largest first: each is packed once for all of the other, and weights come from far. With
 * its sums a unit takes 320 KB of a second-level cache.
 */
const unitSizes = [[256, 128], [128, 128], [128, 64], [128, 48], [64, 64], [48, 48], [24, 48]] as const;
/** Units that keep two, four or six threads evenly busy. */
const wantedUnits = 12;
/** Rows that are too few to pack the other side for, and columns that are too few to pack the splat side for. */
const fewRows = 12, fewColumns = 32;

export function planGemm(kernel: ContractKernel): GemmPlan {
  const dots = planDotGemv(kernel);
  if (dots) return dots;
  if (kernel.segments.some((s) => s.rounded)) throw new Error("rounded rows are multiplied as dot products only");
  const plain = planSides(kernel, false), swapped = planSides(kernel, true);
  return swapped.cost < plain.cost ? swapped.plan : plain.plan;
}

/** Rows (m) up to which dot products over contiguous k beat tiles with padded lanes. */
export const maxGemvRows = 4;

/** The plan for few rows where both sides are contiguous along k: every element of the right side is read once, in place. */
function planDotGemv(kernel: ContractKernel): GemmPlan | null {
  const { m, n, batch, stores } = kernel;
  if (m > maxGemvRows || n < 4) return null;
  const segments = segmentsInPlace(kernel, false);
  const near = ({ free }: Side) => free >= 0 && free < 2 ** 26;
  const fits =
    segments.every(({ splat, panel }) =>
      [splat, panel].every((s) => isStatic(s) && s.k === 1 && near(s)) && splat.dtype === "f32"
    ) && segments.every(({ panel }, i) => !isPacked(panel.dtype) || (i === 0 && panel.runs === "k"));
  if (!fits || storesRunAlongRows(stores, batch.length)) return null;
  // Short products in twice as many units, so that threads end together.
  return gemvPlan("dotGemv", kernel, segments, Math.min(n < 4096 ? 32 : 64, roundUp(n, 4)));
}

function gemvPlan(
  by: GemmPlan["by"],
  { m, n }: ContractKernel,
  segments: SegmentPlan[],
  columnBlock: number,
): GemmPlan {
  const [{ k: depthBlock }] = segments, as = { swapped: false, transposed: false, vectors: 1 };
  return { by, ...as, rows: m, columns: n, segments, tileRows: m, rowBlock: m, columnBlock, depthBlock };
}

/** Cycles that a packed element takes which is read by itself. */
const scatteredCost = 40;

/** A plan with its cost beyond the multiplications, in about cycles. */
function planSides(kernel: ContractKernel, swapped: boolean): { plan: GemmPlan; cost: number } {
  const { batch, operands } = kernel;
  const rows = swapped ? kernel.n : kernel.m, columns = swapped ? kernel.m : kernel.n;
  const along = storesRunAlongRows(kernel.stores, batch.length);
  const transposed = swapped ? !along : along;
  const tileRows = rows < 4 ? rows : tileCycles(rows, 6) <= tileCycles(rows, 4) ? 6 : 4;
  // Few rows leave registers for wider panels.
  const narrow = tileRows === 1 ? 8 : tileRows === 2 ? 4 : 2;
  const vectors = Math.min(narrow, Math.ceil(columns / 8) * 2), width = 4 * vectors;
  const segments = kernel.segments.map((segment): SegmentPlan => {
    const sides = planSegment(segment, operands, swapped);
    return {
      ...sides,
      splatMode: splatMode(sides.splat, rows, columns),
      panelMode: panelMode(sides.panel, rows, columns),
    };
  });
  // Packed sides are unpacked in whole runs of 32.
  const inRuns = segments.some(({ panel }) => panel.runs === "free") && 32 % width === 0;
  const blocks = unitSizes.map(([high, wide]) => [
    roundUp(evenBlock(rows, high), tileRows),
    roundUp(evenBlock(columns, wide), inRuns ? 32 : width),
  ]);
  const units = ([high, wide]: number[]) => sizeOf(batch) * Math.ceil(rows / high) * Math.ceil(columns / wide);
  const [rowBlock, columnBlock] = blocks.find((block) => units(block) >= wantedUnits) ?? blocks[blocks.length - 1];

  let cost = transposed ? 1.5 * rows * columns : 0;
  for (const { k, splat, splatMode, panel, panelMode } of segments) {
    cost += packingCost(panel, panelMode, copied.panel) * columns * k * Math.ceil(rows / rowBlock);
    cost += packingCost(splat, splatMode, copied.splat) * rows * k * Math.ceil(columns / columnBlock);
    // Lanes past the last column, and short tiles, multiply for nothing.
    cost += (roundUp(columns, 4 * (panelMode === "inPlace" ? 1 : vectors)) - columns) * rows * k / 8;
    if (tileRows < 4) cost += rows * columns * k / 32 * (4 - tileRows);
  }
  return {
    cost,
    plan: {
      by: "tiles",
      swapped,
      transposed,
      rows,
      columns,
      segments,
      tileRows,
      vectors,
      rowBlock,
      columnBlock,
      depthBlock: deepest,
    },
  };
}

/** Cycles that an element takes which is copied along the free axis: a tile of the splat side uses part of each cache line. */
const copied = { panel: 0.5, splat: 1.2 };

/** Cycles that packing an element of a side takes; `copied` where neighbours on the free axis are. */
function packingCost({ dtype, free, runs }: Side, mode: SideMode, copied: number): number {
  if (mode === "inPlace") return 0;
  if (isPacked(dtype)) return runs === null ? scatteredCost : 1.5;
  return mode === "transpose" ? 0.6 : free === 1 ? copied : 3;
}

/** Cycles a k that `rows` take in tiles of `tileRows` and one for the rest; fewer than four rows wait for their sums. */
function tileCycles(rows: number, tileRows: number): number {
  const cycles = [0, 4.2, 4.2, 4.2, 4.6, 5.3, 6.3];
  return Math.floor(rows / tileRows) * cycles[tileRows] + cycles[rows % tileRows];
}

/** A segment's sides in their roles. */
function planSegment(
  { k, a, b, rounded = false }: Segment,
  operands: readonly Operand[],
  swapped: boolean,
): Omit<SegmentPlan, "splatMode" | "panelMode"> {
  const left = side(a, operands, false, k), right = side(b, operands, true, k);
  return {
    k,
    short: k <= shortDepth,
    rounded,
    ...(swapped ? { splat: right, panel: left } : { splat: left, panel: right }),
  };
}

function segmentsInPlace({ segments, operands }: ContractKernel, swapped: boolean): SegmentPlan[] {
  return segments.map((s) => ({ ...planSegment(s, operands, swapped), splatMode: "inPlace", panelMode: "inPlace" }));
}

/** Whether the stores are contiguous along the splat side's axis m rather than along n (in the order m, n). */
function storesRunAlongRows(stores: readonly Store[], rank: number): boolean {
  const m = stores.filter(({ index }) => index.strides[rank] === 1 && index.strides[rank + 1] !== 1).length;
  return 2 * m > stores.length;
}

function side(
  { operand, index }: { operand: number; index: Index },
  operands: readonly Operand[],
  kFirst: boolean,
  depth: number,
): Side {
  const [first, second] = index.strides.slice(-2);
  const [free, k] = kFirst ? [second, first] : [first, second];
  const { dtype } = operands[operand];
  const outer = [index.offset, ...index.strides.slice(0, -2)];
  const whole = (others: readonly number[]) =>
    isPacked(dtype) && !index.dynamic?.length && others.every((x) => x >= 0 && x % 32 === 0);
  const runs = k === 1 && whole([...outer, free, depth]) ? "k" : free === 1 && whole([...outer, k]) ? "free" : null;
  return { operand, index, dtype, free, k, kFirst, runs };
}

function isStatic(side: Side): boolean {
  return !side.index.dynamic?.length;
}

function splatMode(side: Side, rows: number, columns: number): SideMode {
  const near = side.free >= 0 && side.k >= 0 && side.free + side.k < 2 ** 24;
  const meetsFew = rows <= fewRows || columns <= fewColumns;
  // A strided walk along k costs more than a packed one, but less than packing for a panel or two.
  const cheap = (meetsFew && side.k <= 1) || side.free === 0 || (side.free === 1 && columns <= 16);
  if (isStatic(side) && side.dtype === "f32" && near && cheap) return "inPlace";
  return transposes(side) ? "transpose" : "copy";
}

function panelMode(side: Side, rows: number, columns: number): SideMode {
  if (isPacked(side.dtype)) return side.runs === "k" ? "transpose" : "copy";
  const near = isStatic(side) && side.free === 1 && columns % 4 === 0 && side.k >= 0 && side.k < 2 ** 26;
  if (rows <= fewRows && near) return "inPlace";
  return transposes(side) ? "transpose" : "copy";
}

/** Whether vectors along k can be read where the side lies. */
function transposes(side: Side): boolean {
  return isStatic(side) && !isPacked(side.dtype) && side.k === 1 && side.free !== 1 && side.free > 0 &&
    side.free < 2 ** 24;
}

/** Columns of a unit, at most: sums of 4 KB. Fewer where that leaves too few units. */
const gemvColumns = 1024, wantedGemvUnits = 4;
/** Longer sums are made in blocks, as the tiles do. */
const deepestGemv = 4096;

/** The plan of a single row over a matrix whose columns are contiguous; null for others. */
export function planGemv(kernel: ContractKernel): GemmPlan | null {
  const { m, n, batch, stores, segments: given } = kernel;
  if (m !== 1 || n < 64 || n % 4 !== 0 || given[0].k > deepestGemv) return null;
  const segments = segmentsInPlace(kernel, false);
  const fits = segments.every(({ splat, panel }) =>
    [splat, panel].every((s) => !s.index.dynamic?.length && s.k >= 0 && s.k < 2 ** 26) && splat.dtype === "f32" &&
    panel.free === 1 && ["f32", "f16", "bf16"].includes(panel.dtype)
  );
  if (!fits || (storesRunAlongRows(stores, batch.length) && n > 1 && stores[0].index.strides[batch.length + 1] !== 1)) {
    return null;
  }
  const columnBlock = Math.min(gemvColumns, roundUp(Math.ceil(n / wantedGemvUnits), 16));
  return gemvPlan("gemv", kernel, segments, columnBlock);
}

/**
 * Rows and columns of a unit, at most: the largest that leave enough units to share out. Long rows are read and written by
 * the epilogue as memory likes it; more rows than these gain nothing.
 */
const blasTiles = [[128, 1024], [128, 512], [128, 256], [128, 128], [128, 96]] as const;
/** The same for a few columns, as a low-rank factor has them: small products, which libraries take without packing. */
const narrowTiles = [[128, 32], [64, 32], [32, 32]] as const;
/** The same where a side has to be unpacked, which more rows use. */
const stagedTiles = [[256, 512], [256, 256], [256, 128], [256, 96]] as const;
const wantedBlasUnits = 6;
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
  const segments = segmentsInPlace(kernel, swapped);
  const fits = segments.every(({ k, splat, panel }) => form(splat, rows, k) && form(panel, columns, k));
  if (!fits) return null;
  const [{ k }] = segments;
  const staged = segments.some(({ splat, panel }) => !isWide(splat) || !isWide(panel));
  if (staged && from > 0 && Math.min(m, n) < stagedRows) return null;
  const blocks = (staged ? stagedTiles : columns <= 32 ? narrowTiles : blasTiles)
    .map(([high, wide]) => [evenBlock(rows, high), evenBlock(columns, wide)])
    // Packed weights are read in whole runs of 32.
    .map(([high, wide]) => staged ? [roundUp(high, 32), roundUp(wide, 32)] : [high, roundUp(wide, 4)]);
  const units = ([high, wide]: number[]) => sizeOf(batch) * Math.ceil(rows / high) * Math.ceil(columns / wide);
  const [rowBlock, columnBlock] = blocks.find((block) => units(block) >= wantedBlasUnits) ?? blocks[blocks.length - 1];
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

/** Whether a BLAS can read a side where it lies. */
export function isWide({ dtype }: Side): boolean {
  return dtype === "f32";
}

/** How a side lies in memory as a row-major matrix: its row length, and whether its rows run along k. Null if it does not. */
export function form(side: Side, size: number, k: number): { length: number; byK: boolean } | null {
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

/** Whether the product itself can be what is stored: nothing else is done with it. */
export function storesPlainly({ stores, batch, operands }: ContractKernel, plan: GemmPlan): boolean {
  const [store] = stores, rank = batch.length;
  const [row, column] = plan.swapped ? [rank + 1, rank] : [rank, rank + 1];
  const plain = stores.length === 1 && store.value.kind === "result" && operands[store.operand].dtype === "f32" &&
    !store.index.dynamic?.length;
  return plain && store.index.strides[column] === 1 && store.index.strides[row] >= plan.columns;
}

export function roundUp(x: number, step: number): number {
  return Math.ceil(x / step) * step;
}

/** The least equal blocks, multiples of `step`, of at most `most`. */
export function evenBlock(size: number, most: number, step = 4): number {
  return size <= most ? size : roundUp(Math.ceil(size / Math.ceil(size / most)), step);
}
