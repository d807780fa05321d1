/** The rows of a .jsonl file: parsed at once, tokenised at once or, of a large file, when they are asked for. */
import { createHash } from "node:crypto";
import { DataError } from "../core/errors.ts";
import { ignoredLabel } from "../core/nn/loss.ts";
import { type ByteSource, openBytes } from "../models/load/files/byte_source.ts";
import { encodeRow, type Example, type TextTokenizer } from "./encode.ts";
import { type Attempt, type DataOptions, type FoundData, heldExamples } from "./data_set.ts";
import { type Line, linesOf, NumberList } from "./line_index.ts";
import { outsideTable } from "../models/token_inputs.ts";
import { BadRow, decodeUtf8, describeKinds, parseRow, type Row, type RowKind } from "./rows.ts";

/** The most bytes of a row, which is tokenised whole at some 300 bytes a byte. */
const maxRow = 2 ** 22;

/** Every row of a .jsonl file that parses, in order, with what is known of them at the end. */
function scanRows(source: ByteSource, attempt: Attempt, visit: (row: Row, line: Line) => void) {
  const hash = createHash("sha256");
  const counts = new Map<RowKind, number>();
  const labels = new Set<string>();
  const unused = new Map<string, number>();
  for (const line of linesOf(source, { most: maxRow, onChunk: (bytes) => hash.update(bytes) })) {
    const place = `${source.name} line ${line.number}`;
    const found = attempt(() => isBlank(line.bytes) ? null : parseRow(decodeUtf8(line.bytes, place), place));
    if (!found) continue;
    counts.set(found.kind, (counts.get(found.kind) ?? 0) + 1);
    for (const key of found.unused) unused.set(key, (unused.get(key) ?? 0) + 1);
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
  const known = scanRows(source, attempt, (row, { offset, number }) => {
    // How many pieces a row has is only known once it is tokenised.
    const isWhole = options.overflow !== "chunk" || ("text" in row && row.label !== undefined);
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
      const example = attempt(() => encode(parseRow(text, place).row, place))?.[pieces.at(index)];
      if (example === undefined) bad.add(index);
      return example;
    },
  };
}

/** Tokenises rows and refuses those that can't be learned from. What is too long is one example, or several, by `overflow`. */
function rowEncoder(tokenizer: TextTokenizer, options: DataOptions): (row: Row, place: string) => Example[] {
  const { context, seq = context, overflow = "error", tableRows = Infinity } = options;
  return (row, place) => {
    let example: Example;
    try {
      example = encodeRow(row, tokenizer, options);
    } catch (error) {
      if (error instanceof DataError) throw new BadRow(`${place}: ${error.message}`);
      throw error;
    }
    const outside = outsideTable(example.ids, tableRows);
    if (outside !== null) throw new BadRow(`${place} ${outside}`);
    const { length } = example.ids;
    const most = Math.min(seq, context);
    const isLong = length > most;
    if (isLong && overflow === "error") {
      const limit = seq < context ? `seq allows ${seq}: raise seq,` : `the model's context holds ${context}:`;
      throw new BadRow(
        `${place} has ${length} tokens and ${limit} shorten the row, or use --overflow cut or chunk.`,
      );
    }
    const pieces = isLong && overflow !== "error" ? cutInto(example, most, overflow, place) : [example];
    const learnable = pieces.filter(isLearnable);
    if (learnable.length === 0) {
      const kept = isLong && overflow === "cut" ? `, cut to ${most}` : "";
      throw new BadRow(
        `${place} has nothing to learn (${length} tokens${kept}): it needs at least one token after the first.`,
      );
    }
    return learnable;
  };
}

/** The first tokens of an example that is too long, or all of them in several. */
function cutInto(example: Example, most: number, overflow: "cut" | "chunk", place: string): Example[] {
  if (overflow === "chunk" && example.label !== undefined) {
    throw new BadRow(
      `${place} has ${example.ids.length} tokens and one label, so it can't become several rows: take --overflow cut.`,
    );
  }
  const count = overflow === "cut" ? 1 : Math.ceil(example.ids.length / most);
  return Array.from({ length: count }, (_, i) => {
    const part = (items: readonly number[]) => items.slice(i * most, (i + 1) * most);
    return { ...example, ids: part(example.ids), labels: part(example.labels) };
  });
}

/** The first token is never predicted, so its label does not count. */
function isLearnable({ ids, labels, label }: Example): boolean {
  return label !== undefined ? ids.length > 0 : labels.slice(1).some((id) => id !== ignoredLabel);
}

function isBlank(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 32 || byte === 9 || byte === 13);
}

/**
 * The labels of a .jsonl file's rows, sorted; null where the first row that can be used has none, and where no row speaks
 * of a label. Rows that can't be used are passed over: opening the file names them.
 */
export function labelsOf(path: string): readonly string[] | null {
  if (!path.endsWith(".jsonl")) return null;
  using source = openBytes(path);
  const labels = new Set<string>();
  let meant = false; // a label stands there, be it one that can't be used
  for (const line of linesOf(source, { most: maxRow })) {
    try {
      if (isBlank(line.bytes)) continue;
      const text = decodeUtf8(line.bytes, path);
      meant ||= /"label"\s*:/.test(text);
      const { row } = parseRow(text, path);
      if (!("text" in row) || row.label === undefined) return labels.size === 0 ? null : sortLabels(labels);
      labels.add(row.label);
    } catch (error) {
      if (!(error instanceof BadRow)) throw error;
    }
  }
  return labels.size === 0 && !meant ? null : sortLabels(labels);
}
