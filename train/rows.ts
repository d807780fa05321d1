/** Rows of training data: what a line of a file may be, and how it is called. */
import { DataError } from "../core/errors.ts";
import type { Message } from "../models/load/tokenizer.ts";
import { describeMisfit, oneALine } from "./row_hints.ts";

/** A row: plain text, a prompt with its completion, a chat that ends with the assistant, or a text with its class. */
export type Row =
  | { readonly text: string; readonly label?: undefined }
  | { readonly prompt: string; readonly completion: string }
  | { readonly messages: readonly Message[] }
  | { readonly text: string; readonly label: string };

/** What kind of row it is, as a person calls it. */
export type RowKind = "text" | "prompt and completion" | "chat" | "text and label";

/** A row of a file that can't be used. */
export class BadRow extends DataError {
  override name = "BadRow";
}

type Json = Readonly<Record<string, unknown>>;

/** Each kind by what its rows have, those with more keys first. */
const kinds: readonly { kind: RowKind; fits(row: Json): boolean; take(row: Json): Row }[] = [
  {
    kind: "text and label",
    fits: ({ text, label }) => typeof text === "string" && (typeof label === "string" || Number.isInteger(label)),
    take: ({ text, label }) => ({ text: text as string, label: String(label) }),
  },
  {
    kind: "text",
    fits: ({ text, label }) => typeof text === "string" && label === undefined,
    take: ({ text }) => ({ text: text as string }),
  },
  {
    kind: "prompt and completion",
    fits: ({ prompt, completion }) => typeof prompt === "string" && typeof completion === "string",
    take: ({ prompt, completion }) => ({ prompt: prompt as string, completion: completion as string }),
  },
  {
    kind: "chat",
    fits: ({ messages }) => isChat(messages),
    take: ({ messages }) => ({ messages: messages as Message[] }),
  },
];

/**
 * Reads a line of a .jsonl file. `place` begins the sentence: `rows.jsonl line 3`.
 *
 * @throws {BadRow} when it is no row
 */
export function parseRow(source: string, place: string): { readonly row: Row; readonly kind: RowKind } {
  let value: unknown;
  try {
    value = JSON.parse(source);
  } catch (error) {
    if (/^\s*\[\s*$/.test(source)) throw new DataError(`${place} begins a list: ${oneALine}.`);
    throw new BadRow(`${place} is not JSON (${(error as Error).message}): mend the line or take it out.`);
  }
  const json = Object(value) as Json;
  const found = kinds.find(({ fits }) => fits(json));
  if (found) return { row: found.take(json), kind: found.kind };
  throw new BadRow(`${place} is ${describeMisfit(value)}.`);
}

function isChat(value: unknown): value is readonly Message[] {
  return Array.isArray(value) && value.length > 0 &&
    value.every((m) => typeof Object(m).role === "string" && typeof Object(m).content === "string");
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
