/** An opened data file: examples by index, held in memory or read when they are needed. */
import type { EncodeRowOptions, Example } from "./examples.ts";
import type { RowReader } from "./rows.ts";

/** Examples by their index. `undefined` is a row that can't be used and is left out. An array is one. */
export interface Examples {
  /** How many. */
  readonly length: number;
  /** One of them. */
  at(index: number): Example | undefined;
  /** Whether an example is read and tokenised each time it is asked for. */
  readonly streamed?: boolean;
}

/** A file's examples. */
export interface DataSet extends Examples, Disposable {
  /** The file. */
  readonly path: string;
  /** `prompt and completion`, `text and label (2 classes)`, … */
  readonly format: string;
  /** The classes that the labels name; none where rows have no labels. */
  readonly classes: readonly string[];
  /** Keys of rows that nothing reads, and in how many rows each stands. */
  readonly unused: ReadonlyMap<string, number>;
  /** SHA-256 of the file's bytes, in hexadecimal. */
  readonly hash: string;
  /** Whether rows are read when they are needed. */
  readonly streamed: boolean;
  /** How many rows were left out so far, and what was wrong with the first of them. */
  readonly skipped: { readonly count: number; readonly first: readonly string[] };
}

/** How a file is read. */
export interface DataOptions extends EncodeRowOptions {
  /** Who may learn from its rows; those that fit several are the first's. */
  readonly readers: readonly RowReader[];
  /** Who is to learn from them all, if that is settled. */
  readonly reader?: RowReader;
  /** The most tokens of a row that the model takes, */
  readonly context: number;
  /** and that are wanted, if fewer. */
  readonly seq?: number;
  /** The rows of the model's embedding; a row with a token id beyond them is bad. Default: no limit. */
  readonly tableRows?: number;
  /**
   * What becomes of a .jsonl row with more tokens than that: it is refused (`error`, the default), cut after them (`cut`), or
   * made several examples (`chunk`), of which those with nothing to learn are left out.
   */
  readonly overflow?: "error" | "cut" | "chunk";
  /** Leave rows that can't be used out, and count them, in place of refusing the file. */
  readonly skipBadRows?: boolean;
  /**
   * Files of more bytes than this are not held in memory: their rows are read and tokenised on demand. Default 16 MB, and of
   * text 4 MB.
   */
  readonly streamAbove?: number;
}

/** What reading a file finds, before it is a {@link DataSet}. */
export type FoundData = Pick<DataSet, "length" | "at" | "format" | "classes" | "unused" | "hash">;

/** Converts a row: undefined if the row is bad and is to be skipped. */
export type Attempt = <T>(make: () => T) => T | undefined;

/** Examples in memory. */
export function heldExamples(examples: readonly Example[]): Pick<DataSet, "length" | "at"> {
  return { length: examples.length, at: (index) => examples[index] };
}
