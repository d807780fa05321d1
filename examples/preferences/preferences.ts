/**
 * Answers to the letters of the example task, as pairs: a short and polite one is preferred to one that is long, or rude. Names of
 * test letters occur in no training letter ({@link letterRow}), so pairs to be measured on are unseen.
 */
import type { Rng } from "../../data/rng.ts";
import { letterRow, type Split } from "../letters/letters.ts";

/** A preference as a file of rows has it. */
export interface PolitePair {
  readonly prompt: string;
  readonly chosen: string;
  readonly rejected: string;
}

const polite = [
  "Thank you, we will help.",
  "We are sorry. Help comes.",
  "Thanks! We look into it.",
  "Sorry, we fix it.",
];
const rude = ["Not our problem.", "You broke it yourself.", "Stop writing to us.", "Read the manual first."];
const long = [
  "Your letter has reached our office and waits for an answer, as all letters do.",
  "It is the case that we have a letter of yours, which is one of very many here.",
];

/** Draws a pair: half of the rejected answers are rude, the others go on and on. */
export function politePair(rng: Rng, split: Split): PolitePair {
  for (;;) {
    const { prompt } = letterRow(rng, split);
    const chosen = rng.pick(polite);
    const rejected = rng.next() < 0.5 ? rng.pick(rude) : `${rng.pick(polite).slice(0, -1)}. ${rng.pick(long)}`;
    // Both fit in the small model's context with their letter.
    if (prompt.length + Math.max(chosen.length, rejected.length) < 250) return { prompt, chosen, rejected };
  }
}
