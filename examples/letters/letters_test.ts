import { assert, assertEquals, assertMatch } from "@std/assert";
import { LETTER_BYTES, LETTER_KEYS, type LetterRow, letterRow, splitOfWord } from "./letters.ts";
import { phrasings, unseenPhrasings } from "./phrasings.ts";
import { heldOutRealLetters, realLetterRow, realParts } from "./real.ts";
import { scoreAnswers } from "./score.ts";
import { rngFrom } from "../../data/rng.ts";

function draw(count: number, split: "train" | "test", seed = 1): LetterRow[] {
  const rng = rngFrom(seed);
  return Array.from({ length: count }, () => letterRow(rng, split));
}

const madeWords = (row: LetterRow) => [...row.values.name.split(" "), row.values.city];

Deno.test("a made word belongs to one split, and a letter uses words of its own split only", () => {
  for (const split of ["train", "test"] as const) {
    for (const row of draw(2000, split)) {
      for (const word of madeWords(row)) assertEquals(splitOfWord(word), split, word);
    }
  }
});

Deno.test("no word of the names and cities of 100 test letters is a word of 20,000 training letters", () => {
  const words = new Set(draw(20_000, "train").flatMap((row) => row.prompt.match(/\w+/g)!));
  for (const word of draw(100, "test", 999).flatMap(madeWords)) assert(!words.has(word), word);
});

Deno.test("a letter holds its four values, and fits with its answer", () => {
  const longest: Record<string, number> = {};
  let bytes = 0;
  const rows = draw(20_000, "train");
  for (const row of rows) {
    for (const [key, value] of Object.entries(row.values)) {
      assert(row.prompt.includes(value), row.prompt);
      longest[key] = Math.max(longest[key] ?? 0, value.length);
    }
    assert(/^[\n -~]*$/.test(row.prompt), "one byte a character");
    assert(row.reading.length < row.json.length);
    bytes += row.prompt.length + row.json.length;
  }
  const mean = bytes / rows.length;
  assert(mean > 150 && mean < 200, `mean ${mean} bytes`);
  // Two syllables have at most 12 letters; three bytes end the prompt.
  assert(longest.name <= 25 && longest.city <= 12);
  const text = Math.max(...[...phrasings, ...unseenPhrasings].map((p) => p.replaceAll(/\{\w+\}/g, "").length));
  const around = JSON.stringify({ name: "", city: "", item: "", problem: "" }).length;
  const most = text + 3 + around + 2 * (25 + 12 + longest.item + longest.problem);
  assert(most <= LETTER_BYTES, `${most} bytes`);
});

Deno.test("both answers carry the values", () => {
  const [row] = draw(1, "test");
  assertEquals(JSON.parse(row.json), row.values);
  assertEquals(Object.keys(row.values), [...LETTER_KEYS]);
  assertMatch(row.reading, /^name: .+\ncity: .+\nitem: an? .+\nproblem: .+$/);
});

Deno.test("the phrasings: many, each with every value once, none both seen and unseen", () => {
  assert(phrasings.length >= 40);
  const all = [...phrasings, ...unseenPhrasings];
  assertEquals(new Set(all).size, all.length);
  for (const phrasing of all) {
    assertEquals(phrasing.match(/\{\w+\}/g)!.sort(), ["{city}", "{item}", "{name}", "{problem}"], phrasing);
  }
});

Deno.test("a seed gives the same letters, another seed others", () => {
  assertEquals(draw(5, "train", 7), draw(5, "train", 7));
  assert(draw(5, "train", 7)[0].prompt !== draw(5, "train", 8)[0].prompt);
});

Deno.test("scores: keys exactly, then values", () => {
  const [row] = draw(1, "test");
  const wrong = JSON.stringify({ ...row.values, city: "Elsewhere" });
  const more = JSON.stringify({ ...row.values, more: 1 });
  const answers = [row.json, ` ${row.json}\n`, wrong, more, row.reading, `${row.json} yes`, "null", "[]", ""];
  assertEquals(scoreAnswers(answers, answers.map(() => row)), { keys: 3, values: 2, of: 9 });
});

Deno.test("no phrasing, name, city or item of the 18 held-out real letters occurs in training", () => {
  const heldOut = heldOutRealLetters();
  assertEquals(heldOut.length, 18);
  assertEquals(new Set(heldOut.map((row) => row.messages[1].content)).size, 18);
  const rng = rngFrom(3);
  const letters = Array.from(
    { length: 5000 },
    () => realLetterRow(rng).messages.slice(1).map((m) => m.content).join("\n"),
  );
  const text = letters.join("\n").toLowerCase();
  for (const { values } of heldOut) {
    for (const part of [...values.name.split(" "), values.city, values.item]) {
      assert(!text.includes(part.toLowerCase()), part);
    }
  }
  const seen = new Set(Object.values(realParts.train).flat());
  for (const part of Object.values(realParts.test).flat()) assert(!seen.has(part), part);
  // The words of a held-out phrasing around its values never stand together in a training letter.
  for (const phrasing of realParts.test.phrasings) {
    const pieces = phrasing.split(/\{\w+\}/).map((piece) => piece.toLowerCase()).filter((piece) => /\w{4}/.test(piece));
    assert(pieces.length > 0);
    for (const piece of pieces) assert(!text.includes(piece), piece);
  }
});
