/** A .txt file as examples: runs of tokens, or of a large file pieces of whole lines. */
import { createHash } from "node:crypto";
import { DataError } from "../core/errors.ts";
import type { ByteSource } from "../models/load/files/byte_source.ts";
import { outsideTable } from "../models/token_inputs.ts";
import type { Example, TextTokenizer } from "./examples.ts";
import { type DataOptions, type FoundData, heldExamples } from "./data_set.ts";
import { linesOf, NumberList } from "./line_index.ts";
import { decodeUtf8, notOf, textRows } from "./rows.ts";

/** One text, tokenised whole and cut into runs of the context's length. */
export function wholeText(
  source: ByteSource,
  tokenizer: TextTokenizer,
  options: DataOptions,
): FoundData {
  const { context, seq = context, tableRows = Infinity } = options;
  const size = Math.min(seq, context);
  const bytes = new Uint8Array(source.size);
  source.read(0, bytes);
  const text = decodeText(bytes, source.name);
  const { ids } = readerOf(options, source.name).encode({ text }, tokenizer);
  const outside = outsideTable(ids, tableRows);
  if (outside !== null) throw new DataError(`${source.name} ${outside}`);
  const examples: Example[] = [];
  const isBlank = text.trim() === "";
  for (let start = 0; start < ids.length && !isBlank; start += size) {
    const chunk = ids.slice(start, start + size);
    if (chunk.length > 1) examples.push({ ids: chunk, labels: chunk });
  }
  if (examples.length === 0 && !isBlank) {
    throw new DataError(
      `${source.name} is too short: it has ${ids.length} token, and predicting the next one needs at least 2.`,
    );
  }
  const hash = createHash("sha256").update(bytes).digest("hex");
  return { ...heldExamples(examples), format: "plain text", classes: [], unused: new Map(), hash };
}

/**
 * One text in pieces of whole lines; a line too long for that is cut before a word. A piece has at most as many bytes as the
 * context has tokens, and a token is at least a byte: so every piece fits. Packing fills the context up again.
 */
export function indexText(
  source: ByteSource,
  tokenizer: TextTokenizer,
  options: DataOptions,
): FoundData {
  const { context, seq = context, tableRows = Infinity } = options;
  const reader = readerOf(options, source.name);
  const hash = createHash("sha256");
  const starts = new NumberList();
  const most = Math.max(1, Math.min(seq, context) - 2); // room for tokens at the beginning and the end
  let begun = 0;
  starts.push(0);
  for (const { bytes, offset, number } of linesOf(source, { onChunk: (bytes) => hash.update(bytes) })) {
    decodeUtf8(bytes, `${source.name} line ${number}`);
    const end = offset + bytes.length + 1;
    if (end - begun > most && offset > begun) starts.push(begun = offset);
    while (end - begun > most) starts.push(begun = offset + cutOf(bytes, begun - offset, most));
  }
  const at = (index: number) => {
    const start = starts.at(index);
    const last = index + 1 === starts.length;
    const bytes = new Uint8Array((last ? source.size : starts.at(index + 1)) - start);
    source.read(start, bytes);
    const text = new TextDecoder().decode(bytes);
    const { ids } = last
      ? reader.encode({ text }, tokenizer)
      : { ids: tokenizer.encode(text, { addSpecialTokens: "before" }) };
    const outside = outsideTable(ids, tableRows);
    if (outside !== null) throw new DataError(`${source.name} ${outside}`);
    return ids.length > 1 ? { ids, labels: ids } : undefined;
  };
  const known = { format: "plain text, in pieces", classes: [], unused: new Map() };
  return { ...known, length: starts.length, at, hash: hash.digest("hex") };
}

/** Who learns from plain text. */
function readerOf(
  { readers, reader = readers.find(({ formats }) => formats.includes(textRows)) }: DataOptions,
  path: string,
) {
  if (reader?.formats.includes(textRows)) return reader;
  throw new DataError(notOf(reader ?? readers[0], `${path} is plain text`));
}

/** Where a line that is too long is cut: before a space where there is one, never within a character. */
function cutOf(line: Uint8Array, begun: number, most: number): number {
  const space = line.lastIndexOf(32, begun + most);
  if (space > begun) return space;
  const isInside = (at: number) => (line[at] & 0xc0) === 0x80;
  let cut = begun + most;
  while (cut > begun && isInside(cut)) cut--;
  if (cut > begun) return cut;
  // A character of more bytes than there may be is a piece of its own.
  do cut++; while (isInside(cut));
  return cut;
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
