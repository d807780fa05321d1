/** The schedule of a product: tiles of blocks of 4 x 4, or lanes that share its K. */
import { sizeOf } from "../../../core/aval.ts";
import { accessesOf, rootsOf, walk } from "../../ir/expr.ts";
import type { ContractKernel } from "../../ir/kernel.ts";
import { isWide } from "../access.ts";
import { blockAccess } from "../block.ts";
import type { Width } from "../scalar.ts";
import type { Dispatch } from "../shader.ts";
import { fitTile, maxRounds, type TileConfig } from "../tile.ts";

/** Each lane sums one of `splitK` slices of K for as many `blocks`; `alongK`, neighbouring lanes have neighbouring slices. */
export interface SplitKSchedule {
  readonly by: "splitK";
  readonly splitK: number;
  readonly blocks: number;
  readonly alongK: boolean;
}

/** How a K is walked. */
export interface KSchedule {
  /** How the operands reach the lanes: by workgroup memory, rows by the lanes that share them, or each from its place. */
  readonly reads: "staged" | "shared" | "inPlace";
  /** Elements of K in a step, and steps of a round; where one round is all of K there is no loop. */
  readonly step: number;
  readonly unroll: number;
  /** K of the parts that are summed by themselves, if there are several. */
  readonly part: number | null;
}

export interface TileSchedule extends Pick<TileConfig, "workgroup" | "blocks" | "depth"> {
  readonly by: "tiles";
  /** Lanes of a subgroup that multiply the same rows. */
  readonly sharers: number;
  readonly segments: readonly KSchedule[];
}

/** The schedule; the stores take `unit` columns at a time. */
export type ProductSchedule = (SplitKSchedule | TileSchedule) & { readonly unit: Width; readonly subgroups: number };

/** K from which on it is summed in parts: one running sum of many thousand terms loses digits; and that of the parts. */
const longDepth = 8192, partDepth = 1024;
/** A product with a side no longer than this has no use for tiles: little would be read twice. */
const thinSide = 32;
/** Blocks of 4 x 4 that do not fill a GPU with tiles; one slice of K each is enough from four times as many on. */
const fewBlocks = 2048;
/** The most lanes that a workgroup has on every device. */
const maxLanes = 256;
/** Lanes from which on it pays that each reads a part of the rows and passes it on. */
const minSharers = 4;
/** Steps up to which K is written out: a loop of its own costs a workgroup more than the steps of an adapter's rank. */
const fewSteps = 2;

export function scheduleProduct(
  kernel: ContractKernel,
  tile: TileConfig,
): ProductSchedule & Omit<Dispatch, "window" | "alias"> {
  const { batch, m, n, segments, stores } = kernel, rank = batch.length, unit = n % 4 === 0 ? 4 : 1;
  const narrow = new Set<number>();
  for (const { operand, index } of accessesOf(walk(rootsOf(stores)), stores)) {
    if (unit === 1 || !isWide(index, rank + 1)) narrow.add(operand);
  }
  for (const { k, a, b } of segments) {
    if (blockAccess(a.index, rank, m, k) === "element") narrow.add(a.operand);
    if (blockAccess(b.index, rank, k, n) === "element") narrow.add(b.operand);
  }
  const { subgroups } = tile, count = sizeOf(batch);
  const blocks = Math.ceil(m / 4) * Math.ceil(n / 4);
  // A single row, the r-wide side of an adapter, a small one.
  const thin = m === 1 || tile.splitK > 1 && (Math.min(m, n) <= thinSide || blocks * count <= fewBlocks);
  const made = thin ? scheduleSplitK(kernel, tile, count) : scheduleTiles(kernel, tile);
  return { ...made, workgroups: made.workgroups * count, unit, subgroups, narrow: [...narrow] };
}

function scheduleSplitK({ batch, m, n, segments: [{ k, a, b }] }: ContractKernel, tile: TileConfig, count: number) {
  const [high, wide] = [Math.ceil(m / 4), Math.ceil(n / 4)];
  const asked = tile.workgroup[0] * tile.workgroup[1];
  const blocks = m === 1 ? Math.min(tile.blocks[0], Math.ceil(wide / asked)) : 1;
  const splitK = splitKOf(k, tile, high * Math.ceil(wide / blocks) * count), workgroupSize = Math.max(asked, splitK);
  const alongK = m >= n
    ? blockAccess(a.index, batch.length, m, k) === "along"
    : blockAccess(b.index, batch.length, k, n) === "across";
  const workgroups = Math.ceil(high * wide / (workgroupSize / splitK * blocks));
  return { by: "splitK", splitK, blocks, alongK, workgroups, workgroupSize } as const;
}

/** The number of lanes that share the K of what one of `parts` lanes sums: as many as a GPU wants, and as a long sum needs. */
function splitKOf(k: number, { splitK }: TileConfig, parts: number): number {
  const wanted = Math.min(splitK, (fewBlocks * 4) / parts, k / 4);
  const least = Math.min(maxLanes, 2 ** Math.ceil(Math.log2(Math.max(1, k / longDepth))));
  return Math.max(least, 2 ** Math.max(0, Math.floor(Math.log2(wanted))));
}

function scheduleTiles({ m, n, segments: given }: ContractKernel, tile: TileConfig) {
  const { workgroup, blocks, depth } = fitTile(tile, m, given[0].k, n);
  const sharers = Math.min(workgroup[0], tile.subgroups);
  const segments = given.map(({ k }): KSchedule => {
    // An adapter's rank that does not fill its steps is not worth their zeros.
    const shares = sharers >= minSharers && (k % (4 * sharers) === 0 || k > fewSteps * 4 * sharers);
    const reads = depth > 0 ? "staged" : shares ? "shared" : "inPlace";
    const step = depth > 0 ? depth : shares ? 4 * sharers : 4;
    // No invocation may run more rounds than every adapter allows.
    const unroll = Math.ceil(k / step / (k <= fewSteps * step ? 1 : maxRounds)), round = step * unroll;
    return { reads, step, unroll, part: k > longDepth ? Math.ceil(partDepth / round) * round : null };
  });
  const [columns, rows] = workgroup;
  const workgroups = Math.ceil(m / (rows * blocks[1] * 4)) * Math.ceil(n / (columns * blocks[0] * 4));
  return {
    by: "tiles",
    workgroup,
    blocks,
    depth,
    sharers,
    segments,
    workgroups,
    workgroupSize: columns * rows,
  } as const;
}
