/** Dot products of f32 rows with packed rows: codes become f32, and are scaled once a run. */
import type { PackedFormat } from "../../../core/packed/blocks.ts";
import type { Code, Local } from "../assembler.ts";
import type { PackedReader } from "./packed.ts";
import { batchLoads, type Column, emitEachRun, type PreparedRows, type RunProducts } from "./rows.ts";

/** Whether codes are multiplied where they stand in their words, times 16ʲ, and rows are divided by that beforehand. */
function inPlace({ bits, code }: PackedFormat): boolean {
  return bits === 4 && typeof code === "object";
}

/** Bytes of scratch that preparing rows of `depth` values takes. */
export function preparedBytes(rows: number, depth: number): number {
  return rows * (depth + depth / 32) * 4;
}

/**
 * Prepares `rows` rows of `depth` f32 at `left`, `leftRow` bytes apart, in the scratch at `to`; `sums` is set to where their
 * sums lie.
 */
export function emitPreparedRows(
  reader: PackedReader,
  left: Local,
  leftRow: number,
  rows: number,
  depth: number,
  to: Local,
  sums: Local,
): PreparedRows {
  const { code } = reader, scaled = inPlace(reader.format);
  const sum = code.local("v128"), value = code.local("v128");
  const prepared = { at: to, rowBytes: depth * 4, runBytes: 128, sums, sumBytes: depth / 32 * 4 };
  code.get(to).i32(scaled ? rows * prepared.rowBytes : 0).op("i32.add").set(sums);
  if (scaled || reader.format.shifted) {
    emitEachRun(code, { at: left, rowBytes: leftRow, rows, depth }, prepared, (from, at, line) => {
      for (let i = 0; i < 8; i++) {
        code.get(from).memory("v128.load", i * 16).set(value);
        code.get(value);
        if (i > 0) code.get(sum).op("f32x4.add");
        code.set(sum);
        if (scaled) code.get(at).get(value).f32x4(16 ** -(i & 3)).op("f32x4.mul").memory("v128.store", i * 16);
      }
      code.get(sum).get(sum).get(sum).shuffle(2, 3, 0, 1).op("f32x4.add").set(sum);
      code.get(line).get(sum).get(sum).get(sum).shuffle(1, 0, 3, 2).op("f32x4.add");
      code.laneMemory("v128.store32_lane", 0);
    });
  }
  code.release("v128", sum, value);
  return { ...prepared, ...(!scaled && { at: left, rowBytes: leftRow }), rounded: false };
}

/** The products of a run in f32, of every row with every column. */
export class FloatProducts implements RunProducts {
  readonly #code: Code;
  /** A few independent sums each, where rows and columns are too few to hide the latency of additions. */
  readonly #parts: readonly (readonly (readonly Local[])[])[];
  readonly #xs: readonly Local[];
  /** Each column's scales of the runs of a batch. */
  readonly #scales: readonly Local[];
  readonly #value: Local;
  readonly #started = new Set<Local>();

  constructor(
    readonly reader: PackedReader,
    readonly sums: readonly (readonly Local[])[],
    readonly rows: PreparedRows,
  ) {
    const code = this.#code = reader.code, chains = sums.length * sums[0].length < 4 ? 2 : 1;
    this.#parts = sums.map((row) => row.map(() => Array.from({ length: chains }, () => code.local("v128"))));
    this.#xs = sums.map(() => code.local("v128"));
    this.#scales = sums[0].map(() => code.local("v128"));
    this.#value = code.local("v128");
  }

  release(): void {
    this.#code.release("v128", ...this.#parts.flat(2), ...this.#xs, ...this.#scales, this.#value);
  }

  run(columns: readonly Column[], r: number): void {
    const code = this.#code, { reader } = this, { format } = reader, scaled = inPlace(format);
    for (let part = 0; part < reader.runBytes / 16; part++) {
      for (const { run, words } of columns) {
        reader.words(run, r, part);
        code.set(words);
      }
      if (format.code === "table") {
        reader.codes(columns[0].words, (j) => this.add(0, r, 16 * part + 4 * j));
        continue;
      }
      for (let j = 0; j < (format.bits === 8 ? 4 : 8); j++) {
        const i = 16 * part + 4 * j;
        // A vector of the rows, then every column times it.
        columns.forEach(({ words }, c) => {
          if (scaled) reader.placedNumber(words, j);
          else reader.number(words, j);
          this.add(c, r, i);
        });
      }
    }
  }

  /** Adds to column `column` values i … i + 3 of it, on the stack, times the same of each row of run `r` of a batch. */
  add(column: number, r: number, i: number): void {
    const code = this.#code, { at, rowBytes } = this.rows;
    code.set(this.#value);
    this.#parts.forEach((row, l) => {
      if (column === 0) code.get(at).memory("v128.load", l * rowBytes + r * 128 + i * 4).set(this.#xs[l]);
      const sum = row[column][(i >> 2) % row[column].length];
      code.get(this.#value).get(this.#xs[l]);
      if (this.#started.has(sum)) this.#addProduct(sum);
      else code.op("f32x4.mul").set(sum);
      this.#started.add(sum);
    });
  }

  flush(c: number, r: number): void {
    const scale = this.#scales[c];
    this.scaled(c, () => this.#code.get(scale).get(scale).shuffle(r, r, r, r));
  }

  /** Adds a column's parts, times the scale that is pushed, to its sums. */
  scaled(column: number, scale: () => void): void {
    const code = this.#code;
    this.#parts.forEach((row, l) => {
      const [first, ...others] = row[column];
      scale();
      code.get(first);
      for (const part of others) code.get(part).op("f32x4.add");
      this.#addProduct(this.sums[l][column]);
      row[column].forEach((part) => this.#started.delete(part));
    });
  }

  /** Keeps the scales, and adds the reader's shift times the rows' sums. */
  batch(column: number, runs: 1 | 2 | 4): void {
    const code = this.#code, { sums, sumBytes } = this.rows;
    code.get(this.reader.scale).set(this.#scales[column]);
    if (!this.reader.format.shifted) return;
    this.sums.forEach((row, l) => {
      code.get(this.reader.shift).get(sums).memory(batchLoads[runs], l * sumBytes);
      this.#addProduct(row[column]);
    });
  }

  /** sum += the product of the two vectors on the stack. */
  #addProduct(sum: Local): void {
    const code = this.#code;
    if (this.reader.relaxed) code.get(sum).op("f32x4.relaxed_madd").set(sum);
    else code.op("f32x4.mul").get(sum).op("f32x4.add").set(sum);
  }
}
