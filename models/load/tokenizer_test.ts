import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { DataError, FileError, OptionError } from "../../core/errors.ts";
import { byteTokenizerConfig, byteTokenizerFile, END_OF_TEXT } from "../../data/byte_tokenizer.ts";
import { makeTokenizer, readTokenizer, type TokenizerFiles } from "./tokenizer.ts";

const files: TokenizerFiles = { path: "t.json", tokenizer: byteTokenizerFile(), config: byteTokenizerConfig() };
const end = END_OF_TEXT.text;

Deno.test("any text is given back by decoding, special tokens can be left out", () => {
  const tokenizer = makeTokenizer(files);
  assertEquals([tokenizer.vocabSize, tokenizer.bosId, tokenizer.eosId, tokenizer.padId], [257, 256, 256, 256]);
  fc.assert(fc.property(fc.string({ unit: "grapheme" }), (text) => {
    assertEquals(tokenizer.decode(tokenizer.encode(text)), text);
  }));
  assertEquals(tokenizer.encode(`x${end}`), [120, 256]);
  assertEquals(tokenizer.decode([97, 256], { skipSpecialTokens: true }), "a");
  assertEquals(tokenizer.decode([]), "");
  assertEquals(tokenizer.decode([97, 257, 98]), "ab", "a padded vocabulary's ids say nothing");
  assertThrows(() => tokenizer.decode([-1]), OptionError, "Cannot decode the id -1");
});

Deno.test("a chat template is rendered with the model's tokens, and its refusal is a sentence", () => {
  assertThrows(() => makeTokenizer(files).applyChatTemplate([]), OptionError, "has no chat template");
  const chatTemplate = "{% for m in messages %}{% if m.role == 'x' %}{{ raise_exception('no role x') }}{% endif %}" +
    "{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
  const tokenizer = makeTokenizer({ ...files, chatTemplate });
  const messages = [{ role: "user", content: "hi" }];
  assertEquals(tokenizer.applyChatTemplate(messages), `user: hi${end}\n`);
  assertEquals(tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true }), `user: hi${end}\nassistant:`);
  assertThrows(() => tokenizer.applyChatTemplate([{ role: "x", content: "" }]), DataError, "no role x");
});

Deno.test("Digits splits every numeric character, as the reference tokenizers do", () => {
  const model = files.tokenizer.model as { vocab: Record<string, number> };
  const vocab: Record<string, number> = { ...model.vocab, "12": 257, "½": 258, "Â½": 259 };
  const merges = [["1", "2"], ["Â", "½"]];
  for (const [individual_digits, ids] of [[true, [49, 50, 259]], [false, [257, 259]]] as const) {
    const digits = { type: "Digits", individual_digits };
    const pre_tokenizer = { type: "Sequence", pretokenizers: [digits, files.tokenizer.pre_tokenizer] };
    const tokenizer = makeTokenizer({
      ...files,
      tokenizer: { ...files.tokenizer, pre_tokenizer, model: { ...model, vocab, merges } },
    });
    assertEquals(tokenizer.encode("12½"), [...ids]);
  }
});

Deno.test("a tokenizer.json that can't be used is reported", () => {
  assertThrows(
    () => makeTokenizer({ path: "t.json", tokenizer: {}, config: {} }),
    FileError,
    "The tokenizer in t.json can't be used",
  );
});

Deno.test("every end token that a model's files name ends a text, and one is appended", () => {
  const tokens = ["<|a|>", "<|b|>", "<|c|>"];
  const added = tokens.map((content, i) => ({ id: 257 + i, content, special: true, normalized: false }));
  const tokenizer = { ...files.tokenizer, added_tokens: [...files.tokenizer.added_tokens as unknown[], ...added] };
  const { eos_token: _, ...unnamed } = byteTokenizerConfig();
  const read = (others: Record<string, unknown>) => {
    const all: Record<string, unknown> = { "tokenizer.json": tokenizer, "tokenizer_config.json": unnamed, ...others };
    const made = readTokenizer("m", (file) => file in all ? JSON.stringify(all[file]) : null)!;
    return [made.eosId, [...made.endIds]];
  };
  assertEquals(read({}), [null, []]);
  assertEquals(read({ "config.json": { eos_token_id: 258 } }), [258, [258]]);
  assertEquals(read({ "config.json": { eos_token_id: [258, 259] } }), [258, [258, 259]]);
  assertEquals(read({ "config.json": { eos_token_id: 258 }, "generation_config.json": { eos_token_id: [259, 257] } }), [
    259,
    [259, 257],
  ]);
  assertEquals(read({ "config.json": { eos_token_id: 258 }, "generation_config.json": {} }), [258, [258]]);
  assertEquals(read({ "special_tokens_map.json": { eos_token: "<|c|>" }, "config.json": { eos_token_id: 258 } }), [
    259,
    [259, 258],
  ]);
  assertEquals(
    read({ "tokenizer_config.json": { eos_token: { content: "<|a|>" } }, "config.json": { eos_token_id: null } }),
    [
      257,
      [257],
    ],
  );
});

Deno.test("added tokens: whole words only, with the space around them, and found in normalised text", () => {
  const { tokenizer } = JSON.parse(Deno.readTextFileSync("tests/goldens/tokenizers/bert-uncased.json"));
  const made = makeTokenizer({ path: "t", tokenizer, config: {} });
  const id = (text: string) => tokenizer.added_tokens.find((t: { content: string }) => t.content === text).id;
  const offsets = (text: string, wanted: number) => {
    const { ids, offsets } = made.encodeWithOffsets(text, { addSpecialTokens: false });
    return offsets.filter((_, i) => ids[i] === wanted).map(([start, end]) => text.slice(start, end));
  };
  assertEquals(offsets("<word> a<word> <word>b\n<word>", id("<word>")), ["<word>", "<word>"]);
  assertEquals(offsets("a \n<tool>  b<tool>", id("<tool>")), [" \n<tool>  ", "<tool>"]);
  assertEquals(offsets("<NORM> <norm> <Norm>", id("<NORM>")), ["<NORM>", "<norm>", "<Norm>"]);
});

Deno.test("of several templates the one for tools is taken where tools are given", () => {
  const chat_template = [
    { name: "default", template: "plain{{ messages | length }}" },
    { name: "tool_use", template: "{{ tools | length }} tools" },
  ];
  const all: Record<string, unknown> = {
    "tokenizer.json": files.tokenizer,
    "tokenizer_config.json": { ...files.config, chat_template },
  };
  const tokenizer = readTokenizer("m", (file) => file in all ? JSON.stringify(all[file]) : null)!;
  assertEquals(tokenizer.applyChatTemplate([]), "plain0");
  assertEquals(tokenizer.applyChatTemplate([], { tools: [{}, {}] }), "2 tools");
});
