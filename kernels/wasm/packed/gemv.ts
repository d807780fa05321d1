/** Dot products of a few rows with packed rows: codes are multiplied as they are, and scaled once a group. */
import { packedFormats, type PackedType } from "../../../core/packed/blocks.ts";
import type { Limit, Local } from "../assembler.ts";
import type { PackedReader } from "./packed.ts";
import { ByteProducts } from "./bytes.ts";
import { FloatProducts } from "./floats.ts";
import type { Column, PreparedRows, RunProducts } from "./rows.ts";

/** The packed side of dot products: its type, how many values the whole operand has, and runs from one row to the next. */
export interface PackedGemv {
  readonly type: PackedType;
  readonly size: number;
  readonly rowRuns: number;
  readonly rows: PreparedRows;
}

/** Runs whose scales are computed at once, one in each lane: as many as there are, then what is left. */
const batches = [4, 2, 1] as const;

/**
 * Packed rows that are multiplied at once with `rows` left ones: each vector of these is then loaded, and its address
 * checked, once for all of them. More rows, or what looks codes up, would not fit the registers.
 */
export function packedColumns(type: PackedType, rows: number, rounded: boolean): 4 | 1 {
  const { group, code } = packedFormats[type];
  return rows <= 2 && (group === 32 || rounded) && code !== "table" ? 4 : 1;
}

/**
 * Adds to `sums[row][column]` the products of prepared rows with packed rows, `depth` values long: Σ scale·Σ code·x +
 * shift·Σ x. The first packed row begins with run `run`, and each has a column of sums. The locals of `rows` are advanced.
 */
export function emitPackedGemv(
  reader: PackedReader,
  sums: readonly (readonly Local[])[],
  { rows, rowRuns }: PackedGemv,
  run: Local,
  depth: Limit,
): void {
  const { code } = reader, k = code.local("i32");
  const advance = (runs: number) => {
    code.get(run).i32(runs).op("i32.add").set(run);
    code.get(rows.at).i32(rows.runBytes * runs).op("i32.add").set(rows.at);
    code.get(rows.sums).i32(4 * runs).op("i32.add").set(rows.sums);
  };
  const ahead = sums[0].length > 1 ? new ReadAhead(reader, run, rowRuns * sums[0].length) : null;
  code.i32(0).set(k);
  if (reader.groups > 1 && !rows.rounded) {
    const dots = new FloatProducts(reader, sums, rows);
    code.loopUpTo(k, depth, 32, () => {
      reader.run(run, (i) => dots.add(0, 0, i), () => dots.scaled(0, () => code.get(reader.scale)));
      advance(1);
    });
    dots.release();
  } else {
    const dots: RunProducts = new (rows.rounded ? ByteProducts : FloatProducts)(reader, sums, rows);
    const columns = sums[0].map((_, c): Column => {
      return { run: c === 0 ? run : code.local("i32"), words: code.local("v128") };
    });
    for (const batch of batches) {
      code.loopUpTo(k, depth, 32 * batch, () => {
        columns.forEach((column, c) => {
          if (c > 0) code.get(run).i32(c * rowRuns).op("i32.add").set(column.run);
          reader.scales(column.run, reader.groups > 1 ? null : 0, 1, batch - 1);
          dots.batch(c, batch);
        });
        ahead?.read(batch * columns.length);
        for (let r = 0; r < batch; r++) {
          dots.run(columns, r);
          columns.forEach((_, c) => dots.flush(c, r));
        }
        advance(batch);
      });
    }
    code.release("v128", ...columns.map(({ words }) => words));
    code.release("i32", ...columns.slice(1).map((column) => column.run));
    dots.release();
  }
  code.release("i32", k);
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
