/** Where the lines of a file begin, for files that do not fit into memory. */
import { DataError } from "../core/errors.ts";
import type { ByteSource } from "../models/load/byte_source.ts";

/** The most bytes that are read at once, and that a line may have. */
const chunkBytes = 2 ** 20, mostLineBytes = 2 ** 26;

/** One line of a file: its bytes without the line's end (valid until the next one), its place, its number from 1. */
export interface Line {
  readonly bytes: Uint8Array;
  readonly offset: number;
  readonly number: number;
}

/**
 * Walks the lines of a file in order. One chunk of it and one line are in memory at a time. `onChunk` is shown all bytes.
 *
 * @throws {DataError} for a line of more than 64 MB
 */
export function* linesOf(source: ByteSource, onChunk: (bytes: Uint8Array) => void = () => {}): Generator<Line> {
  let carried = new Uint8Array(0);
  let number = 0;
  for (let offset = 0; offset < source.size;) {
    const chunk = new Uint8Array(Math.min(chunkBytes, source.size - offset));
    source.read(offset, chunk);
    onChunk(chunk);
    const bytes = concatBytes(carried, chunk);
    const base = offset - carried.length;
    let start = 0;
    for (let end = bytes.indexOf(10, carried.length); end >= 0; end = bytes.indexOf(10, start)) {
      yield { bytes: bytes.subarray(start, end), offset: base + start, number: ++number };
      start = end + 1;
    }
    carried = bytes.slice(start);
    offset += chunk.length;
    if (carried.length > mostLineBytes) {
      throw new DataError(
        `${source.name} line ${number + 1} has more than ${mostLineBytes / 2 ** 20} MB: give one row a line.`,
      );
    }
  }
  if (carried.length > 0) yield { bytes: carried, offset: source.size - carried.length, number: ++number };
}

function concatBytes(a: Uint8Array, b: Uint8Array): Uint8Array {
  if (a.length === 0) return b;
  const joined = new Uint8Array(a.length + b.length);
  joined.set(a);
  joined.set(b, a.length);
  return joined;
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
