/**
 * Which tile an adapter likes: a few candidates for each class of kernels are timed on the adapter itself, on one kernel
 * that stands for its class, and the fastest is kept. A software adapter is not tuned unless asked: what it likes says
 * nothing of GPUs, and its own default is known.
 */
import type { Program } from "../ir/kernel.ts";
import { representatives } from "./kernels.ts";
import { softwareTile, type TileConfig } from "../wgsl/tile.ts";
import type { TileTable } from "../wgsl/tile_table.ts";

/** What tuning asks of a device. */
export interface Tuneable {
  /** The least milliseconds of some runs of a program's one kernel, tiled by it; infinite where it does not run. */
  time(program: Program, tile: TileConfig): Promise<number>;
}

/** Variations of a table's default that products are tried with: workgroup memory or none, and more or less a lane. */
const productTiles: readonly Partial<TileConfig>[] = [
  { workgroup: [8, 8], blocks: [2, 2], depth: 16 },
  { workgroup: [16, 16], blocks: [2, 2], depth: 16 },
  { workgroup: [16, 8], blocks: [2, 2], depth: 16 },
  { workgroup: [8, 8], blocks: [1, 1], depth: 16 },
  { workgroup: [8, 8], blocks: [2, 2], depth: 0 },
  { workgroup: [8, 1], blocks: [2, 4], depth: 0 },
];
const thinTiles: readonly Partial<TileConfig>[] = [1, 4, 16, 64].map((splitK) => ({ splitK }));
/** With subgroups: rows shared by their lanes and not by workgroup memory; slices joined by them. */
const subgroupProductTiles: readonly Partial<TileConfig>[] = [
  { workgroup: [8, 8], blocks: [2, 2], depth: 0 },
  { workgroup: [32, 2], blocks: [1, 4], depth: 0 },
];
const subgroupThinTiles: readonly Partial<TileConfig>[] = [16, 64].map((splitK) => ({ splitK }));
const rowTiles: readonly Partial<TileConfig>[] = [1, 32, 64, 256].map((rowLanes) => ({ rowLanes }));
const attentionTiles: readonly Partial<TileConfig>[] = [[8, 8], [8, 4], [4, 8], [8, 1], [16, 4]].map(
  ([columns, rows]) => ({ attention: [columns, rows] as const }),
);

/**
 * The candidates of a class on an adapter whose subgroups have `lanes` lanes, 0 for none. The base comes first: another must
 * be faster to be taken.
 */
export function candidates(shapeClass: string, base: TileConfig, lanes = 0): TileConfig[] {
  const [kind, , size] = shapeClass.split(" ");
  const together = (tiles: readonly Partial<TileConfig>[]) =>
    lanes > 0 ? tiles.map((tile) => ({ ...tile, subgroups: lanes })) : [];
  const variations = kind === "row"
    ? [...rowTiles, ...together([lanes, 256].map((rowLanes) => ({ rowLanes })))]
    : kind === "attention"
    ? attentionTiles
    : size === "thin" || size === "row"
    ? [...thinTiles, { ...productTiles[0], splitK: softwareTile.splitK }, ...together(subgroupThinTiles)]
    : [...productTiles, ...together(subgroupProductTiles)];
  const made = variations.map((tile) => ({ ...base, subgroups: 0, ...tile }));
  const seen = new Set<string>();
  return [base, ...made].filter((tile) => {
    const key = JSON.stringify(tile);
    return !seen.has(key) && seen.add(key);
  }).map((tile, i) => i === 0 ? tile : { ...tile, name: `${base.name}, ${describeChoice(tile, base)}` });
}

/** `workgroup 16 x 16, depth 16`: in what a tile differs from another. */
function describeChoice(tile: TileConfig, base: TileConfig): string {
  const changed = (Object.keys(tile) as (keyof TileConfig)[]).filter((key) =>
    key !== "name" && JSON.stringify(tile[key]) !== JSON.stringify(base[key])
  );
  return changed.map((key) => `${key} ${[tile[key]].flat().join(" x ")}`).join(", ");
}

/** A candidate must take this much less time than the base to be taken: timings scatter. */
const clearlyFaster = 0.95;

/** Times every candidate of every class and gives the table of the winners. */
export async function tune(device: Tuneable, base: TileConfig, lanes = 0): Promise<TileTable> {
  const classes: Record<string, TileConfig> = {};
  for (const { shapeClass, program } of representatives()) {
    const [own, ...others] = candidates(shapeClass, base, lanes);
    const limit = clearlyFaster * await device.time(program, own);
    let best = { tile: own, ms: limit };
    for (const tile of others) {
      const ms = await device.time(program, tile);
      if (ms < best.ms) best = { tile, ms };
    }
    if (best.tile !== own) classes[shapeClass] = best.tile;
  }
  return { default: base, classes };
}
