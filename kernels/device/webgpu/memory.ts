import { DeviceError } from "../../../core/errors.ts";
import type { DeviceBuffer } from "../executable.ts";

/** Memory that one GPUBuffer holds; `serial` tells it from every other of its device. */
export class WebGpuBuffer implements DeviceBuffer {
  freed = false;
  constructor(readonly home: WebGpuMemory, readonly gpu: GPUBuffer, readonly bytes: number, readonly serial: number) {}
}

/** The buffers of one GPUDevice, counted. */
export class WebGpuMemory {
  #current = 0;
  #peak = 0;
  #serials = 0;

  constructor(readonly gpu: GPUDevice, readonly description: string) {}

  /** Bytes now held. */
  get current(): number {
    return this.#current;
  }

  /** The most bytes ever held. */
  get peak(): number {
    return this.#peak;
  }

  /** The size of a buffer that holds `bytes`, where one can. */
  sizeOf(bytes: number): number {
    const size = roundUp(bytes);
    if (size <= this.gpu.limits.maxBufferSize) return size;
    throw new DeviceError(
      `Cannot allocate ${formatMiB(size)} on ${this.description}: one buffer holds at most ` +
        `${formatMiB(this.gpu.limits.maxBufferSize)}: use a smaller batch or --device cpu`,
    );
  }

  /** A buffer of at least `bytes`, rounded up to whole vectors: a kernel may touch the four elements around the last. */
  allocate(bytes: number): WebGpuBuffer {
    const size = this.sizeOf(bytes);
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const buffer = new WebGpuBuffer(this, this.gpu.createBuffer({ size, usage }), size, this.#serials++);
    this.#current += size;
    this.#peak = Math.max(this.#peak, this.#current);
    return buffer;
  }

  /** The buffer, where it is one of this device and still holds its memory. */
  check(buffer: DeviceBuffer): WebGpuBuffer {
    if (!(buffer instanceof WebGpuBuffer) || buffer.home !== this) {
      throw new DeviceError(
        `A buffer of another device was given to ${this.description}: read it there and write it here.`,
      );
    }
    if (buffer.freed) {
      throw new DeviceError(`A freed buffer of ${buffer.bytes} bytes was used: keep it until its last use.`);
    }
    return buffer;
  }

  /** Ends a buffer; queued work that uses it still runs. */
  free(buffer: WebGpuBuffer): void {
    this.check(buffer);
    buffer.freed = true;
    buffer.gpu.destroy();
    this.#current -= buffer.bytes;
  }
}

/** Bytes as they are allocated and bound: whole vectors of 16. */
export function roundUp(bytes: number): number {
  return Math.max(16, Math.ceil(bytes / 16) * 16);
}

/** `150.0 MiB`. */
export function formatMiB(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
