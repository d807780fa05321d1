/**
 * How a product is computed: which side is splatted and which is read as panels of lanes, what is packed, and the
 * blocks. Decided from the kernel alone, so that results depend on neither machine nor thread count.
 *
 * One side, the splat side, gives single elements that are repeated in every lane, mostly where they lie. The other gives
 * vectors of neighbouring output columns; unless these are contiguous and used few times, they are packed first into
 * panels of `[k][width]` in the thread's scratch, widened to f32 on the way. The sides may be swapped: the tile is then
 * transposed, and a row-major weight whose contracted axis is contiguous is never packed.
 */
import type { DType } from "../../core/dtype.ts";
import { sizeOf } from "../../core/aval.ts";
import { isPacked } from "../../core/packed.ts";
import type { ContractKernel, Index, Operand, Segment, Store } from "../kernel.ts";

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

/** `inPlace`; packed as [row][k] where k is contiguous (`byRow`), or as [k][row] (`byDepth`). */
export type SplatMode = "inPlace" | "byRow" | "byDepth";
/** `inPlace`; packed by vectors along the columns (`copy`); or by transposing 4x4 blocks where k is contiguous. */
export type PanelMode = "inPlace" | "copy" | "transpose";

export interface SegmentPlan {
  readonly k: number;
  readonly splat: Side;
  readonly splatMode: SplatMode;
  readonly panel: Side;
  readonly panelMode: PanelMode;
}

export interface GemmPlan {
  /**
   * What multiplies: `tiles` of registers; `dots`, which sum along k in their lanes, for few rows over a right side whose k
   * is contiguous; `sweep`, for a single row over one whose columns are; or the imported `blas`.
   */
  readonly by: "tiles" | "dots" | "sweep" | "blas";
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
  /** Rows and columns of a unit of work, and rows that are finished before their stores run. */
  readonly rowBlock: number;
  readonly columnBlock: number;
  readonly group: number;
  /** Depth of k that is packed at once, and of one pass of the tiles over it. */
  readonly depthBlock: number;
  readonly pass: number;
}

/** Depth of one pass over a panel of 8 columns: 24 KB, most of a first-level cache. */
const deepestPass = 768;
/** Depth up to which a block's panels are packed whole, so that its sums are finished row by row. */
const deepestWhole = 4096;
/** Bytes of packed panels that should stay in a second-level cache. */
const panelBytes = 512 * 1024;
/** Rows of sums that wait between blocks of k: with 128 columns, 256 KB. */
const mostBlockedRows = 512;
/** Units that keep several threads evenly busy. */
const wantedUnits = 24;

export function planGemm(kernel: ContractKernel): GemmPlan {
  const dots = planDots(kernel);
  if (dots) return dots;
  const plain = planSides(kernel, false), swapped = planSides(kernel, true);
  return swapped.cost < plain.cost ? swapped.plan : plain.plan;
}

/** Rows (m) up to which dot products over contiguous k beat tiles with padded lanes. */
const mostDotRows = 4;

/** The plan for few rows where both sides are contiguous along k: every element of the right side is read once, in place. */
function planDots(kernel: ContractKernel): GemmPlan | null {
  const { m, n, batch, operands, stores } = kernel;
  if (m > mostDotRows || n < 4) return null;
  const segments = kernel.segments.map((segment): SegmentPlan => {
    return { ...planSegment(segment, operands, false), splatMode: "inPlace", panelMode: "inPlace" };
  });
  const near = ({ free }: Side) => free >= 0 && free < 2 ** 26;
  const fits =
    segments.every(({ splat, panel }) =>
      [splat, panel].every((s) => isStatic(s) && s.k === 1 && near(s)) && splat.dtype === "f32"
    ) && segments.every(({ panel }, i) => !isPacked(panel.dtype) || (i === 0 && panel.runs === "k"));
  if (!fits || storesRunAlongRows(stores, batch.length)) return null;
  return {
    by: "dots",
    swapped: false,
    transposed: false,
    rows: m,
    columns: n,
    segments,
    tileRows: m,
    vectors: 1,
    rowBlock: m,
    // Short products in twice as many units, so that threads end together.
    columnBlock: Math.min(n < 4096 ? 32 : 64, roundUp(n, 4)),
    group: m,
    depthBlock: segments[0].k,
    pass: segments[0].k,
  };
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
  // Few rows leave registers for wider panels, and panels used once or twice are not worth packing.
  const few = rows <= 12;
  const narrow = tileRows === 1 ? 8 : tileRows === 2 ? 4 : 2;
  const vectors = Math.min(narrow, Math.ceil(columns / 8) * 2);
  const segments = kernel.segments.map((segment): SegmentPlan => {
    const sides = planSegment(segment, operands, swapped);
    return {
      ...sides,
      splatMode: splatMode(sides.splat, columns),
      panelMode: panelMode(sides.panel, few, columns),
    };
  });
  // Whole runs of packed sides.
  const pass = evenBlock(segments[0].k, deepestPass, segments.some((s) => s.panel.runs !== null) ? 32 : 4);
  const depthBlock = segments[0].k <= deepestWhole ? segments[0].k : pass;
  const depth = segments.reduce((sum, { k }, i) => sum + (i === 0 ? depthBlock : k), 0);
  const width = 4 * vectors;
  const splatPacked = segments.some((s) => s.splatMode !== "inPlace" && s.k > 64);
  const panelPacked = segments.some((s) => s.panelMode !== "inPlace");
  const most = Math.max(1, Math.floor(panelBytes / (4 * width * Math.max(1, depth))));
  // A tile of the splat side that has to be packed, or comes from afar, should meet more panels.
  const wide = splatPacked || depthBlock < segments[0].k ? 128 : 64;
  const panels = Math.min(most, Math.max(1, Math.floor(wide / width)));
  // Packed rows are unpacked in runs of 32 columns.
  const inRuns = segments.some((s) => s.panel.runs === "free") && 32 % width === 0;
  const least = inRuns ? 32 / width : 1;
  const columnBlock = width * Math.min(Math.ceil(columns / width), Math.max(least, panels - panels % least));
  const columnBlocks = Math.ceil(columns / columnBlock);
  // Every block of rows packs its panels again: that pays for many rows, or where the panels are few.
  const leastRows = !panelPacked ? 24 : columns <= 16 ? 32 : 96;
  const blocked = depthBlock < segments[0].k;
  const rowBlocks = Math.max(
    blocked ? Math.ceil(rows / mostBlockedRows) : 1,
    Math.min(Math.ceil(wantedUnits / (columnBlocks * sizeOf(batch))), Math.floor(rows / leastRows)),
  );
  const rowBlock = roundUp(Math.ceil(rows / rowBlocks), tileRows);
  // Sums that wait for the next block of k wait all together.
  const group = blocked ? rowBlock : Math.min(rowBlock, tileRows * Math.max(1, Math.floor(48 / tileRows)));

  let cost = transposed ? 1.5 * rows * columns : 0;
  for (const s of segments) {
    const packs = s.panelMode === "inPlace"
      ? 0
      : isPacked(s.panel.dtype)
      ? s.panel.runs === null ? scatteredCost : 1.5
      : s.panelMode === "copy" && s.panel.free === 1
      ? 0.7
      : s.panelMode === "transpose"
      ? 0.9
      : 3;
    cost += packs * columns * s.k * Math.ceil(rows / rowBlock);
    const splats = s.splatMode === "inPlace"
      ? 0
      : isPacked(s.splat.dtype)
      ? scatteredCost
      : s.splat.free === 1 || s.splat.k === 1
      ? 0.7
      : 3;
    cost += splats * rows * s.k * columnBlocks;
    // Lanes past the last column, and short tiles, multiply for nothing.
    cost += (roundUp(columns, 4 * (s.panelMode === "inPlace" ? 1 : vectors)) - columns) * rows * s.k / 8;
    if (tileRows < 4) cost += rows * columns * s.k / 32 * (4 - tileRows);
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
      group,
      depthBlock,
      pass,
    },
  };
}

/** Cycles a k that `rows` take in tiles of `tileRows` and one for the rest; fewer than four rows wait for their sums. */
function tileCycles(rows: number, tileRows: number): number {
  const cycles = [0, 4.2, 4.2, 4.2, 5.2, 6.2, 7.2];
  return Math.floor(rows / tileRows) * cycles[tileRows] + cycles[rows % tileRows];
}

/** A segment's sides in their roles. */
export function planSegment(
  { k, a, b }: Segment,
  operands: readonly Operand[],
  swapped: boolean,
): Pick<SegmentPlan, "k" | "splat" | "panel"> {
  const left = side(a, operands, false, k), right = side(b, operands, true, k);
  return swapped ? { k, splat: right, panel: left } : { k, splat: left, panel: right };
}

/** Whether the stores are contiguous along the splat side's axis m rather than along n (in the order m, n). */
export function storesRunAlongRows(stores: readonly Store[], rank: number): boolean {
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

function splatMode(side: Side, columns: number): SplatMode {
  const near = side.free >= 0 && side.k >= 0 && side.free + side.k < 2 ** 24;
  // A strided walk along k costs more than a packed one, but less than packing for a panel or two.
  const cheap = side.k <= 1 || side.free === 0 || (side.free === 1 && columns <= 16);
  if (isStatic(side) && side.dtype === "f32" && near && cheap) return "inPlace";
  return side.free === 1 ? "byDepth" : "byRow";
}

function panelMode(side: Side, few: boolean, columns: number): PanelMode {
  if (!isStatic(side)) return "copy";
  if (isPacked(side.dtype)) return side.runs === "k" ? "transpose" : "copy";
  if (few && side.free === 1 && columns % 4 === 0 && side.k >= 0 && side.k < 2 ** 26) return "inPlace";
  const near = side.free > 0 && side.free < 2 ** 26;
  return side.k === 1 && side.free !== 1 && near ? "transpose" : "copy";
}

export function roundUp(x: number, step: number): number {
  return Math.ceil(x / step) * step;
}

/** The least equal blocks, multiples of `step`, of at most `most`. */
export function evenBlock(size: number, most: number, step = 4): number {
  return size <= most ? size : roundUp(Math.ceil(size / Math.ceil(size / most)), step);
}
