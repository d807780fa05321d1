/** Where the lines of a file begin, for files that do not fit into memory. */
import type { ByteSource } from "../models/load/files/byte_source.ts";
import { BadRow } from "./rows.ts";

/** The most bytes that are read at once. */
const chunkBytes = 2 ** 20;

/** How lines are walked. */
interface LineOptions {
  /** The most bytes that a line may have. Default 64 MB. */
  readonly most?: number;
  /** Shown all bytes. */
  readonly onChunk?: (bytes: Uint8Array) => void;
}

/** One line of a file: its bytes without the line's end (valid until the next one), its place, its number from 1. */
export interface Line {
  /** @throws {BadRow} for a line of more than the most bytes */
  readonly bytes: Uint8Array;
  readonly offset: number;
  readonly number: number;
}

/** A line that is not held: whoever asks for its bytes gets an error, and may leave it out. */
class LongLine implements Line {
  constructor(readonly path: string, readonly offset: number, readonly number: number, readonly most: number) {}
  get bytes(): never {
    throw new BadRow(
      `${this.path} line ${this.number} has more than ${this.most / 2 ** 20} MB: give one row per line.`,
    );
  }
}

/** Walks the lines of a file in order. One chunk of it and one line are in memory at a time. */
export function* linesOf(source: ByteSource, { most = 2 ** 26, onChunk }: LineOptions = {}): Generator<Line> {
  let buffer = new Uint8Array(2 * chunkBytes);
  let carried = 0; // bytes at the buffer's beginning that belong to a line whose end was not read yet
  let number = 0;
  let long: number | null = null; // where a line begins that is too long to hold
  for (let offset = 0; offset < source.size;) {
    if (buffer.length < carried + chunkBytes) buffer = enlarged(buffer);
    const end = carried + Math.min(chunkBytes, source.size - offset);
    source.read(offset, buffer.subarray(carried, end));
    onChunk?.(buffer.subarray(carried, end));
    const base = offset - carried;
    let start = 0;
    for (let at = indexOfEnd(buffer, carried, end); at >= 0; at = indexOfEnd(buffer, start, end)) {
      number++;
      if (at - start > most) long ??= base + start;
      yield long === null
        ? { bytes: buffer.subarray(start, at), offset: base + start, number }
        : new LongLine(source.name, long, number, most);
      long = null;
      start = at + 1;
    }
    buffer.copyWithin(0, start, end);
    offset += end - carried;
    carried = end - start;
    if (carried > most || long !== null) {
      long ??= offset - carried;
      carried = 0;
    }
  }
  if (long !== null) yield new LongLine(source.name, long, ++number, most);
  else if (carried > 0) yield { bytes: buffer.subarray(0, carried), offset: source.size - carried, number: ++number };
}

function indexOfEnd(bytes: Uint8Array, from: number, end: number): number {
  const at = bytes.indexOf(10, from);
  return at < end ? at : -1;
}

function enlarged(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(2 * bytes.length);
  larger.set(bytes);
  return larger;
}

/** A list of numbers that grows, 8 bytes each: offsets of a file's lines. */
export class NumberList {
  #values = new Float64Array(1024);
  #length = 0;
  get length(): number {
    return this.#length;
  }
  at(index: number): number {
    return this.#values[index];
  }
  push(value: number): void {
    if (this.#length === this.#values.length) {
      const larger = new Float64Array(2 * this.#length);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values[this.#length++] = value;
  }
}
