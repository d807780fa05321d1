/**
 * Dot products of rows rounded to bytes with packed rows: codes are multiplied with bytes as integers, exactly, and scaled
 * once a run. No multiply-add is fused, so every engine, with relaxed SIMD or without, computes the same bits.
 */
import { type PackedFormat, packedFormats, type PackedType } from "../../../core/packed/blocks.ts";
import type { Code, Local } from "../assembler.ts";
import type { PackedReader } from "./packed.ts";
import { batchLoads, type Column, emitEachRun, type PreparedRows, type RunProducts } from "./rows.ts";

/** What is taken from every code, of the formats that take anything. */
function minus({ code }: PackedFormat): number {
  return typeof code === "object" ? code.minus : 0;
}

/** Bytes of a prepared run: its 32 values, then, where codes are less `minus` each, what that takes from pairs of products. */
function runBytes(format: PackedFormat): number {
  return minus(format) > 0 ? 48 : 32;
}

/** Where, after the sums of all rows, the steps of their blocks lie. */
function stepsOffset(rows: number, sumBytes: number): number {
  return rows * sumBytes;
}

/** Bytes of scratch that rounding rows of `depth` values takes. */
export function roundedBytes(type: PackedType, rows: number, depth: number): number {
  return rows * depth / 32 * (runBytes(packedFormats[type]) + 8);
}

/**
 * Rounds `rows` rows as `roundToBytes` does, from `left`, `leftRow` bytes apart, into the scratch at `to`. Bytes lie as the
 * codes that they meet; a block's step, and the sum of its rounded values, lie apart: `sums` is set to the place of these.
 */
export function emitRoundedRows(
  reader: PackedReader,
  left: Local,
  leftRow: number,
  rows: number,
  depth: number,
  to: Local,
  sums: Local,
): PreparedRows {
  const { code, format } = reader, bytes = runBytes(format);
  const values = Array.from({ length: 8 }, () => code.local("v128"));
  const [most, step, pairs, word] = Array.from({ length: 4 }, () => code.local("v128"));
  const sumBytes = depth / 32 * 4;
  const prepared = { at: to, rowBytes: depth / 32 * bytes, runBytes: bytes, sums, sumBytes };
  const everyLane = (op: "i32x4.max_s" | "i32x4.add", of: Local) => {
    code.get(of).get(of).get(of).shuffle(2, 3, 0, 1).op(op).set(of);
    code.get(of).get(of).get(of).shuffle(1, 0, 3, 2).op(op).set(of);
  };
  code.get(to).i32(rows * prepared.rowBytes).op("i32.add").set(sums);
  emitEachRun(code, { at: left, rowBytes: leftRow, rows, depth }, prepared, (from, at, line) => {
    values.forEach((value, i) => {
      code.get(from).memory("v128.load", 16 * i).tee(value).op("f32x4.abs");
      // Magnitudes order as the integers of their bits, what is not a number above all.
      if (i > 0) code.get(most).op("i32x4.max_s");
      code.set(most);
    });
    everyLane("i32x4.max_s", most);
    // What engines make of an infinite block's bytes differs: its step is made what is not a number (infinity less itself).
    code.get(line).get(most).f32x4(127).op("f32x4.div").get(most).get(most).op("f32x4.sub", "f32x4.add").tee(step);
    code.laneMemory("v128.store32_lane", 0, stepsOffset(rows, sumBytes));
    code.f32x4(127).get(most).f32x4(minRounded).op("f32x4.max", "f32x4.div").set(most);
    for (const value of values) {
      code.get(value).get(most).op("f32x4.mul").f32x4(0.5).op("f32x4.add", "f32x4.floor");
      code.op(reader.relaxed ? "i32x4.relaxed_trunc_f32x4_s" : "i32x4.trunc_sat_f32x4_s").set(value);
    }
    // Byte b of word w of the codes stands for value 8b + w or 8b + 4 + w of a run, of 8-bit ones 4b + w of half a run.
    const halves = format.bits === 8 ? [[0, 1, 2, 3], [4, 5, 6, 7]] : [[0, 2, 4, 6], [1, 3, 5, 7]];
    halves.forEach((half, h) => {
      const [a, b, c, d] = half.map((i) => values[i]);
      code.get(a).get(b).op("i16x8.narrow_i32x4_s").get(c).get(d).op("i16x8.narrow_i32x4_s", "i8x16.narrow_i16x8_s");
      code.tee(word).get(word).shuffleBytes(turned).set(word).get(at).get(word).memory("v128.store", 16 * h);
      code.get(word).op("i16x8.extadd_pairwise_i8x16_s");
      if (h > 0) code.get(pairs).op("i16x8.add");
      code.set(pairs);
    });
    if (minus(format) > 0) {
      const less = -minus(format), two = less << 16 | less & 0xffff;
      code.get(at).get(pairs).i32x4(two, two, two, two).op("i16x8.mul").memory("v128.store", 32);
    }
    if (format.shifted) {
      code.get(pairs).op("i32x4.extadd_pairwise_i16x8_s").set(pairs);
      everyLane("i32x4.add", pairs);
      code.get(line).get(pairs).op("f32x4.convert_i32x4_s").get(step).op("f32x4.mul");
      code.laneMemory("v128.store32_lane", 0);
    }
  });
  code.release("v128", ...values, most, step, pairs, word);
  return { ...prepared, rounded: true };
}

/** Four rows of four bytes as columns. */
const turned = Array.from({ length: 16 }, (_, i) => 4 * (i & 3) + (i >> 2));

/** What a block's greatest value is taken to be at least: where `roundToBytes` begins to give zeros. */
const minRounded = 1e-30;

/** The products of a run in integers, of every row with every column. */
export class ByteProducts implements RunProducts {
  readonly #code: Code;
  /** By row and column: the products, and what they are scaled by in each run of a batch. */
  readonly #products: readonly (readonly Local[])[];
  readonly #scales: readonly (readonly Local[])[];
  /** A row's vectors of a run. */
  readonly #rows: readonly (readonly Local[])[];
  readonly #high: Local;

  constructor(
    readonly reader: PackedReader,
    readonly sums: readonly (readonly Local[])[],
    readonly rows: PreparedRows,
  ) {
    const code = this.#code = reader.code, { format } = reader;
    const each = () => sums.map((row) => row.map(() => code.local("v128")));
    [this.#products, this.#scales] = [each(), each()];
    const vectors = format.bits === 8 ? 4 : runBytes(format) / 16;
    this.#rows = sums.map(() => Array.from({ length: vectors }, () => code.local("v128")));
    this.#high = code.local("v128");
  }

  release(): void {
    this.#code.release("v128", ...this.#products.flat(), ...this.#scales.flat(), ...this.#rows.flat(), this.#high);
  }

  batch(c: number, runs: 1 | 2 | 4): void {
    const code = this.#code, { reader } = this, { sums, sumBytes } = this.rows;
    this.sums.forEach((row, l) => {
      code.get(reader.scale).get(sums);
      code.memory(batchLoads[runs], stepsOffset(this.sums.length, sumBytes) + l * sumBytes);
      code.op("f32x4.mul").set(this.#scales[l][c]);
      if (!reader.format.shifted) return;
      code.get(reader.shift).get(sums).memory(batchLoads[runs], l * sumBytes);
      code.op("f32x4.mul").get(row[c]).op("f32x4.add").set(row[c]);
    });
  }

  run(columns: readonly Column[], r: number): void {
    const code = this.#code, { reader, rows: { at, rowBytes, runBytes } } = this, { bits } = reader.format;
    this.#rows.forEach((vectors, l) =>
      vectors.forEach((vector, i) => {
        const [load, bytes] = bits === 8 ? ["v128.load8x8_s", 8] as const : ["v128.load", 16] as const;
        code.get(at).memory(load, l * rowBytes + r * runBytes + i * bytes).set(vector);
      })
    );
    columns.forEach(({ run, words }, c) => bits === 8 ? this.#wide(run, r, words, c) : this.#narrow(run, r, words, c));
  }

  /** 8-bit codes: both sides are widened to 16 bits. */
  #wide(run: Local, r: number, words: Local, c: number): void {
    const code = this.#code;
    for (let i = 0; i < 4; i++) {
      this.reader.widened(run, r, i);
      code.set(words);
      this.#rows.forEach((vectors, l) => {
        const products = this.#products[l][c];
        code.get(words).get(vectors[i]).op("i32x4.dot_i16x8_s");
        if (i > 0) code.get(products).op("i32x4.add");
        code.set(products);
      });
    }
  }

  /** 4-bit and 6-bit codes: pairs of products of bytes, whose sums of four stay below 2¹⁵. */
  #narrow(run: Local, r: number, words: Local, c: number): void {
    const code = this.#code, high = this.#high, nibbles = 0x0f0f0f0f;
    const mask = () => code.i32x4(nibbles, nibbles, nibbles, nibbles).op("v128.and");
    this.reader.words(run, r, 0);
    code.tee(words).i32(4).op("i32x4.shr_u");
    mask().set(high).get(words);
    mask().set(words);
    if (this.reader.format.bits === 6) this.#upper(run, r, words, high);
    this.#rows.forEach(([even, odd, start], l) => {
      this.#pairs(even, words);
      this.#pairs(odd, high);
      code.op("i16x8.add");
      if (start !== undefined) code.get(start).op("i16x8.add");
      if (this.reader.groups > 1) {
        this.reader.groupScales(run, r);
        code.op("i32x4.dot_i16x8_s");
      } else code.op("i32x4.extadd_pairwise_i16x8_s");
      code.set(this.#products[l][c]);
    });
  }

  /** Puts the two upper bits on top of each code: runs r and r + 1 of a batch, r even, have theirs in the same words. */
  #upper(run: Local, r: number, even: Local, odd: Local): void {
    const code = this.#code, pairs = code.local("v128");
    const masked = (bits: number) => code.i32x4(bits, bits, bits, bits).op("v128.and");
    this.reader.highWords(run, r);
    if (r % 2 === 1) code.i32(16).op("i32x4.shr_u").set(pairs);
    else masked(0xffff).set(pairs);
    // From four bits each, for an even code and the odd one after it, to a byte each.
    for (const [shift, bits] of [[8, 0x00ff00ff], [4, 0x0f0f0f0f]]) {
      code.get(pairs).get(pairs).i32(shift).op("i32x4.shl", "v128.or");
      masked(bits).set(pairs);
    }
    code.get(pairs);
    masked(0x03030303).i32(4).op("i32x4.shl").get(even).op("v128.or").set(even).get(pairs);
    masked(0x0c0c0c0c).i32(2).op("i32x4.shl").get(odd).op("v128.or").set(odd);
    code.release("v128", pairs);
  }

  /** Pushes the sums of pairs of products of bytes with codes of up to 7 bits, for which all engines agree. */
  #pairs(bytes: Local, codes: Local): void {
    const code = this.#code;
    if (this.reader.relaxed) {
      code.get(bytes).get(codes).op("i16x8.relaxed_dot_i8x16_i7x16_s");
      return;
    }
    for (const half of ["i16x8.extmul_low_i8x16_s", "i16x8.extmul_high_i8x16_s"] as const) {
      code.get(bytes).get(codes).op(half, "i32x4.extadd_pairwise_i16x8_s");
    }
    code.op("i16x8.narrow_i32x4_s");
  }

  flush(c: number, r: number): void {
    const code = this.#code;
    this.sums.forEach((row, l) => {
      const scale = this.#scales[l][c];
      code.get(this.#products[l][c]).op("f32x4.convert_i32x4_s");
      code.get(scale).get(scale).shuffle(r, r, r, r);
      code.op("f32x4.mul").get(row[c]).op("f32x4.add").set(row[c]);
    });
  }
}
