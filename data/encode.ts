/** From rows to token ids with labels, and from those to rectangles that a model reads. */
import { DataError } from "../core/errors.ts";
import { ignoredLabel } from "../core/nn/loss.ts";
import type { Tokenizer } from "../models/load/tokenizer.ts";
import { answersIn } from "./chat_answers.ts";
import type { Row } from "./rows.ts";

/** The part of a tokenizer that reading data needs. */
export type TextTokenizer = Pick<Tokenizer, "encode" | "encodeWithOffsets" | "writeChat" | "eosId">;

/**
 * A tokenised row. `labels` has one entry a token: the token itself where it is to be learned, {@link ignoredLabel} elsewhere.
 */
export interface Example {
  /** Token ids. */
  readonly ids: readonly number[];
  /** What each token is to be predicted as: as long as `ids`. */
  readonly labels: readonly number[];
  /** The class of the whole row, for a classifier; `labels` is not looked at then. */
  readonly label?: number;
}

/** How rows are tokenised. */
export interface EncodeRowOptions {
  /** Learn the completion, or the chat's last message, only. Default true; else all of the row is learned. */
  readonly maskPrompt?: boolean;
  /** Which of a chat's answers are learned: the last (default), or every one. */
  readonly learn?: "last" | "all";
  /** The names of a classifier's classes, in the order of its outputs. */
  readonly classes?: readonly string[];
}

/**
 * Tokenises a row. Text is learned whole; of a prompt and completion, the completion; of a chat, its last message. An end
 * token is added to a text and to a completion; a chat template brings its own.
 *
 * A row is one text, tokenised at once, and a token is learned where any character of it is to be: one that holds the end of a
 * prompt and the beginning of its completion belongs to the completion.
 *
 * @throws {DataError} for a chat that does not end with the assistant, and for a class that is not among the known ones
 */
export function encodeRow(row: Row, tokenizer: TextTokenizer, options: EncodeRowOptions = {}): Example {
  const { maskPrompt = true, learn = "last", classes = [] } = options;
  const { eosId } = tokenizer;
  if ("text" in row) {
    const ids = tokenizer.encode(row.text);
    // A classifier reads a text as its tokenizer frames it.
    if (row.label !== undefined) return { ids, labels: [], label: classOf(row.label, classes) };
    // A tokenizer may have put the end token there itself.
    if (eosId !== null && ids.at(-1) !== eosId) ids.push(eosId);
    return { ids, labels: ids };
  }
  if ("messages" in row) {
    const { text, spans } = answersIn(row, tokenizer, learn);
    const { ids, offsets } = tokenizer.encodeWithOffsets(text, { addSpecialTokens: false });
    if (!maskPrompt) return { ids, labels: ids };
    const isLearned = offsets.map(([start, end]) => spans.some((span) => start < span.end && end > span.start));
    return { ids, labels: ids.map((id, i) => isLearned[i] ? id : ignoredLabel) };
  }
  const { ids, offsets } = tokenizer.encodeWithOffsets(row.prompt + row.completion);
  const learned = maskPrompt ? row.prompt.length : -1;
  const labels = ids.map((id, i) => offsets[i][1] > learned ? id : ignoredLabel);
  if (eosId === null) return { ids, labels };
  const before = ids.at(-1) === eosId ? ids.length - 1 : ids.length;
  return { ids: [...ids.slice(0, before), eosId], labels: [...labels.slice(0, before), eosId] };
}

/** The class of that name; of a number that is no class's name, the one of that place. */
function classOf(label: string, classes: readonly string[]): number {
  const at = classes.indexOf(label);
  if (at >= 0) return at;
  const isNumber = (name: string) => /^\d+$/.test(name);
  if (isNumber(label) && Number(label) < classes.length && !classes.some(isNumber)) return Number(label);
  throw new DataError(
    `the label ${JSON.stringify(label)} is not one of the model's classes ${
      classes.join(", ")
    }: give one of these, or its ` +
      `number from 0 to ${classes.length - 1}.`,
  );
}

/** A rectangle of examples, padded on the right; row-major `shape` = [batch, tokens], as all that has one entry a token. */
export interface Batch {
  /** Token ids, row by row. */
  readonly inputIds: Int32Array;
  /** 1 = a token, 0 = padding. */
  readonly attentionMask: Int32Array;
  /** `shape`, or of a classifier [batch]. */
  readonly labels: Int32Array;
  /** The shape of the labels. */
  readonly labelShape: readonly number[];
  /** Where several documents share a row: the place in the row at which each token's document begins. */
  readonly documentStart?: Int32Array;
  /** Rows and tokens a row. */
  readonly shape: readonly [number, number];
  /** The tokens of its examples. */
  readonly tokens: number;
}

/** The contents of unused rows of a batch: one token, since attention needs something to see, and no label. */
const nothing: Example = { ids: [0], labels: [ignoredLabel] };

/**
 * Pads examples to one length: `seq`, or the longest of them rounded up to a multiple of `bucket` (few lengths, so few
 * programs to compile). Examples with a class make a classifier's batch. Where `rows` are more than the examples, the rest is
 * padding.
 *
 * @throws {DataError} where an example is longer than `seq`.
 */
export function makeBatch(
  examples: readonly Example[],
  { padId, rows = examples.length, ...length }:
    & { padId: number; rows?: number }
    & (
      | { seq: number }
      | { bucket: number }
    ),
): Batch {
  const longest = Math.max(...examples.map((example) => example.ids.length));
  const seq = "seq" in length ? length.seq : Math.ceil(longest / length.bucket) * length.bucket;
  const { put, ...batch } = emptyBatch(rows, seq, padId);
  for (let row = 0; row < rows; row++) put(examples[row] ?? nothing, row, 0);
  const known = { ...batch, tokens: tokensOf(examples) };
  if (!examples.some(({ label }) => label !== undefined)) return known;
  const labels = Int32Array.from({ length: rows }, (_, row) => examples[row]?.label ?? ignoredLabel);
  return { ...known, labels, labelShape: [rows] };
}

/**
 * Puts several documents into each row of a batch. No document sees another: `documentStart` tells attention where each
 * begins, and a document's first token, which only the end of another could predict, is no target. Where `rows` are more
 * than those given, the rest is padding.
 *
 * @throws {DataError} where a row's documents are longer than `seq` together
 */
export function packBatch(
  packs: readonly (readonly Example[])[],
  { padId, seq, rows = packs.length }: { padId: number; seq: number; rows?: number },
): Batch {
  const { put, ...batch } = emptyBatch(rows, seq, padId);
  const documentStart = new Int32Array(rows * seq);
  for (let row = 0; row < rows; row++) {
    let at = 0;
    for (const document of packs[row] ?? [nothing]) {
      put(document, row, at);
      batch.labels[row * seq + at] = ignoredLabel;
      documentStart.fill(at, row * seq + at, row * seq + at + document.ids.length);
      at += document.ids.length;
    }
    documentStart.fill(Math.min(at, seq - 1), row * seq + at, (row + 1) * seq);
  }
  return { ...batch, documentStart, tokens: tokensOf(packs.flat()) };
}

function tokensOf(examples: readonly Example[]): number {
  return examples.reduce((sum, { ids }) => sum + ids.length, 0);
}

/** A batch of padding, and a way to put examples into it. */
function emptyBatch(rows: number, seq: number, padId: number) {
  const shape = [rows, seq] as const;
  const inputIds = new Int32Array(rows * seq).fill(padId);
  const attentionMask = new Int32Array(rows * seq);
  const labels = new Int32Array(rows * seq).fill(ignoredLabel);
  const put = ({ ids, labels: own }: Example, row: number, at: number) => {
    if (at + ids.length > seq) {
      throw new DataError(
        `Cannot fit an example of ${at + ids.length} tokens in a batch of ${seq}: raise seq or shorten the row.`,
      );
    }
    inputIds.set(ids, row * seq + at);
    labels.set(own, row * seq + at);
    attentionMask.fill(1, row * seq + at, row * seq + at + ids.length);
  };
  return { inputIds, attentionMask, labels, labelShape: shape, shape, put };
}
