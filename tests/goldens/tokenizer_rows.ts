/** Our tokenizer beside rows that Hugging Face's wrote (tests/peers/tokenizer_styles.py). */
import { assert, assertEquals } from "@std/assert";
import { makeTokenizer } from "../../models/load/tokenizer.ts";

/** What the reference makes of a text; offsets are in code points. */
export interface ReferenceRow {
  readonly text: string;
  readonly ids: readonly number[];
  readonly offsets: readonly (readonly [number, number])[];
  readonly decoded: string;
  /** With special tokens; of two texts; shown without special tokens; and drawn ids as text. */
  readonly framed?: readonly number[];
  readonly pair?: readonly [string, readonly number[], readonly number[]];
  readonly shown?: string;
  readonly drawn?: readonly [readonly number[], string];
}

/** A tokenizer and what the reference does with it. */
export interface ReferenceTokenizer {
  readonly tokenizer: Record<string, unknown>;
  readonly rows: readonly ReferenceRow[];
}

/** Where the reference counts only the first of several characters that become one, ours counts them all. */
const composing = ["qwen", "xlm-roberta", "clip"];
/** After characters that are removed the offsets of the reference are of characters before those. */
const removing = ["t5"];
/** Where the reference counts a whole run of unknown characters for each of their bytes, ours counts the character. */
const fusing = ["byte-unigram"];

/** Holds our tokenizer to the reference: ids, offsets and decoded texts. */
export function holdTokenizer(name: string, { tokenizer: file, rows }: ReferenceTokenizer): void {
  const tokenizer = makeTokenizer({ path: name, tokenizer: file, config: {} });
  for (const row of rows) {
    const note = `${name}: ${JSON.stringify(row.text)}`;
    const { ids, offsets } = tokenizer.encodeWithOffsets(row.text, { addSpecialTokens: false });
    assertEquals(ids, [...row.ids], note);
    const units = [0];
    for (const character of row.text) units.push(units.at(-1)! + character.length);
    for (const [i, [start, end]] of row.offsets.entries()) {
      const [ours, theirs] = [offsets[i], [units[start], units[end]]];
      if (composing.includes(name)) assert(ours[0] <= theirs[0] && ours[1] >= theirs[1], `${note}, token ${i}`);
      else if (fusing.includes(name)) assert(ours[0] >= theirs[0] && ours[1] <= theirs[1], `${note}, token ${i}`);
      else if (!removing.includes(name)) assertEquals([...ours], theirs, `${note}, token ${i}`);
    }
    assertEquals(tokenizer.decode(row.ids), row.decoded, note);
    if (row.framed) {
      assertEquals(tokenizer.encode(row.text), [...row.framed], note);
      assertEquals(tokenizer.decode(row.framed, { skipSpecialTokens: true }), row.shown, note);
    }
    if (row.pair) {
      const { ids, tokenTypeIds } = tokenizer.encodePair(row.text, row.pair[0]);
      assertEquals([ids, tokenTypeIds], [[...row.pair[1]], [...row.pair[2]]], note);
    }
    if (row.drawn) assertEquals(tokenizer.decode(row.drawn[0]), row.drawn[1], note);
  }
}
