/** Rows of training data: what a line of a file may be, and how it is called. */
import { DataError } from "../core/errors.ts";
import type { Message } from "../models/load/tokenizer.ts";
import type { Chat } from "./chat_answers.ts";
import { Float } from "../models/template/values.ts";
import { describeMisfit, onePerLine } from "./row_hints.ts";

/** A row: plain text, a prompt with its completion, a chat that ends with the assistant, or a text with its class. */
export type Row =
  | { readonly text: string; readonly label?: undefined }
  | { readonly prompt: string; readonly completion: string }
  | Chat
  | { readonly text: string; readonly label: string };

/** The kind of row, as shown to people. */
export type RowKind = "text" | "prompt and completion" | "chat" | "text and label";

/** A row of a file that can't be used. */
export class BadRow extends DataError {
  override name = "BadRow";
}

type Json = Readonly<Record<string, unknown>>;

/** Each kind by what its rows have, those with more keys first, and the keys that it uses. */
const kinds: readonly {
  kind: RowKind;
  keys: readonly string[];
  fits(row: Json): boolean;
  take(row: Json, place: string): Row;
}[] = [
  {
    kind: "text and label",
    keys: ["text", "label"],
    fits: ({ text, label }) => typeof text === "string" && (typeof label === "string" || Number.isInteger(label)),
    take: ({ text, label }) => ({ text: text as string, label: String(label) }),
  },
  {
    kind: "text",
    keys: ["text"],
    fits: ({ text, label }) => typeof text === "string" && label === undefined,
    take: ({ text }) => ({ text: text as string }),
  },
  {
    kind: "prompt and completion",
    keys: ["prompt", "completion"],
    fits: ({ prompt, completion }) => typeof prompt === "string" && typeof completion === "string",
    take: ({ prompt, completion }) => ({ prompt: prompt as string, completion: completion as string }),
  },
  {
    kind: "chat",
    keys: ["messages", "tools", "documents"],
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
  },
];

/** What a line holds. */
export interface ParsedRow {
  readonly row: Row;
  readonly kind: RowKind;
  /** Keys that rows of this kind don't use. */
  readonly unused: readonly string[];
}

/**
 * Reads a line of a .jsonl file. `place` begins the sentence: `rows.jsonl line 3`.
 *
 * @throws {BadRow} when it is no row
 */
export function parseRow(source: string, place: string): ParsedRow {
  let value: unknown;
  try {
    value = JSON.parse(source);
  } catch (error) {
    if (/^\s*\[\s*$/.test(source)) throw new DataError(`${place} begins a list: ${onePerLine}.`);
    throw new BadRow(`${place} is not JSON (${(error as Error).message}): fix the line or remove it.`);
  }
  const json = Object(value) as Json;
  const found = kinds.find(({ fits }) => fits(json));
  if (found) {
    // Python, for which templates are written, tells 1.0 from 1; JavaScript does not.
    const isTold = found.kind === "chat" && /\d\.0*[,\]}\s]|\d[eE]/.test(source);
    const read = isTold ? JSON.parse(source, keepFloat) as Json : json;
    const unused = Object.keys(json).filter((key) => !found.keys.includes(key));
    return { row: found.take(read, place), kind: found.kind, unused };
  }
  throw new BadRow(`${place} is ${describeMisfit(value)}.`);
}

/** A whole number that is written with a point or an exponent, as the float that it is. */
function keepFloat(_: string, value: unknown, { source = "" }: { source?: string } = {}): unknown {
  return Number.isInteger(value) && /[.eE]/.test(source) ? new Float(value as number) : value;
}

function isChat(value: unknown): value is readonly Message[] {
  return Array.isArray(value) && value.length > 0 && value.every((m) => {
    const { role, content = null } = Object(m);
    return typeof role === "string" && (content === null || typeof content === "string" || Array.isArray(content));
  });
}

/** Refuses messages that say nothing, and parts of a content that are no text. */
function checkContents(messages: readonly Message[], place: string): void {
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
export function describeKinds(counts: ReadonlyMap<RowKind, number>): string {
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
