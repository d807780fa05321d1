/** A kernel as WGSL text: pure, needs no device. */
import type { KernelText } from "../device/device.ts";
import type { Kernel, KernelKind, KernelOf } from "../ir/kernel.ts";
import { emitAttention } from "./attention/attention.ts";
import { emitContract } from "./product/contract.ts";
import { emitMap } from "./map.ts";
import { emitRow } from "./row/row.ts";
import { emitScatter } from "./scatter.ts";
import { type Schedule, schedule } from "./schedule.ts";
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
  return emit(kernel, schedule(kernel, { tile, alias }));
}

const emitters: { readonly [K in KernelKind]: (kernel: KernelOf<K>, schedule: Schedule<K>) => WgslShader } = {
  map: emitMap,
  row: emitRow,
  contract: emitContract,
  scatter: emitScatter,
  attention: emitAttention,
};

/** The shader of a kernel by a schedule of it. */
export function emit<K extends KernelKind>(kernel: KernelOf<K>, schedule: Schedule<K>): WgslShader {
  return emitters[kernel.kind as K](kernel, schedule);
}

/** The same for a person to read. */
export function textOf(kernel: Kernel, tile: TileConfig): KernelText {
  const { tiling, parts } = emitWgsl(kernel, tile);
  return { tiling: `${tile.name}: ${tiling}`, parts };
}
