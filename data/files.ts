/** Data as files: which there are, and how one is opened. */
import { DataError } from "../core/errors.ts";
import { openBytes, pathKind } from "../models/load/files/byte_source.ts";
import type { TextTokenizer } from "./examples.ts";
import { indexRows, wholeRows } from "./jsonl.ts";
import type { DataOptions, DataSet } from "./data_set.ts";
import { indexText, wholeText } from "./text.ts";
import { BadRow } from "./rows.ts";

/** How a file of another format becomes lines of JSON. */
function remedyOf(path: string): string {
  if (/\.json$/i.test(path)) return ": jq -c '.[]' makes lines of a JSON array";
  const reader = /\.(csv|tsv|parquet|feather|xlsx?)$/i.exec(path)?.[1].toLowerCase();
  if (reader === undefined) return "";
  const read = { csv: "read_csv", tsv: "read_table", parquet: "read_parquet", feather: "read_feather" }[reader] ??
    "read_excel";
  return `; pandas makes one: pandas.${read}(…).to_json("rows.jsonl", orient="records", lines=True)`;
}

/** The files of a data folder, or one file alone. */
export interface Splits {
  readonly train: string;
  readonly valid?: string;
  readonly test?: string;
  /** A file of rows to evaluate on beside a train file that was named alone: it is not used. */
  readonly besides?: string;
}

/** Other usual names for the files of a data folder. */
const splitNames = {
  train: ["train", "training"],
  valid: ["valid", "validation", "val", "dev", "eval", "evaluation"],
  test: ["test", "testing"],
};

/**
 * The files that a path names: itself, or in a folder `train`, `valid` (or `validation`, `val`, `dev`, `eval`) and `test`,
 * each as .jsonl or .txt.
 *
 * @throws {DataError} when there is no such path, or a folder has no train file or two of one kind
 */
export function findSplits(path: string): Splits {
  const kind = pathKind(path);
  if (kind === null) {
    throw new DataError(
      `There is no file or folder ${path}: give --data with a .jsonl or .txt file, or a folder of them.`,
    );
  }
  if (kind !== "folder") return { train: path, ...besides(path) };
  const train = findSplit(path, "train");
  if (train === undefined) {
    throw new DataError(
      `${path} has no train.jsonl or train.txt: give a folder with train, and optionally valid and test, or one file.`,
    );
  }
  return { train, valid: findSplit(path, "valid"), test: findSplit(path, "test") };
}

function findSplit(folder: string, split: keyof typeof splitNames): string | undefined {
  const found = splitNames[split].flatMap((name) =>
    ["jsonl", "txt"].map((end) => `${folder.replace(/(.)[/\\]+$/, "$1")}/${name}.${end}`)
  )
    .filter((file) => pathKind(file) === "file");
  if (found.length > 1) throw new DataError(`${found[0]} and ${found[1]} are both there: keep one of them.`);
  return found[0];
}

/** Rows to evaluate on that lie beside a train file which is given alone. */
function besides(path: string): Pick<Splits, "besides"> {
  const [, folder, name] = /^(.*?)([^/\\]*)\.(?:jsonl|txt)$/.exec(path) ?? [];
  if (!splitNames.train.includes(name)) return {};
  const found = findSplit(folder === "" ? "." : folder.replace(/(?<=.)[/\\]$/, ""), "valid");
  return found === undefined ? {} : { besides: found };
}

/** The most bytes of a file that is held: of rows, at some 20 bytes a byte, and of one text, tokenised whole at some 100. */
const maxRows = 2 ** 24, maxTextLength = 2 ** 22;

/**
 * Opens a file of data: `.jsonl` (one row per line) or `.txt` (one text, cut into runs of `context` tokens). Every line is
 * parsed at once; rows of a large file are tokenised later, when they are asked for.
 *
 * @throws {FileError} where the file can't be read
 * @throws {DataError} naming the file and the line that can't be learned from
 */
export function openFile(path: string, tokenizer: TextTokenizer, options: DataOptions): DataSet {
  if (!/\.(jsonl|txt)$/.test(path)) {
    throw new DataError(
      `Cannot read data from ${path}: its name must end in .jsonl (one row per line) or .txt (plain text)${
        remedyOf(path)
      }.`,
    );
  }
  const source = openBytes(path);
  const isText = path.endsWith(".txt");
  const streamed = source.size > (options.streamAbove ?? (isText ? maxTextLength : maxRows));
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
    const read = isText ? streamed ? indexText : wholeText : streamed ? indexRows : wholeRows;
    const found = read(source, tokenizer, options, attempt);
    if (found.length === 0) {
      throw new DataError(
        skips.count > 0
          ? `${path} has no row that can be used: all ${skips.count} are bad, the first because ${skips.first[0]}`
          : `${path} is empty: give it at least one row, or leave the file out.`,
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
