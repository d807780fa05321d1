/** Data as files: which there are, and how one is opened. */
import { DataError } from "../core/errors.ts";
import { openBytes, pathKind } from "../models/load/byte_source.ts";
import type { TextTokenizer } from "./data.ts";
import { indexRows, wholeRows } from "./data_rows.ts";
import type { DataOptions, DataSet } from "./data_set.ts";
import { indexText, wholeText } from "./data_text.ts";
import { BadRow } from "./rows.ts";

/** The files of a data folder, or one file alone. */
export interface Splits {
  readonly train: string;
  readonly valid?: string;
  readonly test?: string;
}

/**
 * The files that a path names: itself, or in a folder `train`, `valid` and `test`, each as .jsonl or .txt.
 *
 * @throws {DataError} when a folder has no train file, or two of one name
 */
export function findSplits(path: string): Splits {
  if (pathKind(path) !== "folder") return { train: path };
  const find = (name: string): string | undefined => {
    const found = ["jsonl", "txt"].map((end) => `${path}/${name}.${end}`).filter((file) => pathKind(file) === "file");
    if (found.length === 2) throw new DataError(`${found[0]} and ${found[1]} are both there: keep one of them.`);
    return found[0];
  };
  const train = find("train");
  if (train === undefined) {
    throw new DataError(
      `${path} has no train.jsonl or train.txt: give a folder with train, and if you like valid and test, or one file.`,
    );
  }
  return { train, valid: find("valid"), test: find("test") };
}

/**
 * Opens a file of data: `.jsonl` (a row a line) or `.txt` (one text, cut into runs of `context` tokens). Every line is
 * parsed at once; rows of a large file are tokenised later, when they are asked for.
 *
 * @throws {FileError} where the file can't be read
 * @throws {DataError} naming the file and the line that can't be learned from
 */
export function openData(path: string, tokenizer: TextTokenizer, options: DataOptions): DataSet {
  if (!/\.(jsonl|txt)$/.test(path)) {
    throw new DataError(
      `Cannot read data from ${path}: its name must end in .jsonl (a row a line) or .txt (plain text).`,
    );
  }
  const source = openBytes(path);
  const streamed = source.size > (options.streamAbove ?? 2 ** 26);
  const skips = { count: 0, first: [] as string[] };
  /** What `make` gives, or where it throws for a bad row that may be left out, undefined. */
  const attempt = <T>(make: () => T): T | undefined => {
    try {
      return make();
    } catch (error) {
      if (!(error instanceof BadRow && options.skipBadRows)) throw error;
      if (skips.count++ < 3) skips.first.push(error.message);
    }
  };
  try {
    const read = path.endsWith(".txt") ? streamed ? indexText : wholeText : streamed ? indexRows : wholeRows;
    const found = read(source, tokenizer, options, attempt);
    if (found.length === 0) {
      throw new DataError(
        skips.count > 0
          ? `${path} has no row that can be used: all ${skips.count} are bad, the first because ${skips.first[0]}`
          : `${path} is empty: there is nothing to learn from.`,
      );
    }
    return {
      ...found,
      path,
      streamed,
      skipped: skips,
      [Symbol.dispose]: () => source[Symbol.dispose](),
    };
  } catch (error) {
    source[Symbol.dispose]();
    throw error;
  }
}
