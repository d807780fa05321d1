/** The rows of a .jsonl file: parsed at once, tokenised at once or, of a large file, when they are asked for. */
import { createHash } from "node:crypto";
import { DataError } from "../core/errors.ts";
import { type ByteSource, openBytes } from "../models/load/files/byte_source.ts";
import type { Example, TextTokenizer } from "./examples.ts";
import { type Attempt, type DataOptions, type FoundData, heldExamples } from "./data_set.ts";
import { type Line, linesOf, NumberList } from "./line_index.ts";
import { BadRow, decodeUtf8, describeKinds, notOf, type ParsedRow, parseRow, type RowReader } from "./rows.ts";

/** The most bytes of a row, which is tokenised whole at some 300 bytes a byte. */
const maxRow = 2 ** 22;

/** Every row of a .jsonl file that parses, in order, with what is known of them at the end. */
function scanRows(
  source: ByteSource,
  { readers, reader: wanted }: DataOptions,
  attempt: Attempt,
  visit: (row: ParsedRow<RowReader>, line: Line) => void,
) {
  const hash = createHash("sha256");
  const counts = new Map<string, number>();
  const found = new Set<RowReader>();
  const labels = new Set<string>();
  const unused = new Map<string, number>();
  for (const line of linesOf(source, { most: maxRow, onChunk: (bytes) => hash.update(bytes) })) {
    const place = `${source.name} line ${line.number}`;
    const parsed = attempt(() => isBlank(line.bytes) ? null : parseRow(decodeUtf8(line.bytes, place), place, readers));
    if (!parsed) continue;
    const { row, kind, reader } = parsed;
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
    found.add(reader);
    for (const key of parsed.unused) unused.set(key, (unused.get(key) ?? 0) + 1);
    for (const label of reader.classNames?.(row) ?? []) labels.add(label);
    visit(parsed, line);
  }
  const proud = [...found].find(({ alone }) => alone !== undefined);
  if (proud && found.size > 1) {
    throw new DataError(`${source.name} mixes ${describeKinds(counts)}: ${proud.alone}.`);
  }
  if (wanted && found.size > 0 && !found.has(wanted)) {
    throw new DataError(notOf(wanted, `${source.name} has rows of ${describeKinds(counts)}`));
  }
  const classes = sortLabels(labels);
  const kinds = counts.size === 0 ? "nothing" : describeKinds(counts);
  const format = classes.length > 0 ? `${kinds} (${classes.length} classes)` : kinds;
  return { format, classes, unused, hash: hash.digest("hex") };
}

/** Numbers by their size, names by the alphabet. */
function sortLabels(labels: ReadonlySet<string>): string[] {
  return [...labels].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
}

/** All rows, tokenised. */
export function wholeRows(
  source: ByteSource,
  tokenizer: TextTokenizer,
  options: DataOptions,
  attempt: Attempt,
): FoundData {
  const rows: { row: ParsedRow<RowReader>; place: string }[] = [];
  const known = scanRows(
    source,
    options,
    attempt,
    (row, { number }) => rows.push({ row, place: `${source.name} line ${number}` }),
  );
  const encode = rowEncoder(tokenizer, { classes: known.classes, ...options });
  const examples = rows.flatMap(({ row, place }) => attempt(() => encode(row, place)) ?? []);
  return { ...known, ...heldExamples(examples) };
}

/** Where rows stand in the file; each is tokenised when it is asked for. */
export function indexRows(
  source: ByteSource,
  tokenizer: TextTokenizer,
  options: DataOptions,
  attempt: Attempt,
): FoundData {
  // Of each example the place of its row, the row's line, and which piece of the row it is.
  const [offsets, numbers, pieces] = [new NumberList(), new NumberList(), new NumberList()];
  const bad = new Set<number>();
  const inPieces = rowEncoder(tokenizer, options);
  const known = scanRows(source, options, attempt, (row, { offset, number }) => {
    // How many pieces a row has is only known once it is tokenised.
    const isWhole = options.overflow !== "chunk" || row.reader.notChunked !== undefined;
    const count = isWhole ? 1 : attempt(() => inPieces(row, `${source.name} line ${number}`))?.length ?? 0;
    for (let piece = 0; piece < count; piece++) {
      offsets.push(offset);
      numbers.push(number);
      pieces.push(piece);
    }
  });
  const encode = rowEncoder(tokenizer, { classes: known.classes, ...options });
  return {
    ...known,
    length: offsets.length,
    at: (index) => {
      if (bad.has(index)) return undefined;
      const start = offsets.at(index);
      let next = index + 1;
      while (next < offsets.length && offsets.at(next) === start) next++;
      const bytes = new Uint8Array((next < offsets.length ? offsets.at(next) : source.size) - start);
      source.read(start, bytes);
      const end = bytes.indexOf(10);
      const place = `${source.name} line ${numbers.at(index)}`;
      const text = decodeUtf8(end < 0 ? bytes : bytes.subarray(0, end), place);
      const example = attempt(() => encode(parseRow(text, place, options.readers), place))?.[pieces.at(index)];
      if (example === undefined) bad.add(index);
      return example;
    },
  };
}

/** Tokenises rows and refuses those that can't be learned from. What is too long is one example, or several, by `overflow`. */
function rowEncoder(
  tokenizer: TextTokenizer,
  options: DataOptions,
): (row: ParsedRow<RowReader>, place: string) => Example[] {
  const { context, seq = context, overflow = "error", tableRows = Infinity } = options;
  return ({ row, reader }, place) => {
    let example: Example;
    try {
      example = reader.encode(row, tokenizer, options);
    } catch (error) {
      if (error instanceof DataError) throw new BadRow(`${place}: ${error.message}`);
      throw error;
    }
    const problem = reader.problem(example, { rows: tableRows, columns: Infinity });
    if (problem !== null) throw new BadRow(`${place} ${problem}`);
    const length = reader.lengthOf(example);
    const most = Math.min(seq, context);
    const isLong = length > most;
    if (isLong && overflow === "error") {
      const limit = seq < context ? `seq allows ${seq}: raise seq,` : `the model's context holds ${context}:`;
      throw new BadRow(
        `${place} has ${length} tokens and ${limit} shorten the row, or use --overflow ${
          reader.notChunked === undefined ? "cut or chunk" : "cut"
        }.`,
      );
    }
    if (isLong && overflow === "chunk" && reader.notChunked !== undefined) {
      throw new BadRow(`${place} has ${length} tokens and ${reader.notChunked}`);
    }
    const count = isLong && overflow === "chunk" ? Math.ceil(length / most) : 1;
    const pieces = Array.from(
      { length: count },
      (_, i) => isLong ? reader.cut(example, i * most, (i + 1) * most) : example,
    );
    const learnable = pieces.filter((piece) => reader.isLearnable(piece));
    if (learnable.length === 0) {
      const kept = isLong && overflow === "cut" ? `, cut to ${most}` : "";
      throw new BadRow(
        `${place} has nothing to learn (${length} tokens${kept}): it needs at least one token after the first.`,
      );
    }
    return learnable;
  };
}

function isBlank(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 32 || byte === 9 || byte === 13);
}

/**
 * Who learns from the rows of a .jsonl file, by the first that can be used; where none can, by the keys that no other has. Rows
 * that can't be used are passed over: opening the file names them.
 */
export function readerOfRows<R extends RowReader>(path: string, readers: readonly R[]): R | undefined {
  let meant: R | undefined;
  for (const { text, parsed } of triedRows(path, readers)) {
    if (parsed) return parsed.reader;
    const has = (key: string) => RegExp(`"${key}"\\s*:`).test(text);
    meant ??= wholeFormat(readers, has) ?? readers.find((reader) => ownKeys(reader, readers).some(has));
  }
  return meant;
}

/** The classes that the rows of a .jsonl file name, sorted, up to a row that is another reader's; none without classes. */
export function classesOfRows<R extends RowReader>(path: string, reader: R, readers: readonly R[]): readonly string[] {
  const labels = new Set<string>();
  if (!reader.classNames) return [];
  for (const { parsed } of triedRows(path, readers)) {
    if (!parsed) continue;
    if (parsed.reader !== reader) break;
    for (const label of reader.classNames(parsed.row)) labels.add(label);
  }
  return sortLabels(labels);
}

/** The rows of a .jsonl file, as far as each can be used. */
function* triedRows<R extends RowReader>(
  path: string,
  readers: readonly R[],
): Generator<{ readonly text: string; readonly parsed?: ParsedRow<R> }> {
  using source = openBytes(path);
  for (const line of linesOf(source, { most: maxRow })) {
    let text = "", parsed: ParsedRow<R> | undefined;
    try {
      if (isBlank(line.bytes)) continue;
      text = decodeUtf8(line.bytes, path);
      parsed = parseRow(text, path, readers);
    } catch (error) {
      if (!(error instanceof BadRow)) throw error;
    }
    yield { text, parsed };
  }
}

/** The reader with a format of several keys that are all there. */
function wholeFormat<R extends RowReader>(readers: readonly R[], has: (key: string) => boolean): R | undefined {
  return readers.find(({ formats }) => formats.some(({ keys }) => keys.length > 1 && keys.every(has)));
}

/** The keys that only a reader's own rows have. */
function ownKeys(reader: RowReader, readers: readonly RowReader[]): string[] {
  const keysOf = (others: readonly RowReader[]) => others.flatMap(({ formats }) => formats.flatMap(({ keys }) => keys));
  const others = keysOf(readers.filter((other) => other !== reader));
  return keysOf([reader]).filter((key) => !others.includes(key));
}
