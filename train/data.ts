/** From a file of rows, or a text, to batches of token ids with labels. */
import { DataError } from "../core/errors.ts";
import { openBytes } from "../models/load/byte_source.ts";
import type { Message, Tokenizer } from "../models/load/tokenizer.ts";
import { rngFrom, shuffledIndices } from "./rng.ts";

/** What reading data needs of a tokenizer. */
export type TextTokenizer = Pick<Tokenizer, "encode" | "applyChatTemplate" | "eosId">;

/** A tokenised row. `labels` has one entry a token: the token itself where it is to be learned, {@link IGNORED} elsewhere. */
export interface Example {
  readonly ids: readonly number[];
  readonly labels: readonly number[];
}

/** The label of a token that is no target: part of a prompt, or padding. */
export const IGNORED = -100;

/** A row of training data: plain text, a prompt with its completion, or a chat that ends with the assistant. */
export type Row =
  | { readonly text: string }
  | { readonly prompt: string; readonly completion: string }
  | { readonly messages: readonly Message[] };

/** A rectangle of examples, padded on the right; all three are row-major `shape` = [batch, tokens]. */
export interface Batch {
  readonly inputIds: Int32Array;
  readonly attentionMask: Int32Array;
  readonly labels: Int32Array;
  readonly shape: readonly [number, number];
}

/**
 * Tokenises a row. Text is learned whole; of a prompt and completion, the completion; of a chat, its last message. An end
 * token is added to a text and to a completion; a chat template brings its own.
 */
export function encodeRow(row: Row, tokenizer: TextTokenizer): Example {
  const { eosId } = tokenizer;
  const ended = (ids: number[]) => eosId === null || ids.at(-1) === eosId ? ids : [...ids, eosId];
  const continued = (text: string) => tokenizer.encode(text, { addSpecialTokens: false });
  if ("text" in row) {
    const ids = ended(tokenizer.encode(row.text));
    return { ids, labels: ids };
  }
  if ("prompt" in row) return joined(tokenizer.encode(row.prompt), ended(continued(row.completion)));
  const { prompt, answer } = splitChat(row.messages, tokenizer);
  return joined(continued(prompt), continued(answer));
}

function joined(prompt: readonly number[], answer: readonly number[]): Example {
  return { ids: [...prompt, ...answer], labels: [...prompt.map(() => IGNORED), ...answer] };
}

function splitChat(messages: readonly Message[], tokenizer: TextTokenizer): { prompt: string; answer: string } {
  const role = messages.at(-1)?.role;
  if (role !== "assistant") {
    throw new DataError(`a chat to learn from must end with an "assistant" message, and this one ends with "${role}".`);
  }
  const prompt = tokenizer.applyChatTemplate(messages.slice(0, -1), { addGenerationPrompt: true });
  const whole = tokenizer.applyChatTemplate(messages, { addGenerationPrompt: false });
  if (!whole.startsWith(prompt)) {
    throw new DataError(
      "the model's chat template writes the earlier messages differently once the answer follows, so the answer can't be told " +
        'from the prompt: give rows of "prompt" and "completion" instead.',
    );
  }
  return { prompt, answer: whole.slice(prompt.length) };
}

/**
 * Reads examples from a file: `.jsonl` (a row a line) or `.txt` (one text, cut into runs of `context` tokens).
 * @throws {FileError} where the file can't be read, {DataError} naming the file and the line where it can't be learned from.
 */
export function loadExamples(
  path: string,
  tokenizer: TextTokenizer,
  { context }: { context: number },
): Example[] {
  if (!/\.(jsonl|txt)$/.test(path)) {
    throw new DataError(
      `Cannot read data from ${path}: its name must end in .jsonl (a row a line) or .txt (plain text).`,
    );
  }
  const text = decodeUtf8(readBytes(path), path);
  if (text.trim() === "") throw new DataError(`${path} is empty: there is nothing to learn from.`);
  return path.endsWith(".txt")
    ? chunkText(text, path, tokenizer, context)
    : parseRows(text, path).map(({ row, line }) => encodeWithin(row, `${path} line ${line}`, tokenizer, context));
}

function readBytes(path: string): Uint8Array {
  using source = openBytes(path);
  const bytes = new Uint8Array(source.size);
  source.read(0, bytes);
  return bytes;
}

function decodeUtf8(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new DataError(`${path} line ${firstBadLine(bytes)} is not UTF-8: convert the file to UTF-8.`);
  }
}

/** The first line that is no UTF-8; the byte of a line's end never is part of another character. */
function firstBadLine(bytes: Uint8Array): number {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  for (let [line, start] = [1, 0];; line++) {
    const end = bytes.indexOf(10, start);
    try {
      decoder.decode(bytes.subarray(start, end < 0 ? bytes.length : end));
    } catch {
      return line;
    }
    if (end < 0) return line;
    start = end + 1;
  }
}

function parseRows(text: string, path: string): { row: Row; line: number }[] {
  return text.split("\n").flatMap((source, i) => {
    if (source.trim() === "") return [];
    const line = i + 1;
    return [{ row: parseRow(source, `${path} line ${line}`), line }];
  });
}

function parseRow(source: string, place: string): Row {
  let value: unknown;
  try {
    value = JSON.parse(source);
  } catch (error) {
    throw new DataError(`${place} is not JSON (${(error as Error).message}): mend the line or take it out.`);
  }
  const row = Object(value) as Record<string, unknown>;
  if (typeof row.text === "string") return { text: row.text };
  if (typeof row.prompt === "string" && typeof row.completion === "string") {
    return { prompt: row.prompt, completion: row.completion };
  }
  if (isChat(row.messages)) return { messages: row.messages };
  const keys = typeof value === "object" && value !== null && !Array.isArray(value)
    ? `an object with the keys ${JSON.stringify(Object.keys(row))}`
    : JSON.stringify(value).slice(0, 60);
  throw new DataError(
    `${place} is ${keys}: a row is {"text": …}, {"prompt": …, "completion": …} or {"messages": [{"role": …, "content": …}, …]}, ` +
      "all of them strings.",
  );
}

function isChat(value: unknown): value is readonly Message[] {
  return Array.isArray(value) && value.length > 0 &&
    value.every((m) => typeof Object(m).role === "string" && typeof Object(m).content === "string");
}

function encodeWithin(row: Row, place: string, tokenizer: TextTokenizer, context: number): Example {
  let example: Example;
  try {
    example = encodeRow(row, tokenizer);
  } catch (error) {
    if (error instanceof DataError) throw new DataError(`${place}: ${error.message}`);
    throw error;
  }
  const { length } = example.ids;
  if (length > context) {
    throw new DataError(
      `${place} has ${length} tokens and the model's context holds ${context}: shorten the row or cut it into several.`,
    );
  }
  // The first token is never predicted, so its label does not count.
  if (!example.labels.slice(1).some((label) => label !== IGNORED)) {
    throw new DataError(
      `${place} has nothing to learn (${length} tokens): it needs at least one token after the first.`,
    );
  }
  return example;
}

function chunkText(text: string, path: string, tokenizer: TextTokenizer, context: number): Example[] {
  const { ids } = encodeRow({ text }, tokenizer);
  const chunks: Example[] = [];
  for (let start = 0; start < ids.length; start += context) {
    const chunk = ids.slice(start, start + context);
    if (chunk.length > 1) chunks.push({ ids: chunk, labels: chunk });
  }
  if (chunks.length === 0) {
    throw new DataError(
      `${path} is too short: it has ${ids.length} token, and predicting the next one needs at least 2.`,
    );
  }
  return chunks;
}

/**
 * Pads examples to one length: `seq`, or the longest of them rounded up to a multiple of `bucket` (few lengths, so few
 * programs to compile).
 * @throws {DataError} where an example is longer than `seq`.
 */
export function makeBatch(
  examples: readonly Example[],
  { padId, ...length }: { padId: number } & ({ seq: number } | { bucket: number }),
): Batch {
  const longest = Math.max(...examples.map((example) => example.ids.length));
  const seq = "seq" in length ? length.seq : Math.ceil(longest / length.bucket) * length.bucket;
  if (longest > seq) {
    throw new DataError(
      `Cannot fit an example of ${longest} tokens in a batch of ${seq}: raise seq or shorten the row.`,
    );
  }
  const shape = [examples.length, seq] as const;
  const inputIds = new Int32Array(shape[0] * seq).fill(padId);
  const attentionMask = new Int32Array(shape[0] * seq);
  const labels = new Int32Array(shape[0] * seq).fill(IGNORED);
  examples.forEach((example, i) => {
    inputIds.set(example.ids, i * seq);
    labels.set(example.labels, i * seq);
    attentionMask.fill(1, i * seq, i * seq + example.ids.length);
  });
  return { inputIds, attentionMask, labels, shape };
}

/**
 * The order in which training sees `count` examples: a function from the step (from 0) to the indices of its batch. Every
 * epoch is a new shuffle, batches run on across epochs, and the order depends on `seed` alone, so training can be taken up
 * at any step.
 */
export function batchOrder(
  count: number,
  { batch, seed }: { batch: number; seed: number },
): (step: number) => number[] {
  let epoch = -1;
  let order: number[] = [];
  const at = (position: number): number => {
    const wanted = Math.floor(position / count);
    if (wanted !== epoch) {
      epoch = wanted;
      order = shuffledIndices(count, rngFrom(seed, epoch));
    }
    return order[position % count];
  };
  return (step) => Array.from({ length: batch }, (_, i) => at(step * batch + i));
}

/** Batches without end, from `step` on: {@link batchOrder} walked. `epoch` counts the whole rounds before the batch. */
export function* batches<T>(
  examples: readonly T[],
  options: { batch: number; seed: number },
  step = 0,
): Generator<{ step: number; epoch: number; examples: T[] }> {
  const order = batchOrder(examples.length, options);
  for (;; step++) {
    const epoch = Math.floor(step * options.batch / examples.length);
    yield { step, epoch, examples: order(step).map((i) => examples[i]) };
  }
}
