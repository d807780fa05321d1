/** Kernel to WebAssembly module: one emitter per kind. */
import type { Kernel } from "../ir/kernel.ts";
import { emitAttention } from "./attention/attention.ts";
import { emitContract } from "./gemm/contract.ts";
import type { EmitOptions, EmittedKernel } from "./frame.ts";
import { emitMap } from "./map.ts";
import { emitRow } from "./row.ts";
import { emitScatter } from "./scatter.ts";

/** The module of a kernel. The same kernel and options give the same bytes. */
export function emitKernel(kernel: Kernel, options: EmitOptions): EmittedKernel {
  switch (kernel.kind) {
    case "map":
      return emitMap(kernel, options);
    case "row":
      return emitRow(kernel, options);
    case "contract":
      return emitContract(kernel, options);
    case "scatter":
      return emitScatter(kernel, options);
    case "attention":
      return emitAttention(kernel, options);
  }
}
