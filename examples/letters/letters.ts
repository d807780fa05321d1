/**
 * Letters to a shop, drawn without end from a seed: what the small model that ships here is pretrained and fine-tuned on.
 * Pretraining teaches the *reading* of a letter (`name: …`, `city: …`, line by line), fine-tuning the same values as one
 * JSON object. People and places are made of syllables, and every made word belongs to training or to testing for good
 * (see {@link splitOfWord}), so a name or a city of a test letter never occurs in a training letter.
 */
import { phrasings, unseenPhrasings } from "./phrasings.ts";
import type { Rng } from "../../data/rng.ts";

/** Which letters: those to learn from or those to be measured on. */
export type Split = "train" | "test";

/** What a letter says: the four values that are to be read out of it. */
export interface LetterValues {
  /** Who wrote. */
  readonly name: string;
  /** From where. */
  readonly city: string;
  /** What was ordered. */
  readonly item: string;
  /** What is wrong. */
  readonly problem: string;
}

/** One letter, and both ways to answer it. */
export interface LetterRow {
  /** The letter and the mark that asks for an answer. */
  readonly prompt: string;
  /** `name: …\ncity: …\nitem: …\nproblem: …` */
  readonly reading: string;
  /** `{"name":"…","city":"…","item":"…","problem":"…"}` */
  readonly json: string;
  readonly values: LetterValues;
}

/** No letter with its answer is longer: a context of 256 bytes holds both and an end mark. */
export const LETTER_BYTES = 255;

/** The keys of an answer, in the order in which training shows them. */
export const LETTER_KEYS = ["name", "city", "item", "problem"] as const;

/**
 * Draws a letter. Test letters have names and cities of their own and share the phrasings, items and problems of the training
 * letters; with `unseenPhrasing` the phrasing, too, is one that training never shows.
 */
export function letterRow(rng: Rng, split: Split, { unseenPhrasing = false } = {}): LetterRow {
  const values: LetterValues = {
    name: `${word(rng, split)} ${word(rng, split)}`,
    city: word(rng, split),
    item: item(rng),
    problem: rng.pick(problems),
  };
  const phrasing = rng.pick(unseenPhrasing ? unseenPhrasings : phrasings);
  const letter = phrasing.replace(/\{(\w+)\}/g, (_, key) => values[key as keyof LetterValues]);
  return {
    prompt: `${letter}\n> `,
    reading: LETTER_KEYS.map((key) => `${key}: ${values[key]}`).join("\n"),
    json: JSON.stringify(values),
    values,
  };
}

/** The prompt of a letter of one's own, as {@link letterRow} writes it. */
export function letterPrompt(letter: string): string {
  return `${letter.trim()}\n> `;
}

const onsets = "b br c ch d dr f fl g gr h j k kl l m n p pr r s sh st t th tr v w z".split(" ");
const vowels = "a e i o u ai ea ia io oo ei".split(" ");
const codas = "n r l s m x t k nd rt".split(" ");

/** A capitalised word of one or two syllables that belongs to the split. */
function word(rng: Rng, split: Split): string {
  for (;;) {
    const made = rng.next() < 0.4 ? syllable(rng) : syllable(rng) + syllable(rng);
    const candidate = made[0].toUpperCase() + made.slice(1);
    if (splitOfWord(candidate) === split) return candidate;
  }
}

function syllable(rng: Rng): string {
  return rng.pick(onsets) + rng.pick(vowels) + (rng.next() < 0.5 ? rng.pick(codas) : "");
}

/** The split that a made word belongs to, whoever draws it: one word in eight is for testing (by its FNV-1a hash). */
export function splitOfWord(word: string): Split {
  let hash = 0x811c9dc5;
  for (let i = 0; i < word.length; i++) hash = Math.imul(hash ^ word.charCodeAt(i), 0x01000193);
  return (hash >>> 16) % 8 === 0 ? "test" : "train";
}

const adjectives = "red blue old small broken large wooden green heavy cheap yellow round orange plain".split(" ");
const nouns =
  "lamp chair kettle jacket mug radio basket clock pillow hammer bottle blanket mirror drum bicycle ladder umbrella spoon"
    .split(" ");

function item(rng: Rng): string {
  const adjective = rng.pick(adjectives);
  return `${/^[aeiou]/.test(adjective) ? "an" : "a"} ${adjective} ${rng.pick(nouns)}`;
}

const problems = [
  "arrived broken",
  "is missing a part",
  "never came",
  "is the wrong colour",
  "came twice",
  "smells of smoke",
  "does not work",
  "is too small",
  "came too late",
  "has a crack",
];
