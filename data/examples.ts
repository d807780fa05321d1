/** Examples, and the rectangles of them that a model reads. */
import { DataError } from "../core/errors.ts";
import { ignoredLabel } from "../core/nn/loss.ts";
import type { HostTensor } from "../core/tensor.ts";
import type { Tokenizer } from "../models/load/tokenizer.ts";

/** The part of a tokenizer that reading data needs. */
export type TextTokenizer =
  & Pick<Tokenizer, "encode" | "encodeWithOffsets" | "writeChat" | "eosId">
  & Partial<Pick<Tokenizer, "maskId" | "vocabSize">>;

/**
 * A tokenised row; an objective may give its own more than this. `labels` has one entry a token: the token itself where it is
 * to be learned, {@link ignoredLabel} elsewhere.
 */
export interface Example {
  /** Token ids. */
  readonly ids: readonly number[];
  /** What each token is to be predicted as: as long as `ids`. */
  readonly labels: readonly number[];
  /** Which of two texts each token is of, where the model is told: as long as `ids`. */
  readonly tokenTypes?: readonly number[];
  /** The class of the whole row, for a classifier; `labels` is not looked at then. */
  readonly label?: number;
  /** Numbers that were computed before the run, by weights that it does not change; by name. */
  readonly reference?: Readonly<Record<string, ArrayLike<number>>>;
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

/** What a batch holds, by name: what the model reads, and what the loss compares it with. */
export interface BatchColumns<T> {
  /** Token ids, i32[B,T], row by row. */
  readonly inputIds: T;
  /** i32[B,T]: 1 = a token, 0 = padding. */
  readonly attentionMask: T;
  /** i32[B,T], where several documents share a row: the place in the row at which each token's document begins. */
  readonly documentStart?: T;
  /** i32[B,T], where examples say which of two texts a token is of. */
  readonly tokenTypeIds?: T;
  /** i32[B,T], or of a classifier [B]. */
  readonly labels: T;
  /** i32[N]: the places b·T + t at which outputs are needed, if not everywhere. */
  readonly places?: T;
  /** What else the loss reads. */
  readonly [more: string]: T | undefined;
}

/** The same columns on a device, or as what stands for them. */
export function mapColumns<T, U>(columns: BatchColumns<T>, f: (column: T) => U): BatchColumns<U> {
  const there = Object.entries(columns).filter((entry): entry is [string, Exclude<T, undefined>] =>
    entry[1] !== undefined
  );
  return Object.fromEntries(there.map(([name, column]) => [name, f(column)])) as unknown as BatchColumns<U>;
}

/** A rectangle of examples, padded on the right. */
export interface Batch {
  /** Its contents. */
  readonly columns: BatchColumns<HostTensor>;
  /** Rows and tokens a row. */
  readonly shape: readonly [number, number];
  /** The tokens of its examples. */
  readonly tokens: number;
}

/** The size of a batch. Where `rows` are more than the examples, the rest is padding. */
export interface BatchSize {
  /** Sequences. */
  readonly rows: number;
  /** Tokens of each. */
  readonly seq: number;
  /** The token that fills up. */
  readonly padId: number;
  /** What random choices in it are drawn from, beside its examples: another number each time that they are learned from. */
  readonly draw?: number;
}

/** The contents of unused rows of a batch: one token, since attention needs something to see, and no label. */
const nothing: Example = { ids: [0], labels: [ignoredLabel] };

/**
 * Pads examples to one length.
 *
 * @throws {DataError} where an example is longer than `seq`.
 */
export function padExamples(examples: readonly Example[], { rows, seq, padId }: BatchSize): Batch {
  const { put, shape, columns } = emptyBatch(rows, seq, padId);
  for (let row = 0; row < rows; row++) put(examples[row] ?? nothing, row, 0);
  if (!examples.some(({ tokenTypes }) => tokenTypes)) return { columns, shape, tokens: tokensOf(examples) };
  const tokenTypeIds = i32(shape);
  examples.forEach(({ tokenTypes = [] }, row) => tokenTypeIds.data.set(tokenTypes, row * seq));
  return { columns: { ...columns, tokenTypeIds }, shape, tokens: tokensOf(examples) };
}

/**
 * Puts several documents into each row of a batch. No document sees another: `documentStart` tells attention where each
 * begins, and a document's first token, which only the end of another could predict, is no target.
 *
 * @throws {DataError} where a row's documents are longer than `seq` together
 */
export function packExamples(packs: readonly (readonly Example[])[], { rows, seq, padId }: BatchSize): Batch {
  const { put, shape, columns } = emptyBatch(rows, seq, padId);
  const documentStart = i32(shape);
  for (let row = 0; row < rows; row++) {
    let at = 0;
    for (const document of packs[row] ?? [nothing]) {
      put(document, row, at);
      columns.labels.data[row * seq + at] = ignoredLabel;
      documentStart.data.fill(at, row * seq + at, row * seq + at + document.ids.length);
      at += document.ids.length;
    }
    documentStart.data.fill(Math.min(at, seq - 1), row * seq + at, (row + 1) * seq);
  }
  return { columns: { ...columns, documentStart }, shape, tokens: tokensOf(packs.flat()) };
}

function tokensOf(examples: readonly Example[]): number {
  return examples.reduce((sum, { ids }) => sum + ids.length, 0);
}

/** The numbers of that name of examples, f32[rows, ...shape]: 0 where there is none. */
export function referenceColumn(
  examples: readonly Example[],
  name: string,
  rows: number,
  shape: readonly number[],
): HostTensor {
  const size = shape.reduce((a, b) => a * b, 1);
  const data = new Float32Array(rows * size);
  examples.forEach(({ reference }, i) => data.set(reference?.[name] ?? [], i * size));
  return { shape: [rows, ...shape], dtype: "f32", data };
}

/** A number of each example, f32[rows]; 0 in the rows that fill up. */
export function numberColumn<E extends Example>(
  examples: readonly E[],
  rows: number,
  of: (example: E) => number,
): HostTensor {
  const data = new Float32Array(rows);
  examples.forEach((example, i) => data[i] = of(example));
  return { shape: [rows], dtype: "f32", data };
}

/** Whole numbers of one value. */
export function i32(shape: readonly number[], value = 0) {
  return { shape, dtype: "i32", data: new Int32Array(shape.reduce((a, b) => a * b, 1)).fill(value) } as const;
}

/** A batch of padding, and a way to put examples into it. */
function emptyBatch(rows: number, seq: number, padId: number) {
  const shape = [rows, seq] as const;
  const columns = { inputIds: i32(shape, padId), attentionMask: i32(shape), labels: i32(shape, ignoredLabel) };
  const put = ({ ids, labels }: Example, row: number, at: number) => {
    if (at + ids.length > seq) {
      throw new DataError(
        `Cannot fit an example of ${at + ids.length} tokens in a batch of ${seq}: raise seq or shorten the row.`,
      );
    }
    columns.inputIds.data.set(ids, row * seq + at);
    columns.labels.data.set(labels, row * seq + at);
    columns.attentionMask.data.fill(1, row * seq + at, row * seq + at + ids.length);
  };
  return { columns, shape, put };
}
