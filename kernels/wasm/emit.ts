/** Kernel to WebAssembly module: one emitter per kind. */
import type { Kernel, KernelKind, KernelOf } from "../ir/kernel.ts";
import { emitAttention } from "./attention/attention.ts";
import { emitContract } from "./gemm/contract.ts";
import { type EmitOptions, type EmittedKernel, KernelFrame } from "./frame.ts";
import { emitMap } from "./map.ts";
import { emitRow } from "./row.ts";
import { emitScatter } from "./scatter.ts";
import { type Schedule, schedule } from "./schedule.ts";

/** The module of a kernel. The same kernel and options give the same bytes. */
export function emitKernel(kernel: Kernel, options: EmitOptions): EmittedKernel {
  return emit(kernel, schedule(kernel, options), options);
}

const emitters: { readonly [K in KernelKind]: (frame: KernelFrame<K>) => EmittedKernel } = {
  map: emitMap,
  row: emitRow,
  contract: emitContract,
  scatter: emitScatter,
  attention: emitAttention,
};

/** The module of a kernel by a schedule of it. */
export function emit<K extends KernelKind>(
  kernel: KernelOf<K>,
  schedule: Schedule<K>,
  options: EmitOptions,
): EmittedKernel {
  return emitters[kernel.kind as K](new KernelFrame(kernel, schedule, options));
}
