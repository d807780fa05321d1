/** A kernel as WGSL text: pure, needs no device. */
import type { KernelText } from "../device/device.ts";
import type { Kernel } from "../ir/kernel.ts";
import { emitAttention } from "./attention/attention.ts";
import { emitContract } from "./product/contract.ts";
import { emitMap } from "./map.ts";
import { emitRow } from "./row/row.ts";
import { emitScatter } from "./scatter.ts";
import type { WgslShader } from "./shader.ts";
import type { TileConfig } from "./tile.ts";

/**
 * The shader of a kernel. `alias[i]` is the first operand that shares operand i's buffer (i itself where none does):
 * such operands become one binding.
 */
export function emitWgsl(
  kernel: Kernel,
  tile: TileConfig,
  alias: readonly number[] = kernel.operands.map((_, i) => i),
): WgslShader {
  switch (kernel.kind) {
    case "map":
      return emitMap(kernel, tile, alias);
    case "row":
      return emitRow(kernel, tile, alias);
    case "contract":
      return emitContract(kernel, tile, alias);
    case "scatter":
      return emitScatter(kernel, tile, alias);
    case "attention":
      return emitAttention(kernel, tile, alias);
  }
}

/** The same for a person to read. */
export function textOf(kernel: Kernel, tile: TileConfig): KernelText {
  const { tiling, parts } = emitWgsl(kernel, tile);
  return { tiling: `${tile.name}: ${tiling}`, parts };
}
