import { assertEquals, assertThrows } from "@std/assert";
import { makeTokenizer } from "../models/load/tokenizer.ts";
import { byteTokenizerConfig, byteTokenizerFile } from "./byte_tokenizer.ts";
import { DataError } from "../core/errors.ts";
import { ignoredLabel } from "../core/nn/loss.ts";
import { packExamples, type TextTokenizer } from "./examples.ts";
import { encodeRow, makeBatch } from "../train/objectives/mod.ts";
/** One token a byte; 256 ends. */
const bytewise: TextTokenizer = makeTokenizer({
  path: "bytes",
  tokenizer: byteTokenizerFile(),
  config: byteTokenizerConfig(),
  chatTemplate: "{% for m in messages %}<{{ m.role }}>{{ m.content }};{% endfor %}" +
    "{% if add_generation_prompt %}<assistant>{% endif %}",
});

const N = ignoredLabel;

Deno.test("the loss is on the text, the completion, the last message", () => {
  assertEquals(encodeRow({ text: "ab" }, bytewise), { ids: [97, 98, 256], labels: [97, 98, 256] });
  assertEquals(encodeRow({ prompt: "a", completion: "b" }, bytewise), { ids: [97, 98, 256], labels: [N, 98, 256] });
  const { ids, labels } = encodeRow(
    { messages: [{ role: "user", content: "x" }, { role: "assistant", content: "yz" }] },
    bytewise,
  );
  assertEquals(String.fromCharCode(...ids), "<user>x;<assistant>yz;");
  assertEquals(String.fromCharCode(...labels.filter((l) => l !== N)), "yz;");
  assertEquals(labels.indexOf(121), ids.length - 3);
});

Deno.test("batches are padded on the right, to a length or to a bucket", () => {
  const examples = [{ ids: [1, 2, 3], labels: [N, 2, 3] }, { ids: [4], labels: [4] }];
  const batch = makeBatch(examples, { bucket: 4, padId: 9 });
  assertEquals(batch.shape, [2, 4]);
  assertEquals([...batch.columns.inputIds.data], [1, 2, 3, 9, 4, 9, 9, 9]);
  assertEquals([...batch.columns.attentionMask.data], [1, 1, 1, 0, 1, 0, 0, 0]);
  assertEquals([...batch.columns.labels.data], [N, 2, 3, N, 4, N, N, N]);
  assertEquals(makeBatch(examples, { seq: 5, padId: 0 }).shape, [2, 5]);
});

Deno.test("without the mask, prompts are learned too", () => {
  const open = { maskPrompt: false };
  assertEquals(encodeRow({ prompt: "a", completion: "b" }, bytewise, open).labels, [97, 98, 256]);
  const chat = encodeRow({ messages: [{ role: "assistant", content: "y" }] }, bytewise, open);
  assertEquals(chat.labels, chat.ids);
});

Deno.test("a classifier's rows have one label each", () => {
  const row = encodeRow({ text: "ab", label: "spam" }, bytewise, { classes: ["ham", "spam"] });
  assertEquals(row, { ids: [97, 98], labels: [], label: 1 });
  const batch = makeBatch([row, { ids: [5], labels: [] }], { seq: 3, padId: 0 });
  assertEquals([batch.columns.labels.shape, [...batch.columns.labels.data]], [[2], [1, N]]);
  assertThrows(
    () => encodeRow({ text: "ab", label: "eggs" }, bytewise, { classes: ["ham", "spam"] }),
    DataError,
    'the label "eggs" is not one of the model\'s classes ham, spam',
  );
});

Deno.test("packed rows say where each token's document begins, and learn nothing across", () => {
  const of = (...ids: number[]) => ({ ids, labels: ids });
  const batch = packExamples([[of(1, 2, 3), of(4, 5)], [of(6)]], { rows: 2, seq: 6, padId: 9 });
  assertEquals([...batch.columns.inputIds.data], [1, 2, 3, 4, 5, 9, 6, 9, 9, 9, 9, 9]);
  assertEquals([...batch.columns.attentionMask.data], [1, 1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0]);
  assertEquals([...batch.columns.labels.data], [N, 2, 3, N, 5, N, N, N, N, N, N, N]);
  assertEquals([...batch.columns.documentStart!.data], [0, 0, 0, 3, 3, 5, 0, 1, 1, 1, 1, 1]);
  assertThrows(
    () => packExamples([[of(1, 2), of(3, 4)]], { rows: 1, seq: 3, padId: 9 }),
    DataError,
    "Cannot fit an example of 4",
  );
});
