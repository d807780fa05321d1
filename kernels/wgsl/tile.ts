import type { AttentionKernel } from "../ir/kernel.ts";

/**
 * How kernels are tiled: a plain value, so that every choice can be tested against every other. Nothing
 * of what a kernel computes depends on it but the order of its sums.
 */
export interface TileConfig {
  /** Printed in the jit key. */
  readonly name: string;
  /** Invocations of a workgroup where one invocation does one point of a map. */
  readonly mapLanes: number;
  /**
   * Lanes that share one row of a row kernel, a power of two, or more where their registers then hold it; 1 gives a row to
   * each invocation.
   */
  readonly rowLanes: number;
  /**
   * Lanes of the adapter's subgroups, which then join the lanes of a row or of a product's slices, and share the rows of a
   * product that is not staged; 0 leaves that to workgroup memory alone.
   */
  readonly subgroups: number;
  /** Invocations of a contract's workgroup, along the columns and along the rows. */
  readonly workgroup: readonly [columns: number, rows: number];
  /**
   * 4 x 4 blocks of the product that one invocation keeps in registers, along the columns and along the rows; of a single
   * row as many blocks of four columns.
   */
  readonly blocks: readonly [columns: number, rows: number];
  /** K elements staged in workgroup memory at a time, a multiple of 4; 0 reads the operands where they are. */
  readonly depth: number;
  /** Most lanes that share the K of a block where a product is too thin or small for tiles, a power of two. */
  readonly splitK: number;
  /** Lanes of attention's workgroup, of which each has a 4 x 4 block of scores: along the columns and along the rows. */
  readonly attention: readonly [columns: number, rows: number];
  /** Bytes that one binding may have; larger operands take several. A device puts its own limit here where it is less. */
  readonly window: number;
}

/** No device binds more at once. */
const maxWindow = 2 ** 32;

/** For a real GPU: 64 x 64 x 16 tiles in workgroup memory, 8 x 8 in registers. Usual practice, not measured here. */
export const gpuTile: TileConfig = {
  name: "gpu",
  mapLanes: 64,
  rowLanes: 64,
  subgroups: 0,
  workgroup: [8, 8],
  blocks: [2, 2],
  depth: 16,
  splitK: 16,
  attention: [8, 8],
  window: maxWindow,
};

/** For a software adapter, where barriers cost and workgroup memory brings nothing. */
export const softwareTile: TileConfig = {
  name: "software",
  mapLanes: 64,
  rowLanes: 1,
  subgroups: 0,
  workgroup: [8, 1],
  blocks: [2, 4],
  depth: 0,
  splitK: 1,
  attention: [8, 1],
  window: maxWindow,
};

/** Lanes of a subgroup from which on passing rows on is faster than reading them again, for a software adapter. */
const worthSharing = 8;

/**
 * The tile of an adapter that is not tuned, whose subgroups have `lanes` lanes, 0 for none. A software adapter's lanes are
 * a vector, through which a value is passed on in an instant: products take two thirds of the time with 8 lanes.
 */
export function defaultTile(software: boolean, lanes: number): TileConfig {
  if (!software) return gpuTile;
  return { ...softwareTile, subgroups: lanes >= worthSharing ? lanes : 0 };
}

/** Workgroups that a grid may have along one axis on every WebGPU device; longer grids fold into a second axis. */
export const maxGroups = 65_535;

/** Rounds of loops that one invocation may run: a software adapter ends every loop after 65,535 of them, taken together. */
export const maxRounds = 2 ** 15;

/** Multiplications below which a software adapter takes longer to compile a large tile than a small one takes to run. */
const smallProduct = 2 ** 20;

/** Workgroup memory that every WebGPU device has, and that a block of 4 x 4 takes. */
const workgroupBytes = 16_384;
const blockBytes = 64;

/**
 * The tile for a product of `m` x `k` x `n`: a small product gives its lanes along one axis to the other, so that few
 * blocks lie outside, and on a software adapter has one block an invocation, which compiles in a fourth of the time.
 */
export function fitTile(tile: TileConfig, m: number, k: number, n: number): TileConfig {
  const lanes = tile.workgroup[0] * tile.workgroup[1];
  const needed = { m: Math.ceil(m / 4), n: Math.ceil(n / 4) };
  const small = tile.depth === 0 && m * k * n < smallProduct;
  const across = small ? 1 : Math.min(tile.blocks[0], needed.n);
  const down = small ? 1 : Math.min(tile.blocks[1], needed.m);
  let [columns, rows] = tile.workgroup;
  while (columns > 1 && (columns / 2) * across >= needed.n) columns /= 2;
  while (rows > 1 && (rows / 2) * down >= needed.m) rows /= 2;
  if (columns < tile.workgroup[0]) { while (columns * rows < lanes && rows * down < needed.m) rows *= 2; }
  if (rows < tile.workgroup[1]) { while (columns * rows < lanes && columns * across < needed.n) columns *= 2; }
  let depth = tile.depth;
  while (depth > 4 && (columns * across + rows * down) * (depth / 4) * blockBytes > workgroupBytes) depth /= 2;
  return { ...tile, workgroup: [columns, rows], blocks: [across, down], depth };
}

/**
 * Attention's lanes for a kernel: no more rows of them than there are tokens to own, and so many columns that no lane runs
 * more rounds than every adapter allows.
 */
export function fitAttention(
  { attention }: TileConfig,
  { pass, heads, kvHeads, queries, keys, width }: AttentionKernel,
): readonly [columns: number, rows: number] {
  const [owned, walked, times] = pass === "backward-kv" ? [keys, queries, heads / kvHeads] : [queries, keys, 1];
  let [columns, rows] = attention;
  while (rows > 1 && (rows / 2) * 4 >= owned) rows /= 2;
  const rounds = () => times * Math.ceil(walked / (columns * 4)) * (1 + 2 * Math.ceil(width / 4) + 2 * columns);
  while (rounds() > maxRounds && columns < 64) columns *= 2;
  return [columns, rows];
}
