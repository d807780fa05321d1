/** Which tile cuts which kernel: by the shape class, so that what was measured on one product serves its like. */
import type { ContractKernel, Kernel } from "../ir/kernel.ts";
import { blockAccess } from "./block.ts";
import type { TileConfig } from "./tile.ts";

/** Kernels that like the same tile: `contract NT large`, `row long`. */
export type ShapeClass = string;

/** A tile for every kernel. */
export interface TileTable {
  readonly default: TileConfig;
  readonly classes: Readonly<Record<ShapeClass, TileConfig>>;
}

/** Elements of a product up to which it is small, and up to which it is of middle size. */
const [smallProduct, middleProduct] = [2 ** 16, 2 ** 20];
/** A side that makes a product thin. */
const thinSide = 32;
/** Columns from which on a row is long. */
const longRow = 1024;

/** The class of a kernel. */
export function shapeClass(kernel: Kernel): ShapeClass {
  switch (kernel.kind) {
    case "contract":
      return `contract ${formOf(kernel)} ${sizeOf(kernel)}`;
    case "row":
      return `row ${kernel.cols < longRow ? "short" : "long"}`;
    case "attention":
      return `attention ${kernel.pass}`;
    case "map":
    case "scatter":
      return kernel.kind;
  }
}

/** The tile that a table has for a kernel. */
export function tileOf(table: TileTable, kernel: Kernel): TileConfig {
  return table.classes[shapeClass(kernel)] ?? table.default;
}

/** The same table with no binding larger than `most` bytes. */
export function withinWindow(table: TileTable, most: number): TileTable {
  const fit = (tile: TileConfig) => ({ ...tile, window: Math.min(tile.window, most) });
  const classes = Object.entries(table.classes).map(([name, tile]) => [name, fit(tile)] as const);
  return { default: fit(table.default), classes: Object.fromEntries(classes) };
}

/** `NT`: whether a lies along k and b along n (N), or across (T). */
function formOf({ batch, m, n, segments: [{ k, a, b }] }: ContractKernel): string {
  const letter = (across: boolean) => across ? "T" : "N";
  const [first, second] = [blockAccess(a.index, batch.length, m, k), blockAccess(b.index, batch.length, k, n)];
  return letter(first === "across") + letter(second === "across");
}

function sizeOf({ batch, m, n }: ContractKernel): string {
  if (m === 1) return "row";
  if (Math.min(m, n) <= thinSide) return "thin";
  const elements = batch.reduce((product, size) => product * size, m * n);
  return elements <= smallProduct ? "small" : elements <= middleProduct ? "middle" : "large";
}
