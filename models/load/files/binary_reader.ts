import type { ByteSource } from "./byte_source.ts";

/** Reads little-endian fields one after another through a window on the source; every length is checked before it is used. */
export class BinaryReader {
  /** Byte offset of the next field. */
  at = 0;
  #window = new Uint8Array(0);
  #view = new DataView(this.#window.buffer);
  #from = 0;

  constructor(readonly source: ByteSource, readonly refuse: (problem: string, remedy?: string) => never) {}

  u8(): number {
    const start = this.#take(1);
    return this.#view.getUint8(start);
  }
  u16(): number {
    const start = this.#take(2);
    return this.#view.getUint16(start, true);
  }
  u32(): number {
    const start = this.#take(4);
    return this.#view.getUint32(start, true);
  }
  u64(): bigint {
    const start = this.#take(8);
    return this.#view.getBigUint64(start, true);
  }
  f32(): number {
    const start = this.#take(4);
    return this.#view.getFloat32(start, true);
  }
  f64(): number {
    const start = this.#take(8);
    return this.#view.getFloat64(start, true);
  }

  /** A u64 that must be a safe integer; `what` names it in the refusal. */
  size(what: string): number {
    const value = this.u64();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) this.refuse(`${what} is ${value}`);
    return Number(value);
  }

  /** A u64 count of things that take at least `least` bytes each: more than the rest of the file holds is refused. */
  count(what: string, least: number): number {
    const value = this.u64();
    const room = Math.floor((this.source.size - this.at) / least);
    if (value > BigInt(room)) this.refuse(`it claims ${value} ${what} and has room for ${room}`);
    return Number(value);
  }

  /** A string: a u64 length in bytes, then UTF-8. */
  string(longest: number): string {
    const length = this.count("bytes of text", 1);
    if (length > longest) this.refuse(`it has a text of ${length} bytes, and ${longest} are allowed`);
    const start = this.#take(length);
    try {
      return utf8.decode(this.#window.subarray(start, start + length));
    } catch {
      return this.refuse(`the text at byte ${this.at - length} is not UTF-8`);
    }
  }

  /** Makes `length` bytes available and steps over them; returns where in the window they begin. */
  #take(length: number): number {
    if (this.at + length > this.#from + this.#window.length) this.#refill(length);
    const start = this.at - this.#from;
    this.at += length;
    return start;
  }

  #refill(length: number): void {
    const left = this.source.size - this.at;
    if (length > left) {
      this.refuse(
        `its header goes on beyond the file's end at byte ${this.source.size}`,
        "download it again; it is truncated",
      );
    }
    this.#window = new Uint8Array(Math.min(left, Math.max(length, 1 << 20)));
    this.#view = new DataView(this.#window.buffer);
    this.#from = this.at;
    this.source.read(this.at, this.#window);
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
