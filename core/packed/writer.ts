import { packedLayout, type PackedType } from "./blocks.ts";

/** A packed array while codes and scales are written into it, each where `packed.ts` says. */
export class PackedWriter {
  readonly words: Uint32Array<ArrayBuffer>;
  readonly #bytes: Uint8Array;
  readonly #halves: Uint16Array;
  readonly #floats: Float32Array;
  readonly #layout: ReturnType<typeof packedLayout>;

  constructor(readonly type: PackedType, size: number) {
    this.#layout = packedLayout(type, size);
    this.words = new Uint32Array(this.#layout.words);
    this.#bytes = new Uint8Array(this.words.buffer);
    this.#halves = new Uint16Array(this.words.buffer);
    this.#floats = new Float32Array(this.words.buffer);
  }

  /** Sixteen 4-bit codes for values `first` + 0 … 15 of a run's lower or upper half. */
  nibbles(run: number, upper: 0 | 1, code: (i: number) => number): void {
    for (let word = 0; word < 4; word++) {
      let bits = 0;
      for (let j = 0; j < 4; j++) bits |= code(4 * j + word) << 4 * j;
      this.#halves[2 * (run * 4 + word) + upper] = bits;
    }
  }

  /** The two upper bits of the 6-bit code of value `i`. */
  upper(i: number, bits: number): void {
    this.words[this.#layout.high + (i >> 6) * 4 + (i & 3)] |= bits << 2 * ((i & 63) >> 2);
  }

  /** An 8-bit code for value `i`. */
  byte(i: number, code: number): void {
    this.#bytes[4 * ((i >> 4) * 4 + (i & 3)) + (i >> 2 & 3)] = code;
  }

  /** Half `i` of the scales. */
  scale(i: number, bits: number): void {
    this.#halves[2 * this.#layout.scales + i] = bits;
  }

  /** f32 number `i` of the scales. */
  scaleFloat(i: number, value: number): void {
    this.#floats[this.#layout.scales + i] = value;
  }

  /** Byte `i` of the scales. */
  scaleByte(i: number, bits: number): void {
    this.#bytes[4 * this.#layout.scales + i] = bits;
  }

  /** Half `i` of what scales the scales. */
  superscale(i: number, bits: number): void {
    this.#halves[2 * this.#layout.supers + i] = bits;
  }

  /** f32 number `i` of what scales the scales of nf4. */
  superscaleFloat(i: number, value: number): void {
    this.#floats[this.#layout.supers + i] = value;
  }

  /** What the bytes of nf4's scales stand for, and what is added to each. */
  map(values: Float32Array, offset: number): void {
    this.#floats.set(values, this.#layout.map);
    this.#floats[this.#layout.map + 256] = offset;
  }
}
