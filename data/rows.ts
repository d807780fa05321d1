/** Rows of training data: what a line of a file may be, and how it is called. */
import { DataError } from "../core/errors.ts";
import type { Message } from "../models/load/tokenizer.ts";
import type { Chat } from "./chat_answers.ts";
import type { EncodeRowOptions, Example, TextTokenizer } from "./examples.ts";
import { Float } from "../models/template/values.ts";
import { describeMisfit, onePerLine } from "./row_hints.ts";

/** A row: plain text, a prompt with its completion, a chat that ends with the assistant, or a text with its class. */
export type Row =
  | { readonly text: string; readonly label?: undefined }
  | { readonly prompt: string; readonly completion: string }
  | Chat
  | { readonly text: string; readonly label: string };

/** A row of a file that can't be used. */
export class BadRow extends DataError {
  override name = "BadRow";
}

/** An object of a file. */
export type Json = Readonly<Record<string, unknown>>;

/** A kind of row. */
export interface RowFormat {
  /** As a person calls it. */
  readonly kind: string;
  /** As a person writes it. */
  readonly form: string;
  /** The keys that it uses. */
  readonly keys: readonly string[];
  /** Whether numbers in its rows are distinguished as Python does: 1.0 from 1. */
  readonly keepsFloats?: boolean;
  /** Whether an object of a file is one. */
  fits(row: Json): boolean;
  /** The row. `place` begins the sentence where it can't be one. */
  take(row: Json, place: string): unknown;
}

/** What a model has a place for: the ids of its embedding, and the outputs of its head. */
export interface Bounds {
  /** Rows of the embedding. */
  readonly rows: number;
  /** Columns of the head. */
  readonly columns: number;
}

/** How rows become examples: what reading data needs to know of an objective. */
export interface RowReader {
  /** What is to learn from its rows, as a person calls it: `a classifier`. */
  readonly learner: string;
  /** The rows that it learns from; where a row fits several, those of an earlier reader, and of that the first. */
  readonly formats: readonly RowFormat[];
  /** Tokenises a row of one of the formats. */
  encode(row: unknown, tokenizer: TextTokenizer, options?: EncodeRowOptions): Example;
  /** The names of the classes that a row has, where rows have any: the model needs an output for each. */
  classNames?(row: unknown): readonly string[];
  /** Why no other rows may stand beside its own. */
  readonly alone?: string;
  /** The tokens of an example's longest sequence. */
  lengthOf(example: Example): number;
  /** The tokens from `start` to before `end` as an example. */
  cut(example: Example, start: number, end: number): Example;
  /** Why an example that is too long is not several. */
  readonly notChunked?: string;
  /** Whether anything can be learned from it. */
  isLearnable(example: Example): boolean;
  /** What is wrong with an example, as the rest of a sentence that begins with its row; or null. */
  problem(example: Example, bounds: Bounds): string | null;
}

/** The error for a file, described so far, whose rows are not of the kind that the reader wants. */
export function notOf({ learner, formats }: RowReader, file: string): string {
  return `${file}, and ${learner} needs others: give rows of ${formats.map(({ form }) => form).join(" or ")}.`;
}

/** Plain text. */
export const textRows: RowFormat = {
  kind: "text",
  form: '{"text": …}',
  keys: ["text"],
  fits: ({ text, label }) => typeof text === "string" && label === undefined,
  take: ({ text }) => ({ text }),
};

/** A prompt and what follows it. */
export const promptRows: RowFormat = {
  kind: "prompt and completion",
  form: '{"prompt": …, "completion": …}',
  keys: ["prompt", "completion"],
  fits: ({ prompt, completion }) => typeof prompt === "string" && typeof completion === "string",
  take: ({ prompt, completion }) => ({ prompt, completion }),
};

/** A chat that ends with the assistant. */
export const chatRows: RowFormat = {
  kind: "chat",
  form: '{"messages": [{"role": …, "content": …}, …]}',
  keys: ["messages", "tools", "documents"],
  keepsFloats: true, // templates are written for Python
  fits: ({ messages }) => isChat(messages),
  take: (row, place) => {
    const messages = row.messages as Message[];
    checkContents(messages, place);
    const lists = ["tools", "documents"].filter((key) => row[key] !== undefined && row[key] !== null);
    for (const key of lists) {
      if (!Array.isArray(row[key])) {
        throw new BadRow(`${place} has ${key} that are not a list: give a list of objects, not ${typeof row[key]}.`);
      }
    }
    return { messages, ...Object.fromEntries(lists.map((key) => [key, row[key]])) };
  },
};

/** What a line holds. */
export interface ParsedRow<R extends RowReader> {
  readonly row: unknown;
  readonly kind: string;
  /** Who learns from such rows. */
  readonly reader: R;
  /** Keys that rows of this kind don't use. */
  readonly unused: readonly string[];
}

/**
 * Reads a line of a .jsonl file. `place` begins the sentence: `rows.jsonl line 3`.
 *
 * @throws {BadRow} when it is no row
 */
export function parseRow<R extends RowReader>(source: string, place: string, readers: readonly R[]): ParsedRow<R> {
  let value: unknown;
  try {
    value = JSON.parse(source);
  } catch (error) {
    if (/^\s*\[\s*$/.test(source)) throw new DataError(`${place} begins a list: ${onePerLine}.`);
    throw new BadRow(`${place} is not JSON (${(error as Error).message}): fix the line or remove it.`);
  }
  const json = Object(value) as Json;
  const known = readers.flatMap((reader) => reader.formats.map((format) => ({ reader, format })));
  const found = known.find(({ format }) => format.fits(json));
  if (found) {
    const { reader, format: { kind, keys, keepsFloats, take } } = found;
    const isTold = keepsFloats && /\d\.0*[,\]}\s]|\d[eE]/.test(source);
    const unused = Object.keys(json).filter((key) => !keys.includes(key));
    return { row: take(isTold ? JSON.parse(source, keepFloat) : json, place), kind, reader, unused };
  }
  throw new BadRow(`${place} is ${describeMisfit(value, formsOf(readers))}.`);
}

/** What rows there are, those first that are of the reader with most. */
function formsOf(readers: readonly RowReader[]): string[] {
  const sorted = readers.toSorted((a, b) => b.formats.length - a.formats.length);
  return [...new Set(sorted.flatMap(({ formats }) => formats.map(({ form }) => form)))];
}

/** A whole number that is written with a point or an exponent, as the float that it is. */
function keepFloat(_: string, value: unknown, { source = "" }: { source?: string } = {}): unknown {
  return Number.isInteger(value) && /[.eE]/.test(source) ? new Float(value as number) : value;
}

/** Whether a value is a list of messages. */
export function isChat(value: unknown): value is readonly Message[] {
  return Array.isArray(value) && value.length > 0 && value.every((m) => {
    const { role, content = null } = Object(m);
    return typeof role === "string" && (content === null || typeof content === "string" || Array.isArray(content));
  });
}

/** Refuses messages that say nothing, and parts of a content that are no text. */
export function checkContents(messages: readonly Message[], place: string): void {
  for (const [i, { role, content = null, ...others }] of messages.entries()) {
    const message = `${place}, message ${i + 1} (${role})`;
    if (content === null && Object.values(others).every((other) => other === null || other === undefined)) {
      throw new BadRow(`${message} has no content: give it a text, if only "".`);
    }
    if (!Array.isArray(content)) continue;
    for (const part of content as unknown[]) {
      const { type, text } = Object(part);
      if (type === "text" && typeof text === "string") continue;
      throw new BadRow(
        `${message} has a part of the type ${JSON.stringify(type ?? null)}, and only text is read here: ` +
          'give parts {"type": "text", "text": …}, or the content as one text.',
      );
    }
  }
}

/** `prompt and completion`, or where a file mixes kinds `text (12) and chat (3)`. */
export function describeKinds(counts: ReadonlyMap<string, number>): string {
  if (counts.size === 1) return [...counts.keys()][0];
  return [...counts].map(([kind, count]) => `${kind} (${count})`).join(", ");
}

/**
 * A line's text.
 *
 * @throws {BadRow} when it is not UTF-8
 */
export function decodeUtf8(bytes: Uint8Array, place: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new BadRow(`${place} is not UTF-8: convert the file to UTF-8.`);
  }
}
