/** Data as files: which there are, what their rows are, and their examples, held in memory or read when they are needed. */
import { createHash } from "node:crypto";
import { DataError } from "../core/errors.ts";
import { type ByteSource, openBytes, pathKind } from "../models/load/byte_source.ts";
import { type EncodeOptions, encodeRow, type Example, IGNORED, type TextTokenizer } from "./data.ts";
import { type Line, linesOf, NumberList } from "./line_index.ts";
import { BadRow, describeKinds, parseRow, type Row, type RowKind } from "./rows.ts";

/** Examples by their index. `undefined` is a row that can't be used and is left out. An array is one. */
export interface Examples {
  readonly length: number;
  at(index: number): Example | undefined;
  /** Whether an example is read and tokenised each time it is asked for. */
  readonly streamed?: boolean;
}

/** A file's examples. */
export interface DataSet extends Examples, Disposable {
  readonly path: string;
  /** `prompt and completion`, `text and label (2 classes)`, … */
  readonly format: string;
  /** The classes that the labels name; none where rows have no labels. */
  readonly classes: readonly string[];
  /** SHA-256 of the file's bytes, in hexadecimal. */
  readonly hash: string;
  readonly streamed: boolean;
  /** How many rows were left out so far, and what was wrong with the first of them. */
  readonly skipped: { readonly count: number; readonly first: readonly string[] };
}

/** How a file is read. */
export interface DataOptions extends EncodeOptions {
  /** The most tokens of a row that the model takes, */
  readonly context: number;
  /** and that are wanted, if fewer. */
  readonly seq?: number;
  /** Leave rows that can't be used out, and count them, in place of refusing the file. */
  readonly skipBadRows?: boolean;
  /** Files of more bytes than this are not held in memory: their rows are read and tokenised on demand. Default 64 MB. */
  readonly streamAbove?: number;
}

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

type Found = Pick<DataSet, "length" | "at" | "format" | "classes" | "hash">;
type Attempt = <T>(make: () => T) => T | undefined;

/** Every row of a .jsonl file that parses, in order, with what is known of them at the end. */
function scanRows(source: ByteSource, attempt: Attempt, visit: (row: Row, line: Line) => void) {
  const hash = createHash("sha256");
  const counts = new Map<RowKind, number>();
  const labels = new Set<string>();
  for (const line of linesOf(source, (bytes) => hash.update(bytes))) {
    if (isBlank(line.bytes)) continue;
    const place = `${source.name} line ${line.number}`;
    const found = attempt(() => parseRow(decodeUtf8(line.bytes, place), place));
    if (found === undefined) continue;
    counts.set(found.kind, (counts.get(found.kind) ?? 0) + 1);
    if ("text" in found.row && found.row.label !== undefined) labels.add(found.row.label);
    visit(found.row, line);
  }
  if (counts.has("text and label") && counts.size > 1) {
    throw new DataError(
      `${source.name} mixes ${describeKinds(counts)}: rows with a label teach a classifier, and then ` +
        "every row needs one.",
    );
  }
  const classes = sortLabels(labels);
  const kinds = counts.size === 0 ? "nothing" : describeKinds(counts);
  const format = classes.length > 0 ? `${kinds} (${classes.length} classes)` : kinds;
  return { format, classes, hash: hash.digest("hex") };
}

/** Numbers by their size, names by the alphabet. */
function sortLabels(labels: ReadonlySet<string>): string[] {
  return [...labels].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
}

function wholeRows(source: ByteSource, tokenizer: TextTokenizer, options: DataOptions, attempt: Attempt): Found {
  const rows: { row: Row; place: string }[] = [];
  const known = scanRows(
    source,
    attempt,
    (row, { number }) => rows.push({ row, place: `${source.name} line ${number}` }),
  );
  const encode = rowEncoder(tokenizer, { classes: known.classes, ...options });
  const examples = rows.flatMap(({ row, place }) => attempt(() => encode(row, place)) ?? []);
  return { ...known, ...heldExamples(examples) };
}

function indexRows(source: ByteSource, tokenizer: TextTokenizer, options: DataOptions, attempt: Attempt): Found {
  const [offsets, numbers, bad] = [new NumberList(), new NumberList(), new Set<number>()];
  const known = scanRows(source, attempt, (_, { offset, number }) => {
    offsets.push(offset);
    numbers.push(number);
  });
  const encode = rowEncoder(tokenizer, { classes: known.classes, ...options });
  return {
    ...known,
    length: offsets.length,
    at: (index) => {
      if (bad.has(index)) return undefined;
      const start = offsets.at(index);
      const bytes = new Uint8Array((index + 1 < offsets.length ? offsets.at(index + 1) : source.size) - start);
      source.read(start, bytes);
      const end = bytes.indexOf(10);
      const place = `${source.name} line ${numbers.at(index)}`;
      const text = decodeUtf8(end < 0 ? bytes : bytes.subarray(0, end), place);
      const example = attempt(() => encode(parseRow(text, place).row, place));
      if (example === undefined) bad.add(index);
      return example;
    },
  };
}

/** One text, tokenised whole and cut into runs of the context's length. */
function wholeText(source: ByteSource, tokenizer: TextTokenizer, { context, seq = context }: DataOptions): Found {
  const size = Math.min(seq, context);
  const bytes = new Uint8Array(source.size);
  source.read(0, bytes);
  const text = decodeText(bytes, source.name);
  const { ids } = encodeRow({ text: text }, tokenizer);
  const examples: Example[] = [];
  for (let start = 0; start < ids.length && text.trim() !== ""; start += size) {
    const chunk = ids.slice(start, start + size);
    if (chunk.length > 1) examples.push({ ids: chunk, labels: chunk });
  }
  if (examples.length === 0 && text.trim() !== "") {
    throw new DataError(
      `${source.name} is too short: it has ${ids.length} token, and predicting the next one needs at least 2.`,
    );
  }
  const hash = createHash("sha256").update(bytes).digest("hex");
  return { ...heldExamples(examples), format: "plain text", classes: [], hash };
}

/**
 * One text in pieces of whole lines. A piece has at most as many bytes as the context has tokens, and a token is at least a
 * byte: so every piece fits, and nothing of the text is lost. Packing fills the context up again.
 */
function indexText(source: ByteSource, tokenizer: TextTokenizer, { context, seq = context }: DataOptions): Found {
  const hash = createHash("sha256");
  const starts = new NumberList();
  const most = Math.max(1, Math.min(seq, context) - 2); // room for tokens at the beginning and the end
  let begun = 0;
  starts.push(0);
  for (const { bytes, offset, number } of linesOf(source, (bytes) => hash.update(bytes))) {
    decodeUtf8(bytes, `${source.name} line ${number}`);
    const end = offset + bytes.length + 1;
    if (end - begun > most && offset > begun) starts.push(begun = offset);
    // A line that is too long by itself is cut, never within a character.
    while (end - begun > most) {
      let cut = begun + most - offset;
      while (cut > 0 && (bytes[cut] & 0xc0) === 0x80) cut--;
      starts.push(begun = offset + cut);
    }
  }
  const at = (index: number) => {
    const start = starts.at(index);
    const last = index + 1 === starts.length;
    const bytes = new Uint8Array((last ? source.size : starts.at(index + 1)) - start);
    source.read(start, bytes);
    const text = new TextDecoder().decode(bytes);
    const { ids } = last ? encodeRow({ text }, tokenizer) : { ids: tokenizer.encode(text) };
    return ids.length > 1 ? { ids, labels: ids } : undefined;
  };
  return { length: starts.length, at, format: "plain text, in pieces", classes: [], hash: hash.digest("hex") };
}

function heldExamples(examples: readonly Example[]): Pick<DataSet, "length" | "at"> {
  return { length: examples.length, at: (index) => examples[index] };
}

/** Tokenises rows and refuses those that can't be learned from. */
function rowEncoder(tokenizer: TextTokenizer, options: DataOptions): (row: Row, place: string) => Example {
  const { context, seq = context } = options;
  return (row, place) => {
    let example: Example;
    try {
      example = encodeRow(row, tokenizer, options);
    } catch (error) {
      if (error instanceof DataError) throw new BadRow(`${place}: ${error.message}`);
      throw error;
    }
    const { length } = example.ids;
    if (length > Math.min(seq, context)) {
      const limit = seq < context ? `seq allows ${seq}: raise seq,` : `the model's context holds ${context}:`;
      throw new BadRow(`${place} has ${length} tokens and ${limit} shorten the row or cut it into several.`);
    }
    // The first token is never predicted, so its label does not count.
    const learnable = example.label !== undefined ? length > 0 : example.labels.slice(1).some((id) => id !== IGNORED);
    if (!learnable) {
      throw new BadRow(
        `${place} has nothing to learn (${length} tokens): it needs at least one token after the first.`,
      );
    }
    return example;
  };
}

function isBlank(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 32 || byte === 9 || byte === 13);
}

function decodeUtf8(bytes: Uint8Array, place: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new BadRow(`${place} is not UTF-8: convert the file to UTF-8.`);
  }
}

/** A whole file's text; the byte of a line's end never is part of another character. */
function decodeText(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    for (let [line, start] = [1, 0];; line++) {
      const end = bytes.indexOf(10, start);
      decodeUtf8(bytes.subarray(start, end < 0 ? bytes.length : end), `${path} line ${line}`);
      start = end + 1;
    }
  }
}

/**
 * The labels of a .jsonl file's rows, sorted; null where the first row has none. Rows that can't be used are passed over:
 * opening the file names them.
 */
export function labelsOf(path: string): readonly string[] | null {
  if (!path.endsWith(".jsonl")) return null;
  using source = openBytes(path);
  const labels = new Set<string>();
  for (const line of linesOf(source)) {
    if (isBlank(line.bytes)) continue;
    try {
      const { row } = parseRow(decodeUtf8(line.bytes, path), path);
      if (!("text" in row) || row.label === undefined) return labels.size === 0 ? null : sortLabels(labels);
      labels.add(row.label);
    } catch (error) {
      if (!(error instanceof BadRow)) throw error;
    }
  }
  return labels.size === 0 ? null : sortLabels(labels);
}
