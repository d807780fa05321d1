/** The CPU device: kernels as WebAssembly SIMD over one memory, on the main thread and its workers. */
import { type DType, type HostArray, hostArray, storageBytes } from "../../../core/dtype.ts";
import { DeviceError, OptionError } from "../../../core/errors.ts";
import { countOf } from "../../../core/host/format.ts";
import type { BufferRef, Program } from "../../ir/kernel.ts";
import { cpuCosts } from "../../wasm/scalar.ts";
import { supportsRelaxedSimd } from "../../wasm/probe.ts";
import { blasCrossover } from "../../wasm/gemm/blas.ts";
import { maxGemvRows } from "../../wasm/gemm/plan.ts";
import { Arena } from "../arena.ts";
import { type BlasLibrary, findBlas } from "./blas.ts";
import { type CpuKernel, CpuKernels } from "./kernels.ts";
import { CpuMemory } from "./memory.ts";
import { CpuThreads } from "./threads.ts";
import { reservedBytes, stepWords, words } from "./walk.ts";
import { jit } from "../../runtime/jit.ts";
import type { Device } from "../device.ts";
import { type DeviceBuffer, type Executable, RunError } from "../executable.ts";
import { Reclaimer } from "../reclaimer.ts";
import { machineMemory } from "../machine_memory.ts";
import { ProgramCache } from "../program_cache.ts";

/** How the CPU device is opened. */
export interface CpuOptions {
  /** Threads that compute, the main one included. The processors that the system reports, at most 16, if not given. */
  readonly threads?: number;
  /** Whether to use relaxed SIMD's fused multiply-add; if not given, where the engine has it. */
  readonly relaxed?: boolean;
  /**
   * Whether large products go to the system's BLAS; if not given, where --allow-ffi permits it and one is found. `library`
   * is taken before LOWRANK_BLAS and those that systems ship.
   */
  readonly blas?: boolean | BlasOptions;
}

/** Which BLAS is used, and for what. */
export interface BlasOptions {
  /** A path or name of a CBLAS. */
  readonly library?: string;
  /** Multiply-adds from which a product goes there: measured, if not given. */
  readonly from?: number;
}

/** More threads than this, or than there are processors, gain nothing on the sizes that one 4 GB memory holds. */
const maxThreads = 16;

/**
 * Opens the CPU device. It needs no permission; with `--allow-sys=systemMemoryInfo` it asks no more memory than the machine or
 * its container has. Without SharedArrayBuffer or worker threads it runs on the calling thread, and
 * its description says so. Results do not depend on the number of threads.
 *
 * A BLAS that is missing or broken is named in the description, and the kernels built in are used.
 *
 * @throws {OptionError} if `threads` is no whole number from 1 to the processors there are (or 16), or `relaxed` is asked for where it is missing.
 */
export async function openCpu(options: CpuOptions = {}): Promise<CpuDevice> {
  const processors = navigator.hardwareConcurrency ?? 1, most = Math.max(processors, maxThreads);
  const wanted = options.threads ?? Math.min(processors, maxThreads);
  if (!Number.isInteger(wanted) || wanted < 1 || wanted > most) {
    throw new OptionError(`threads is ${wanted}: give a whole number from 1 to ${most}.`);
  }
  const relaxed = options.relaxed ?? supportsRelaxedSimd();
  if (relaxed && !supportsRelaxedSimd()) {
    throw new OptionError("relaxed is true, but this engine has no fused multiply-add of relaxed SIMD: leave it out.");
  }
  const shared = CpuThreads.available;
  const memory = new CpuMemory(shared, reservedBytes, await machineMemory());
  const blas = chooseBlas(options.blas ?? true, shared);
  if (!shared || wanted === 1) {
    const remark = shared ? "" : ", no worker threads here";
    return new CpuDevice(memory, CpuThreads.alone(memory.memory, blas.library), relaxed, remark, blas);
  }
  try {
    return new CpuDevice(
      memory,
      await CpuThreads.start(memory.memory, wanted, blas.library),
      relaxed,
      "",
      blas,
    );
  } catch (error) {
    const remark = `, workers did not start: ${error instanceof Error ? error.message : String(error)}`;
    return new CpuDevice(memory, CpuThreads.alone(memory.memory, blas.library), relaxed, remark, blas);
  }
}

/** What large products are computed by, and what the description says of it. */
interface ChosenBlas {
  readonly library: BlasLibrary | null;
  readonly from: number;
  readonly remark: string;
}

const withoutBlas: ChosenBlas = { library: null, from: 0, remark: "" };

function chooseBlas(wanted: boolean | BlasOptions, shared: boolean): ChosenBlas {
  const options = typeof wanted === "boolean" ? {} : wanted;
  const from = options.from ?? blasCrossover;
  // Only a shared memory stays where it is when it grows.
  if (wanted === false || !shared) return withoutBlas;
  const found = findBlas(options.library);
  if ("library" in found) return { library: found.library, from, remark: `; products by ${found.library.name}` };
  return { ...withoutBlas, remark: found.refusal && `; built-in products: ${found.refusal}` };
}

/** A block of the memory. */
class CpuBuffer implements DeviceBuffer {
  freed = false;
  constructor(readonly device: CpuDevice, readonly address: number, readonly bytes: number) {}
}

/** WebAssembly SIMD on the threads of this machine. Programs run to their end inside `run`. */
export class CpuDevice implements Device {
  readonly cheapShapes = true;
  readonly costs = cpuCosts;
  readonly capacity: number;
  /** An optimiser's whole update of a weight is one kernel, which writes in place: weight, moments, gradient, scalars. */
  readonly maxOperands = 16;
  readonly roundedRows = maxGemvRows;
  readonly programs: ProgramCache = new ProgramCache(this);
  readonly jit: typeof jit = jit;
  /** The BLAS that large products go to: `OpenBLAS 0.3.21`. Null where WebAssembly computes them all. */
  readonly blas: string | null;
  readonly #memory: CpuMemory;
  readonly #threads: CpuThreads;
  readonly #kernels: CpuKernels;
  readonly #arena: Arena<CpuBuffer> = new Arena<CpuBuffer>(this);
  readonly #reclaimer: Reclaimer = new Reclaimer(this);
  #scratch = { address: 0, stride: 0 };
  #held = { current: 0, peak: 0 };
  readonly #remarks: readonly [string, string];
  #disposed = false;

  /** Use {@link openCpu}. */
  constructor(
    memory: CpuMemory,
    threads: CpuThreads,
    relaxed: boolean,
    remark: string,
    blas: ChosenBlas = withoutBlas,
  ) {
    this.#memory = memory;
    this.capacity = memory.capacity;
    this.#threads = threads;
    this.blas = blas.library?.name ?? null;
    const emit = { shared: memory.shared, relaxed, blasFrom: blas.library && blas.from };
    this.#kernels = new CpuKernels(memory, emit);
    this.#remarks = [relaxed ? "" : " without fused multiply-add", `${remark}${blas.remark}`];
  }

  get description(): string {
    const [fused, remark] = this.#remarks;
    return `cpu (wasm simd${fused}, ${countOf(this.threads, "thread")}${remark})`;
  }

  /** Threads that compute. */
  get threads(): number {
    return this.#threads.count;
  }

  get memory(): { readonly current: number; readonly peak: number } {
    return { ...this.#held };
  }

  get kernelBytes(): number {
    return this.#kernels.held;
  }

  /** @throws {DeviceError} when there is no room, even without the programs that are held */
  allocate(bytes: number): CpuBuffer {
    this.#requireOpen();
    const buffer = new CpuBuffer(this, this.#room(bytes), bytes);
    this.#hold(bytes);
    return buffer;
  }

  free(buffer: DeviceBuffer): void {
    // A tensor that was only forgotten may be collected after its device has ended.
    if (this.#disposed) return;
    const { address, bytes } = this.#own(buffer);
    (buffer as CpuBuffer).freed = true;
    this.#memory.free(address, bytes);
    this.#hold(-bytes);
  }

  write(buffer: DeviceBuffer, data: HostArray): void {
    const { address, bytes } = this.#own(buffer);
    if (data.byteLength > bytes) {
      throw new DeviceError(`${data.byteLength} bytes do not fit a buffer of ${bytes} bytes: allocate it larger.`);
    }
    const source = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    new Uint8Array(this.#memory.buffer, address, data.byteLength).set(source);
  }

  async read(requests: readonly { buffer: DeviceBuffer; dtype: DType; size: number }[]): Promise<HostArray[]> {
    const copies = requests.map(({ buffer, dtype, size }) => {
      const copy = hostArray(dtype, size);
      copy.set(this.view(buffer, dtype, size));
      return copy;
    });
    await this.#reclaimer.collect();
    return copies;
  }

  /**
   * The first `size` elements of a buffer in place, to fill or read without a copy. The view is good until the next
   * allocation or compilation, which may move the memory's end.
   */
  view(buffer: DeviceBuffer, dtype: DType, size: number): HostArray {
    const { address, bytes } = this.#own(buffer);
    if (storageBytes(dtype, size) > bytes) {
      throw new DeviceError(`${size} elements of ${dtype} are more than a buffer of ${bytes} bytes holds.`);
    }
    return hostArray(dtype, size, this.#memory.buffer, address);
  }

  compile(program: Program): Executable {
    this.#requireOpen();
    const held: (() => void)[] = [];
    const free = () => held.splice(0).forEach((give) => give());
    try {
      const steps = program.steps.map(({ kernel, buffers }) => {
        const taken = this.#kernels.take(kernel);
        held.push(() => this.#kernels.drop(taken));
        return { kernel: taken, buffers };
      });
      this.#reserveScratch(steps.reduce((most, { kernel }) => Math.max(most, kernel.scratchBytes), 0));
      const table = new StepTable(steps);
      const address = this.#room(table.words.byteLength);
      held.push(() => this.#memory.free(address, table.words.byteLength));
      this.#arena.add(table, program.arenaBytes);
      held.push(() => this.#arena.remove(table));
      return {
        run: (args, outputs) => {
          this.#requireOpen();
          const given = { argument: args.map((b) => this.#own(b)), output: outputs.map((b) => this.#own(b)) };
          const arena = this.#arena.buffer?.address ?? 0;
          table.resolve((ref) => ref.kind === "arena" ? arena + ref.offset : given[ref.kind][ref.index].address);
          new Int32Array(this.#memory.buffer, address, table.words.length).set(table.words);
          this.#walk(address / 4, table.words.length);
        },
        free: () => this.#disposed || free(),
      };
    } catch (error) {
      free();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.programs.end();
    this.#threads[Symbol.dispose]();
  }

  #walk(first: number, length: number): void {
    const shared = new Uint32Array(this.#memory.buffer, 0, 64);
    shared[words.scratch] = this.#scratch.address;
    shared[words.scratchStride] = this.#scratch.stride;
    try {
      this.#threads.run(first, first + length);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new RunError(`A kernel failed on the CPU device: ${reason}.`);
    }
  }

  /** Memory for so many bytes; if there is none, that of unused programs is freed for it. */
  #room(bytes: number): number {
    try {
      return this.#memory.allocate(bytes);
    } catch (error) {
      if (!this.programs.shrink()) throw error;
      return this.#memory.allocate(bytes);
    }
  }

  #reserveScratch(bytes: number): void {
    const stride = Math.ceil(bytes / 64) * 64;
    if (stride <= this.#scratch.stride) return;
    const { started } = this.#threads;
    const address = this.#room(stride * started);
    if (this.#scratch.stride > 0) this.#memory.free(this.#scratch.address, this.#scratch.stride * started);
    this.#scratch = { address, stride };
  }

  #own(buffer: DeviceBuffer): CpuBuffer {
    this.#requireOpen();
    if (!(buffer instanceof CpuBuffer) || buffer.device !== this) {
      throw new DeviceError("A buffer of another device was given to the CPU device: read it there and write it here.");
    }
    if (buffer.freed) {
      throw new DeviceError(`A freed buffer of ${buffer.bytes} bytes was used: keep it until its last use.`);
    }
    return buffer;
  }

  #requireOpen(): void {
    if (this.#disposed) throw new DeviceError("The CPU device was used after it was disposed: open another.");
  }

  #hold(bytes: number): void {
    const near = 0.75 * this.capacity - this.#held.current;
    this.#held.current += bytes;
    // A program that awaits other things than reads gives the engine its turns.
    if (near > 0 && bytes >= near) this.#reclaimer.press();
    this.#held.peak = Math.max(this.#held.peak, this.#held.current);
  }
}

/** A program's steps as the words that the threads walk. */
class StepTable {
  readonly words: Int32Array;
  readonly #addresses: { readonly at: number; readonly ref: BufferRef }[] = [];

  constructor(steps: readonly { kernel: CpuKernel; buffers: readonly BufferRef[] }[]) {
    const length = steps.reduce((total, { buffers }) => total + stepWords.first + buffers.length, 0);
    this.words = new Int32Array(length);
    let at = 0;
    for (const { kernel, buffers } of steps) {
      this.words[at + stepWords.slot] = kernel.slot;
      this.words[at + stepWords.version] = kernel.version;
      this.words[at + stepWords.address] = kernel.address;
      this.words[at + stepWords.bytes] = kernel.bytes;
      this.words[at + stepWords.units] = kernel.units;
      this.words[at + stepWords.grain] = kernel.grain;
      this.words[at + stepWords.operands] = buffers.length;
      buffers.forEach((ref, i) => this.#addresses.push({ at: at + stepWords.first + i, ref }));
      at += stepWords.first + buffers.length;
    }
  }

  /** Fills in the address of every operand. */
  resolve(addressOf: (ref: BufferRef) => number): void {
    for (const { at, ref } of this.#addresses) this.words[at] = addressOf(ref);
  }
}
