/** What can be learned: examples, how to learn them, and held-out letters to evaluate on. */
import { DataError } from "../../core/errors.ts";
import { countOf } from "../../core/host/format.ts";
import type { LanguageModelSizes } from "../../core/model.ts";
import type { Tokenizer } from "../../models/load/tokenizer.ts";
import type { Examples } from "../../data/data_set.ts";
import { type LetterRow, letterRow, type LetterValues } from "./letters.ts";
import { heldOutRealLetters, realLetterRow } from "./real.ts";
import type { TrainOptions } from "../../train/loop.ts";
import { rngFrom } from "../../data/rng.ts";
import { encodeRow, openData } from "../../train/objectives/mod.ts";

/** How a task is best learned; all of it can be changed. */
export type TaskSettings =
  & Required<Pick<TrainOptions, "steps" | "batch" | "lr">>
  & Pick<TrainOptions, "warmup" | "buckets">;

/** Something to learn. */
export interface Task {
  /** One line for a person. */
  readonly description: string;
  /** What is learned. */
  readonly examples: Examples;
  /** How it is best learned. */
  readonly settings: TaskSettings;
  /** Rows that training never sees. */
  readonly test: readonly TestRow[];
  /** The most tokens of an answer. */
  readonly maxNewTokens: number;
}

/** A prompt, and what its answer must say. */
export interface TestRow {
  /** Token ids. */
  readonly prompt: readonly number[];
  /** The prompt as a person reads it. */
  readonly text: string;
  /** What the answer must say. */
  readonly values: LetterValues;
}

const testSeed = 0x1e77e5;

/**
 * Letters from the generator, each to be answered with one JSON object. The people and cities of the letters to measure on
 * occur in no letter to learn from, here or in pretraining; phrasings, things and problems do.
 */
export function lettersTask(tokenizer: Tokenizer, seed = 0): Task {
  const settings = { steps: 240, batch: 12, lr: 1e-2, warmup: 10, buckets: 3 };
  const rng = rngFrom(seed, 1);
  const examples = Array.from({ length: settings.steps * settings.batch }, () => {
    const { prompt, json } = letterRow(rng, "train");
    return encodeRow({ prompt, completion: json }, tokenizer);
  });
  const testRng = rngFrom(testSeed);
  const test = Array.from({ length: 100 }, () => testRow(letterRow(testRng, "test"), tokenizer));
  return {
    description: `${examples.length} letters to learn from; ${test.length} to measure on, with other names and cities`,
    ...{ examples, settings, test, maxNewTokens: 120 },
  };
}

function testRow({ prompt, values }: LetterRow, tokenizer: Tokenizer): TestRow {
  return { prompt: tokenizer.encode(prompt, { addSpecialTokens: "before" }), text: prompt, values };
}

/**
 * Letters with real names as chats, for a chat model. The letters to measure on share no phrasing, name, city or thing with
 * those to learn from.
 */
export function realLettersTask(tokenizer: Tokenizer, seed = 0): Task {
  const settings = { steps: 60, batch: 2, lr: 1e-3, warmup: 5 };
  const rng = rngFrom(seed, 2);
  const examples = Array.from(
    { length: settings.steps * settings.batch },
    () => encodeRow({ messages: realLetterRow(rng).messages }, tokenizer),
  );
  const test = heldOutRealLetters().map(({ messages, values }): TestRow => {
    const chat = tokenizer.applyChatTemplate(messages.slice(0, -1), { addGenerationPrompt: true });
    return {
      prompt: tokenizer.encode(chat, { addSpecialTokens: false }),
      text: messages.at(-2)!.content as string,
      values,
    };
  });
  return {
    description: `${examples.length} letters to learn from; ${test.length} to measure on, with other phrasings too`,
    ...{ examples, settings, test, maxNewTokens: 64 },
  };
}

/** Rows of a file of one's own: nothing is held out, so only the loss is measured. */
export function fileTask(path: string, tokenizer: Tokenizer, sizes: LanguageModelSizes): Task {
  const examples = openData(path, tokenizer, { context: sizes.contextLength, tableRows: sizes.vocabSize });
  if (examples.classes.length > 0) {
    throw new DataError(`${path} has rows with labels, which teach a classifier: lowrank train learns them.`);
  }
  return {
    description: `${countOf(examples.length, "row")} of ${path}`,
    settings: { steps: 100, batch: 4, lr: 2e-4, warmup: 5 },
    ...{ examples, test: [], maxNewTokens: 0 },
  };
}

/** A letter to try a trained model on. */
export const ownLetter = "Hello, Marta Klein here from Bremen. I ordered a red kettle and it arrived broken.";
