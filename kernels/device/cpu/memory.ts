/** The one WebAssembly memory that the CPU device lives in, handed out in blocks. */
import { DeviceError } from "../../../core/errors.ts";
import { formatBytes } from "../../../core/host/format.ts";

/** Bytes of a WebAssembly page. */
const pageBytes = 65536;
/** A 32-bit memory holds at most this many pages: 4 GB. */
const maxPages = 65536;
/** The most bytes that one memory can ever hold. */
const maxBytes = maxPages * pageBytes;
/** Blocks start and end on this many bytes, a cache line. */
const alignment = 64;

/** A run of free bytes. */
interface Gap {
  start: number;
  bytes: number;
}

/** First-fit allocation from a sorted free list; the memory grows when no gap is large enough. */
export class CpuMemory {
  readonly memory: WebAssembly.Memory;
  readonly shared: boolean;
  /** The most bytes that it will ever hold. */
  readonly capacity: number;
  #gaps: Gap[] = [];
  #end: number;
  #current = 0;
  #peak = 0;

  /** `reserved` bytes at the start are the owner's; `machine` is what the machine has. */
  constructor(shared: boolean, reserved: number, machine = Infinity) {
    this.shared = shared;
    this.capacity = Math.min(maxBytes, machine);
    this.memory = new WebAssembly.Memory({ initial: Math.ceil(reserved / pageBytes) + 1, maximum: maxPages, shared });
    this.#end = align(reserved);
  }

  get current(): number {
    return this.#current;
  }

  get peak(): number {
    return this.#peak;
  }

  get buffer(): ArrayBufferLike {
    return this.memory.buffer;
  }

  /** The address of `bytes` uninitialised bytes. */
  allocate(bytes: number): number {
    const wanted = Math.max(align(bytes), alignment);
    let start: number;
    const gap = this.#gaps.findIndex((g) => g.bytes >= wanted);
    if (gap >= 0) {
      const found = this.#gaps[gap];
      start = found.start;
      found.start += wanted;
      found.bytes -= wanted;
      if (found.bytes === 0) this.#gaps.splice(gap, 1);
    } else start = this.#extend(wanted);
    this.#current += wanted;
    this.#peak = Math.max(this.#peak, this.#current);
    return start;
  }

  /** Gives back what `allocate(bytes)` gave. */
  free(start: number, bytes: number): void {
    const size = Math.max(align(bytes), alignment);
    this.#current -= size;
    let low = 0, high = this.#gaps.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#gaps[middle].start < start) low = middle + 1;
      else high = middle;
    }
    this.#gaps.splice(low, 0, { start, bytes: size });
    this.#join(low);
    if (low > 0) this.#join(low - 1);
    const last = this.#gaps[this.#gaps.length - 1];
    if (last.start + last.bytes === this.#end) {
      this.#end = last.start;
      this.#gaps.pop();
    }
  }

  /** Joins gap `i` with the next where they touch. */
  #join(i: number): void {
    const gap = this.#gaps[i], next = this.#gaps[i + 1];
    if (!next || gap.start + gap.bytes !== next.start) return;
    gap.bytes += next.bytes;
    this.#gaps.splice(i + 1, 1);
  }

  #extend(bytes: number): number {
    const start = this.#end, end = start + bytes;
    // Vector loads may reach a little past the last block.
    const missing = Math.ceil((end + alignment - this.memory.buffer.byteLength) / pageBytes);
    if (missing > 0) {
      try {
        if (end + alignment > this.capacity) throw new RangeError("past the largest memory");
        this.memory.grow(missing);
      } catch {
        throw new DeviceError(this.#refusal(bytes));
      }
    }
    this.#end = end;
    return start;
  }

  #refusal(bytes: number): string {
    const beyond = Math.max(0, this.capacity - this.#end);
    const largest = this.#gaps.reduce((most, gap) => Math.max(most, gap.bytes), beyond);
    const owner = this.capacity === maxBytes ? "one memory holds" : "this machine, or its container, has for it";
    return `The CPU device needs ${formatBytes(bytes)} more in one piece, but of the ${
      formatBytes(this.capacity)
    } that ` +
      `${owner} ${formatBytes(this.#current)} are taken and the largest free piece is ${formatBytes(largest)}: use a ` +
      `smaller batch or sequence, or hold the weights as bf16 or packed.`;
  }
}

function align(bytes: number): number {
  return Math.ceil(bytes / alignment) * alignment;
}
