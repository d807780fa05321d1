/** Dot products of a few f32 rows with packed rows: codes are multiplied as they are, and scaled once a group. */
import { type PackedFormat, packedFormats, type PackedType } from "../../core/packed.ts";
import type { Code, Limit, Local } from "./assembler.ts";
import type { PackedReader } from "./packed.ts";

/** The packed side of dot products: its type, how many values the whole operand has, and runs from one row to the next. */
export interface PackedDots {
  readonly type: PackedType;
  readonly size: number;
  readonly rowRuns: number;
  readonly rows: PreparedRows;
}

/** Runs whose scales are computed at once, one in each lane: as many as there are, then what is left. */
const batches = [4, 2, 1] as const;

/** The sums of the rows' runs that belong to a batch. */
const batchLoads = { 4: "v128.load", 2: "v128.load64_zero", 1: "v128.load32_zero" } as const;

/** Whether codes are multiplied where they stand in their words, times 16ʲ, and rows are divided by that beforehand. */
function inPlace({ bits, code }: PackedFormat): boolean {
  return bits === 4 && typeof code === "object";
}

/**
 * Packed rows that are multiplied at once with `rows` left ones: each vector of these is then loaded, and its address
 * checked, once for all of them. More rows, or what looks codes up, would not fit the registers.
 */
export function packedColumns(type: PackedType, rows: number): 4 | 1 {
  const { group, code } = packedFormats[type];
  return rows <= 2 && group === 32 && code !== "table" ? 4 : 1;
}

/** The rows that packed rows are multiplied with, made ready once for many of them. */
export interface PreparedRows {
  /** The address of the first row, and bytes from one to the next. */
  readonly at: Local;
  readonly rowBytes: number;
  /** The address of the rows' sums of each run, row by row, and bytes from one row's to the next. */
  readonly sums: Local;
  readonly sumBytes: number;
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
  const [k, from, at, line] = Array.from({ length: 4 }, () => code.local("i32"));
  const sum = code.local("v128"), value = code.local("v128");
  const rowBytes = depth * 4, sumBytes = depth / 32 * 4;
  code.get(to).i32(scaled ? rows * rowBytes : 0).op("i32.add").set(sums);
  if (scaled || reader.format.shifted) {
    for (let row = 0; row < rows; row++) {
      code.get(left).i32(row * leftRow).op("i32.add").set(from).get(to).i32(row * rowBytes).op("i32.add").set(at);
      code.get(sums).i32(row * sumBytes).op("i32.add").set(line).i32(0).set(k);
      code.loopUpTo(k, { constant: depth }, 32, () => {
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
        code.get(from).i32(128).op("i32.add").set(from).get(at).i32(128).op("i32.add").set(at);
        code.get(line).i32(4).op("i32.add").set(line);
      });
    }
  }
  code.release("i32", k, from, at, line);
  code.release("v128", sum, value);
  return scaled ? { at: to, rowBytes, sums, sumBytes } : { at: left, rowBytes: leftRow, sums, sumBytes };
}

/**
 * Adds to `sums[row][column]` the products of prepared rows with packed rows, `depth` values long: Σ scale·Σ code·x +
 * shift·Σ x. The first packed row begins with run `run`, and each has a column of sums. The locals of `rows` are advanced.
 */
export function emitPackedDots(
  reader: PackedReader,
  sums: readonly (readonly Local[])[],
  { rows, rowRuns }: PackedDots,
  run: Local,
  depth: Limit,
): void {
  const { code } = reader, k = code.local("i32");
  const dots = new RunDots(reader, sums, rows);
  const advance = (runs: number) => {
    code.get(run).i32(runs).op("i32.add").set(run);
    code.get(rows.at).i32(128 * runs).op("i32.add").set(rows.at);
    code.get(rows.sums).i32(4 * runs).op("i32.add").set(rows.sums);
  };
  const ahead = sums[0].length > 1 ? new ReadAhead(reader, run, rowRuns * sums[0].length) : null;
  code.i32(0).set(k);
  if (reader.groups > 1) {
    code.loopUpTo(k, depth, 32, () => {
      reader.run(run, (i) => dots.add(0, 0, i), () => dots.flush(0, () => code.get(reader.scale)));
      advance(1);
    });
  } else {
    const columns = sums[0].map((_, c) => ({
      run: c === 0 ? run : code.local("i32"),
      scale: code.local("v128"),
      words: code.local("v128"),
    }));
    for (const batch of batches) {
      code.loopUpTo(k, depth, 32 * batch, () => {
        columns.forEach((column, c) => {
          if (c > 0) code.get(run).i32(c * rowRuns).op("i32.add").set(column.run);
          reader.scales(column.run, 0, 1, batch - 1);
          code.get(reader.scale).set(column.scale);
          dots.shift(c, batchLoads[batch]);
        });
        ahead?.read(batch * columns.length);
        for (let r = 0; r < batch; r++) {
          dots.run(columns, r);
          columns.forEach(({ scale }, c) => dots.flush(c, () => code.get(scale).get(scale).shuffle(r, r, r, r)));
        }
        advance(batch);
      });
    }
    code.release("v128", ...columns.flatMap(({ scale, words }) => [scale, words]));
    code.release("i32", ...columns.slice(1).map((column) => column.run));
  }
  code.release("i32", k);
  dots.release();
  ahead?.finish(code.parameter(0));
}

/**
 * Reads the codes of the following rows in the order in which they lie, while some rows are multiplied side by side:
 * hardware fetches ahead what is read in order, but hardly a few short streams in turn.
 */
class ReadAhead {
  readonly #at: Local;
  readonly #seen: Local;

  /** `runs` are those of the rows that are multiplied at once, the first of which is `run`. */
  constructor(readonly reader: PackedReader, run: Local, runs: number) {
    const { code } = reader;
    [this.#at, this.#seen] = [code.local("i32"), code.local("i32")];
    // The last rows read themselves.
    code.get(run).i32(runs).op("i32.add").set(this.#at);
    code.limit(this.#at, { constant: Math.ceil(reader.size / 32) - runs });
    code.get(reader.pointer).get(this.#at).i32(reader.runBytes).op("i32.mul", "i32.add").set(this.#at);
    code.i32(0).set(this.#seen);
  }

  /** Reads a word of each line of the next so many runs. */
  read(runs: number): void {
    const { code, runBytes } = this.reader, bytes = runs * runBytes;
    for (let at = 0; at < bytes; at += 64) {
      code.get(this.#at).memory("i32.load", at).get(this.#seen).op("i32.or").set(this.#seen);
    }
    code.get(this.#at).i32(bytes).op("i32.add").set(this.#at);
  }

  /** Writes at `to` what makes the reads count, which no one needs. */
  finish(to: Local): void {
    this.reader.code.get(to).get(this.#seen).memory("i32.store");
    this.reader.code.release("i32", this.#at, this.#seen);
  }
}

/** The unscaled dot products of a run, of every row with every column. */
class RunDots {
  readonly #code: Code;
  /** A few independent sums each, where rows and columns are too few to hide the latency of additions. */
  readonly #parts: readonly (readonly (readonly Local[])[])[];
  readonly #xs: readonly Local[];
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
    this.#value = code.local("v128");
  }

  release(): void {
    this.#code.release("v128", ...this.#parts.flat(2), ...this.#xs, this.#value);
  }

  /** Run `r` of a batch. */
  run(columns: readonly { readonly run: Local; readonly words: Local }[], r: number): void {
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

  /** Adds a column's parts, scaled, to its sums. */
  flush(column: number, scale: () => void): void {
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

  /** Adds the reader's shift times the rows' sums. */
  shift(column: number, load: (typeof batchLoads)[1 | 2 | 4]): void {
    const code = this.#code, { sums, sumBytes } = this.rows;
    if (!this.reader.format.shifted) return;
    this.sums.forEach((row, l) => {
      code.get(this.reader.shift).get(sums).memory(load, l * sumBytes);
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
