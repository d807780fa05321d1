import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { DataError } from "../core/errors.ts";
import { ignoredLabel } from "../core/nn/loss.ts";
import { makeTokenizer, type Tokenizer } from "../models/load/tokenizer.ts";
import { DecodeStream } from "../models/generate/text_stream.ts";
import { outsideTable } from "../models/token_inputs.ts";
import { encodeRow } from "../train/objectives/mod.ts";

const styles = ["llama2", "mistral", "gemma", "t5", "gpt2", "qwen", "bert-uncased", "xlm-roberta", "byte-unigram"];

/** A tokenizer of tests/goldens/tokenizers, with an end token where it has one. */
function tokenizerOf(style: string): Tokenizer {
  const { tokenizer } = JSON.parse(Deno.readTextFileSync(`tests/goldens/tokenizers/${style}.json`));
  return makeTokenizer({ path: style, tokenizer, config: { eos_token: "</s>" } });
}

const texts = fc.array(
  fc.constantFrom(
    ..."ab (x)\n1½é".split(""),
    " hello",
    "the ",
    "un",
    "believable",
    "  ",
    "🙂",
    "e\u0301",
    "漢",
    "</s>",
    "<tool>",
  ),
  { maxLength: 8 },
).map((parts) => parts.join(""));

Deno.test("the tokens of a prompt and its completion are those of the text, and what touches the completion is learned", () => {
  for (const style of styles) {
    const tokenizer = tokenizerOf(style);
    fc.assert(
      fc.property(texts, texts, (prompt, completion) => {
        const { ids, labels } = encodeRow({ prompt, completion }, tokenizer);
        const { ids: whole, offsets } = tokenizer.encodeWithOffsets(prompt + completion);
        const { eosId } = tokenizer;
        assertEquals(ids.slice(0, whole.length), whole.slice(0, ids.length), style);
        if (eosId !== null) assertEquals([ids.at(-1), labels.at(-1)], [eosId, eosId], style);
        // Nothing of the prompt alone is learned, and all of the completion is.
        offsets.forEach(([start, end], i) => {
          if (start === end) return;
          assertEquals(
            labels[i] !== ignoredLabel,
            end > prompt.length || (i === ids.length - 1 && ids[i] === eosId),
            style,
          );
        });
      }),
      { numRuns: 60 },
    );
  }
});

Deno.test("a tokenizer that begins texts with a space puts none before a completion", () => {
  const tokenizer = tokenizerOf("llama2");
  assertEquals(
    encodeRow({ prompt: "un", completion: "believable" }, tokenizer).ids.slice(0, -1),
    tokenizer.encode("unbelievable"),
  );
});

Deno.test("one end token ends a row, whoever puts it there", () => {
  const tokenizer = tokenizerOf("t5");
  const { ids } = encodeRow({ prompt: "a", completion: "b" }, tokenizer);
  assertEquals(ids.filter((id) => id === tokenizer.eosId).length, 1);
  assertEquals(ids, tokenizer.encode("ab"));
  assertEquals(tokenizer.encode("ab", { addSpecialTokens: "before" }), tokenizer.encode("ab").slice(0, -1));
  const written = encodeRow({ text: "ab</s>" }, tokenizer);
  assertEquals(written.ids.at(-1), tokenizer.eosId);
});

Deno.test("a continuation's text is what it adds to the prompt's, also piece by piece", () => {
  for (const style of ["llama2", "mistral", "t5", "gpt2", "gemma"]) {
    const tokenizer = tokenizerOf(style);
    for (const [prompt, rest] of [["the", " hello un"], ["Hello", " 🙂 x"], ["🙂", "👍🏽 é"], ["a\n", "b"]]) {
      const whole = tokenizer.encode(prompt + rest, { addSpecialTokens: "before" });
      const before = tokenizer.encode(prompt, { addSpecialTokens: "before" });
      if (!before.every((id, i) => id === whole[i])) continue; // a token lies across
      const after = whole.slice(before.length);
      const added = tokenizer.decode(whole).slice(tokenizer.decode(before).length);
      assertEquals(tokenizer.decode(after, { after: before }), added, `${style}: ${prompt}`);
      const text = new DecodeStream((ids) => tokenizer.decode(ids, { after: before }));
      assertEquals(after.map((id) => text.push(id)).join("") + text.end(), added, `${style}: ${prompt}`);
    }
  }
  const llama = tokenizerOf("llama2");
  assertEquals(
    llama.decode(llama.encode("the", { addSpecialTokens: false }), { after: [1] }),
    "the",
    "nothing is before it",
  );
});

Deno.test("ids are held against the table, and both numbers are in the error", () => {
  assertEquals(outsideTable([0, 5, 9], 10), null);
  for (
    const [id, words] of [[10, "up to 10, and the model's embedding has 10 rows, 0 to 9"], [-1, "the token id -1"], [
      1.5,
      "the token id 1.5",
    ], [NaN, "the token id NaN"]] as const
  ) {
    assert(outsideTable([3, id], 10)?.includes(words), words);
  }
});

Deno.test("a tokenizer whose ids are no rows' numbers is refused", () => {
  const { tokenizer } = JSON.parse(Deno.readTextFileSync("tests/goldens/tokenizers/words.json"));
  const vocab = tokenizer.model.vocab;
  const [first, second] = Object.keys(vocab);
  for (const id of [-3, 1.5, "7", null, vocab[second]]) {
    const changed = { ...tokenizer, model: { ...tokenizer.model, vocab: { ...vocab, [first]: id } }, added_tokens: [] };
    assertThrows(
      () => makeTokenizer({ path: "t.json", tokenizer: changed, config: {} }),
      Error,
      "The tokenizer in t.json can't be used",
    );
  }
  assertThrows(() => encodeRow({ messages: [] }, makeTokenizer({ path: "t", tokenizer, config: {} })), DataError);
});
