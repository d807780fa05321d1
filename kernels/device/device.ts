/** What a back end offers: buffers and programs. Nothing above this line knows WebAssembly from WebGPU. */
import type { DType, HostArray } from "../../core/dtype.ts";
import type { Jit } from "../../core/runtime.ts";
import type { Kernel, Program } from "../ir/kernel.ts";
import type { Costs } from "../plan/costs.ts";
import type { DeviceBuffer, Executable } from "./executable.ts";
import type { ProgramCache } from "./program_cache.ts";

/** A kernel as a device's source text. */
export interface KernelText {
  /** How it is tiled into invocations, in words. */
  readonly tiling: string;
  /** The text, cut before each function: kernels of one program share many of these. */
  readonly parts: readonly string[];
}

/** One place where programs run. */
export interface Device extends Disposable {
  /** One line for a person: `cpu (wasm simd, 2 threads)`. */
  readonly description: string;
  /** What else is to be said of it: where its tiles come from. */
  readonly remark?: string;
  /** @ignore What jitted functions have compiled here. */
  readonly programs: ProgramCache;
  /** @ignore What compiles functions for rooms that may not know the kernels. */
  readonly jit: Jit;
  /** @ignore About the bytes that the kernels of all programs take. */
  readonly kernelBytes: number;
  /** The most bytes that all buffers together may take, where that is known beforehand. */
  readonly capacity?: number;
  /** Buffers that one kernel may bind, where that is more than WebGPU guarantees. */
  readonly maxOperands?: number;
  /** The most rows that products with packed weights round to bytes and multiply as integers; none if not given. */
  readonly roundedRows?: number;
  /** Whether a run is only queued, so that one wait costs as much as several calls. */
  readonly queues?: boolean;
  /** Whether a program for one more shape takes little memory. */
  readonly cheapShapes?: boolean;
  /** @ignore What operations cost, which decides what is rematerialised; those of a processor if not given. */
  readonly costs?: Costs;
  /** Uninitialised memory of at least `bytes`. */
  allocate(bytes: number): DeviceBuffer;
  /** Gives a buffer's memory back. */
  free(buffer: DeviceBuffer): void;
  /** Copies host data into the start of a buffer. */
  write(buffer: DeviceBuffer, data: HostArray): void;
  /** Copies buffers to the host once everything queued has run: one wait for the whole list. */
  read(requests: readonly { buffer: DeviceBuffer; dtype: DType; size: number }[]): Promise<HostArray[]>;
  /** @ignore A kernel as this device runs it, where that is text. */
  readonly textOf?: (kernel: Kernel) => KernelText;
  /** @ignore Generates and compiles a program, at once. Kernels are shared between programs by their printed structure. */
  compile(program: Program): Executable;
  /** Bytes now held by buffers and arenas, and the most that ever were. */
  readonly memory: { readonly current: number; readonly peak: number };
}
