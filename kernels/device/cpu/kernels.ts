/** The kernels of a CPU device: code in its memory, for all threads, as long as a program uses it. */
import type { Kernel } from "../../ir/kernel.ts";
import { emitKernel } from "../../wasm/emit.ts";
import type { EmitOptions } from "../../wasm/frame.ts";
import { kernelKey } from "../../wasm/kernel_key.ts";
import type { CpuMemory } from "./memory.ts";

/** A kernel's code, and how its work is shared out. */
export interface CpuKernel {
  /** Where threads keep its instance, and which of those that ever had this place it is. */
  readonly slot: number;
  readonly version: number;
  readonly address: number;
  readonly bytes: number;
  readonly units: number;
  readonly grain: number;
  readonly scratchBytes: number;
}

interface Counted extends CpuKernel {
  readonly key: string;
  users: number;
}

/** What the engine holds for a kernel and each byte of its module, beside the module: measured. */
const engineBytes = { kernel: 2 ** 16, byte: 16 };

/** Equal kernels of all programs are one, which leaves with the last of them. */
export class CpuKernels {
  readonly #kernels = new Map<string, Counted>();
  readonly #free: number[] = [];
  #slots = 0;
  #versions = 0;
  #held = 0;

  constructor(private readonly memory: CpuMemory, private readonly options: EmitOptions) {}

  /** About the bytes that all of them take. */
  get held(): number {
    return this.#held;
  }

  /** A kernel for one more program. */
  take(kernel: Kernel): CpuKernel {
    const key = kernelKey(kernel);
    let counted = this.#kernels.get(key);
    if (!counted) {
      const { bytes, units, grain, scratchBytes } = emitKernel(kernel, this.options);
      const address = this.memory.allocate(bytes.byteLength);
      new Uint8Array(this.memory.buffer, address, bytes.byteLength).set(bytes);
      const slot = this.#free.pop() ?? this.#slots++;
      const version = ++this.#versions | 0;
      counted = { key, slot, version, address, bytes: bytes.byteLength, units, grain, scratchBytes, users: 0 };
      this.#kernels.set(key, counted);
      this.#held += cost(counted);
    }
    counted.users++;
    return counted;
  }

  /** A program that used it is gone. */
  drop(kernel: CpuKernel): void {
    const counted = kernel as Counted;
    if (--counted.users > 0) return;
    this.#kernels.delete(counted.key);
    this.memory.free(counted.address, counted.bytes);
    this.#free.push(counted.slot);
    this.#held -= cost(counted);
  }
}

function cost({ bytes }: CpuKernel): number {
  return engineBytes.kernel + engineBytes.byte * bytes;
}
