/**
 * Letters with real names, cities and things, as chat messages, for teaching a pretrained chat model the same skill. The
 * measured letters share no phrasing, first or last name, city or item with the training letters; only the problems return.
 */
import type { Message } from "../../models/load/tokenizer.ts";
import { LETTER_KEYS, type LetterValues, type Split } from "./letters.ts";
import { type Rng, rngFrom } from "../../data/rng.ts";

/** One letter as a chat: the last message is the right answer. */
export interface RealLetterRow {
  readonly messages: readonly Message[];
  readonly values: LetterValues;
}

/** The instruction before each letter. */
export const systemPrompt: string =
  'Extract name, city, item and problem from the letter. Answer with one JSON object with exactly the keys "name", ' +
  '"city", "item", "problem" and nothing else.';

/** How many letters are held out. */
export const HELD_OUT_LETTERS = 18;

/** Everything a letter is made of but its problem; training and testing have no entry in common. */
export const realParts: Record<
  Split,
  Record<"phrasings" | "firstNames" | "lastNames" | "cities" | "items", readonly string[]>
> = {
  train: {
    phrasings: [
      "Hello, {name} here from {city}. I ordered {item} last week and it {problem}.",
      "My name is {name}. The order ({item}) {problem}. Please ship to {city}.",
      "{city}, Monday. Dear shop, {item} that I bought {problem}. Regards, {name}",
      "Hi! {item}: {problem}. Can you help? {name}, {city}",
      "This is {name} writing. I live in {city}. What I bought from you, {item}, {problem}.",
      "Subject: {item}\n\nIt {problem}, and I am not happy.\n\n{name}\n{city}",
    ],
    firstNames:
      ("Clara Diego Hana Leila Owen Jun Irina Mateo Zara Felix Astrid Samir Paula Ivan Amina Henrik Rosa Kenji " +
        "Gloria Pavel Dalia Ruben Elena Oscar").split(" "),
    lastNames:
      ("Lind Conti Suzuki Nasser Horak Costa Mensah Dahl Kapoor Fischer Garcia Ito Walsh Petrov Diallo Hansen " +
        "Rahman Becker").split(" "),
    cities:
      ("Madrid Lagos Osaka Amman Cork Lyon Nairobi Prague Manila Bogota Geneva Dakar Riga Santiago Boston Genoa " +
        "Delhi Zagreb Perth Krakow Izmir Malmo Havana Bristol").split(" "),
    items: [
      "a wall clock",
      "two bath towels",
      "a bread knife",
      "three candles",
      "a winter coat",
      "a frying pan",
      "four plates",
      "a camera bag",
      "a sleeping mat",
      "an alarm clock",
      "two lamps",
      "a leather belt",
      "a paint brush",
      "six glasses",
      "a fishing rod",
      "an iron pot",
      "a picture frame",
    ],
  },
  test: {
    phrasings: [
      "To whom it may concern: I am {name} of {city}, and {item} from your store {problem}.",
      "Greetings from {city}! Sadly, {item} {problem}. Thanks, {name}.",
      "{name} ({city}) wrote: you sent me {item}. It {problem}.",
    ],
    firstNames: "Nadia Bruno Greta Kofi".split(" "),
    lastNames: "Schmidt Laurent Park".split(" "),
    cities: "Tallinn Seville Denver Rabat".split(" "),
    items: ["an umbrella", "a board game", "a watering can"],
  },
};

const problems = [
  "arrived broken",
  "is missing a part",
  "never came",
  "is the wrong colour",
  "came twice",
  "smells of smoke",
];

/** Draws a training letter. */
export function realLetterRow(rng: Rng): RealLetterRow {
  return draw(rng, "train", rng.pick(realParts.train.phrasings));
}

/** The letters to measure on: always the same ones, the held-out phrasings in turn. */
export function heldOutRealLetters(): RealLetterRow[] {
  const rng = rngFrom(18);
  const { phrasings } = realParts.test;
  return Array.from({ length: HELD_OUT_LETTERS }, (_, k) => draw(rng, "test", phrasings[k % phrasings.length]));
}

function draw(rng: Rng, split: Split, phrasing: string): RealLetterRow {
  const parts = realParts[split];
  const values: LetterValues = {
    name: `${rng.pick(parts.firstNames)} ${rng.pick(parts.lastNames)}`,
    city: rng.pick(parts.cities),
    item: rng.pick(parts.items),
    problem: rng.pick(problems),
  };
  const letter = phrasing.replace(/\{(\w+)\}/g, (_, key) => values[key as keyof LetterValues]);
  // A blank after each colon and comma, as most JSON that a chat model has read is written.
  const answer = `{${LETTER_KEYS.map((key) => `${JSON.stringify(key)}: ${JSON.stringify(values[key])}`).join(", ")}}`;
  return {
    messages: [
      { role: "system", content: systemPrompt },
      { role: "user", content: letter },
      { role: "assistant", content: answer },
    ],
    values,
  };
}
