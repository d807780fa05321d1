import { type DType, type HostArray, hostArray, storageBytes } from "../../../core/dtype.ts";
import { DeviceError } from "../../../core/errors.ts";
import type { Kernel, Program } from "../../ir/kernel.ts";
import { webgpuCosts } from "../../wgsl/scalar.ts";
import { textOf } from "../../wgsl/emit.ts";
import { gpuTile, type TileConfig } from "../../wgsl/tile.ts";
import { tileOf, withinWindow } from "../../wgsl/tile_table.ts";
import { Arena } from "../arena.ts";
import { jit } from "../../runtime/jit.ts";
import type { Device, KernelText } from "../device.ts";
import type { DeviceBuffer, Executable } from "../executable.ts";
import { Reclaimer } from "../reclaimer.ts";
import { ProgramCache } from "../program_cache.ts";
import { findAdapter, type FoundAdapter, requestDevice } from "./adapter.ts";
import { Failures } from "./failures.ts";
import { type WebGpuBuffer, WebGpuMemory } from "./memory.ts";
import { Pipelines } from "./pipelines.ts";
import { WebGpuProgram } from "./program.ts";
import { readBack } from "./readback.ts";
import { findSubgroups, type Subgroups } from "./subgroups.ts";
import { chooseTiles, type TileOptions, type Tiles } from "./tuning.ts";

/** How a WebGPU device is opened. */
export type WebGpuOptions = TileOptions;

/**
 * Opens the machine's WebGPU adapter, be it a GPU or a software one.
 *
 * @throws {DeviceError} when there is none, or when it gives no device.
 */
export async function openWebGpu(options: WebGpuOptions = {}): Promise<WebGpuDevice> {
  const found = await findAdapter();
  if ("missing" in found) {
    throw new DeviceError(
      `The device webgpu is not there: ${found.missing}: install the GPU's Vulkan, Metal or Direct3D 12 driver, ` +
        `or use --device cpu`,
    );
  }
  return openAdapter(found, options);
}

/** Opens an adapter that was found. */
export async function openAdapter(found: FoundAdapter, options: WebGpuOptions = {}): Promise<WebGpuDevice> {
  const gpu = await requestDevice(found);
  const device = new WebGpuDevice(gpu, found, await findSubgroups(gpu));
  await device.choose(options);
  return device;
}

/** `navigator.gpu` as a {@link Device}. */
export class WebGpuDevice implements Device {
  readonly queues = true;
  readonly costs = webgpuCosts;
  readonly description: string;
  readonly memory: WebGpuMemory;
  readonly failures: Failures;
  readonly pipelines: Pipelines;
  readonly arena: Arena<WebGpuBuffer>;
  readonly programs: ProgramCache = new ProgramCache(this);
  readonly jit: typeof jit = jit;
  readonly #reclaimer: Reclaimer = new Reclaimer(this);
  readonly #found: FoundAdapter;
  #tiles: Tiles = { table: { default: gpuTile, classes: {} }, origin: "" };
  /** How many command buffers were queued, and of these how many are known to have run. */
  #queued = 0;
  #done = 0;
  #disposed = false;

  constructor(readonly gpu: GPUDevice, found: FoundAdapter, readonly subgroups: Subgroups) {
    this.description = `webgpu (${found.name}${found.software ? ", a software adapter" : ""})`;
    this.#found = found;
    this.failures = new Failures(gpu, this.description);
    this.memory = new WebGpuMemory(gpu, this.description);
    this.arena = new Arena(this.memory);
    this.pipelines = new Pipelines(gpu, this.failures, subgroups.directive);
  }

  get kernelBytes(): number {
    return this.pipelines.held;
  }

  /** Where the tiles come from: `tiles tuned in 1.3 s, kept in …`. */
  get remark(): string {
    return this.#tiles.origin;
  }

  /** Decides how kernels are tiled, before the first is compiled. */
  async choose(options: WebGpuOptions): Promise<void> {
    const { table, origin } = await chooseTiles(this, this.#found, this.subgroups.size, options);
    this.#tiles = { table: withinWindow(table, this.gpu.limits.maxStorageBufferBindingSize), origin };
  }

  /** How this device cuts a kernel. */
  readonly tileFor = (kernel: Kernel): TileConfig => tileOf(this.#tiles.table, kernel);

  readonly textOf = (kernel: Kernel): KernelText => textOf(kernel, this.tileFor(kernel));

  /** Queues the commands of an encoder. */
  readonly submit = (encoder: GPUCommandEncoder): void => {
    this.#queued++;
    this.gpu.queue.submit([encoder.finish()]);
  };

  allocate(bytes: number): WebGpuBuffer {
    this.#requireOpen();
    return this.memory.allocate(bytes);
  }

  free(buffer: DeviceBuffer): void {
    // A tensor that was only forgotten may be collected after its device has ended.
    if (!this.#disposed) this.memory.free(this.#own(buffer));
  }

  write(buffer: DeviceBuffer, data: HostArray): void {
    const { gpu } = this.#own(buffer);
    let bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    // Deno ends the process where nothing is written.
    if (bytes.byteLength === 0) return;
    // writeBuffer takes whole words of memory that is not shared with another thread.
    if (bytes.byteLength % 4 !== 0 || !(data.buffer instanceof ArrayBuffer)) {
      const copy = new Uint8Array(Math.ceil(bytes.byteLength / 4) * 4);
      copy.set(bytes);
      bytes = copy;
    }
    this.gpu.queue.writeBuffer(gpu, 0, bytes as Uint8Array<ArrayBuffer>);
  }

  /** The copies are queued before this returns: what is done to the buffers afterwards changes nothing. */
  async read(requests: readonly { buffer: DeviceBuffer; dtype: DType; size: number }[]): Promise<HostArray[]> {
    const sources = requests.map(({ buffer }) => this.#own(buffer).gpu);
    const encoder = this.gpu.createCommandEncoder();
    const staged = this.failures.watch(() => {
      const staged = requests.map(({ dtype, size }, i) => {
        const bytes = Math.ceil(storageBytes(dtype, size) / 4) * 4;
        const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
        const staging = this.gpu.createBuffer({ size: Math.max(4, bytes), usage });
        if (bytes > 0) encoder.copyBufferToBuffer(sources[i], 0, staging, 0, bytes);
        return staging;
      });
      this.submit(encoder);
      return staged;
    });
    const number = this.#queued;
    const contents = await this.failures.orLost(readBack(staged));
    this.#done = Math.max(this.#done, number);
    // A map fails because of something before it, which is what to report; a lost device is reported a turn later.
    if ("failed" in contents) await new Promise((resolve) => setTimeout(resolve, 0));
    await this.failures.check();
    if ("failed" in contents) {
      throw new DeviceError(`The device ${this.description} could not be read: ${contents.failed}`);
    }
    await this.#reclaimer.collect();
    return requests.map(({ dtype, size }, i) => hostArray(dtype, size, contents[i]));
  }

  compile(program: Program): Executable {
    this.#requireOpen();
    return new WebGpuProgram(this, program);
  }

  /**
   * Ends the device, once what is queued has run: Deno ends the process where a device goes that computes for some seconds
   * more, and the drivers under it may touch memory that is no longer there.
   */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.programs.end();
    this.failures.close();
    const end = () => this.gpu.destroy();
    if (this.#done === this.#queued) end();
    else this.gpu.queue.onSubmittedWorkDone().then(end, end);
  }

  #own(buffer: DeviceBuffer): WebGpuBuffer {
    this.#requireOpen();
    return this.memory.check(buffer);
  }

  #requireOpen(): void {
    if (!this.#disposed) return;
    throw new DeviceError(`The device ${this.description} was used after it was disposed: open another.`);
  }
}
