/** What f32 rows become before packed rows are multiplied with them, and how the runs of both are multiplied. */
import type { Code, Local } from "../assembler.ts";

/** The sums of the rows' runs that belong to a batch. */
export const batchLoads = { 4: "v128.load", 2: "v128.load64_zero", 1: "v128.load32_zero" } as const;

/** The rows that packed rows are multiplied with, made ready once for many of them. */
export interface PreparedRows {
  /** The address of the first row, bytes from one to the next, and those of a run. */
  readonly at: Local;
  readonly rowBytes: number;
  readonly runBytes: number;
  /** The address of the rows' sums of each run, row by row, and bytes from one row's to the next. */
  readonly sums: Local;
  readonly sumBytes: number;
  /** Whether they are rounded to bytes, to be multiplied as integers. */
  readonly rounded: boolean;
}

/** f32 rows in memory. */
export interface SourceRows {
  readonly at: Local;
  readonly rowBytes: number;
  readonly rows: number;
  readonly depth: number;
}

/** Walks all rows by runs of 32 values: `from` is the run's address, `at` where it is prepared, `line` where its sum goes. */
export function emitEachRun(
  code: Code,
  source: SourceRows,
  to: Omit<PreparedRows, "rounded">,
  emit: (from: Local, at: Local, line: Local) => void,
): void {
  const [k, from, at, line] = Array.from({ length: 4 }, () => code.local("i32"));
  for (let row = 0; row < source.rows; row++) {
    code.get(source.at).i32(row * source.rowBytes).op("i32.add").set(from);
    code.get(to.at).i32(row * to.rowBytes).op("i32.add").set(at);
    code.get(to.sums).i32(row * to.sumBytes).op("i32.add").set(line).i32(0).set(k);
    code.loopUpTo(k, { constant: source.depth }, 32, () => {
      emit(from, at, line);
      code.get(from).i32(128).op("i32.add").set(from).get(at).i32(to.runBytes).op("i32.add").set(at);
      code.get(line).i32(4).op("i32.add").set(line);
    });
  }
  code.release("i32", k, from, at, line);
}

/** A packed row beside others: its run, and a vector for its codes. */
export interface Column {
  readonly run: Local;
  readonly words: Local;
}

/** How runs of every row are multiplied with those of every column. */
export interface RunProducts {
  /** The reader has the scales and shifts of so many runs of column `c`. */
  batch(c: number, runs: 1 | 2 | 4): void;
  /** Multiplies run `r` of a batch. */
  run(columns: readonly Column[], r: number): void;
  /** Adds the products of run `r` with column `c`, scaled, to its sums. */
  flush(c: number, r: number): void;
  release(): void;
}
