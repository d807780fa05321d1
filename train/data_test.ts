import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DataError, FileError } from "../core/errors.ts";
import {
  batches,
  batchOrder,
  encodeRow,
  type Example,
  IGNORED,
  loadExamples,
  makeBatch,
  type TextTokenizer,
} from "./data.ts";

/** One token a byte; 256 ends. */
const bytewise: TextTokenizer = {
  encode: (text) => [...new TextEncoder().encode(text)],
  applyChatTemplate: (messages, { addGenerationPrompt } = {}) =>
    messages.map((m) => `<${m.role}>${m.content};`).join("") + (addGenerationPrompt ? "<assistant>" : ""),
  eosId: 256,
};

async function load(name: string, content: string | Uint8Array<ArrayBuffer>, context = 64): Promise<Example[]> {
  const folder = await Deno.makeTempDir();
  try {
    const path = `${folder}/${name}`;
    await Deno.writeFile(path, typeof content === "string" ? new TextEncoder().encode(content) : content);
    return await loadExamples(path, bytewise, { context });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const N = IGNORED;

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

Deno.test("a file of rows may mix the three kinds and hold empty lines", async () => {
  const rows = await load(
    "rows.jsonl",
    '{"text":"one"}\n\n{"prompt":"p","completion":"c"}\r\n{"messages":[{"role":"assistant","content":"hi"}]}\n',
  );
  assertEquals(rows.length, 3);
});

Deno.test("a text is cut into runs of the context's length, the last one shorter", async () => {
  const rows = await load("text.txt", "abcdefghi", 4);
  assertEquals(rows.map((r) => r.ids), [[97, 98, 99, 100], [101, 102, 103, 104], [105, 256]]);
});

Deno.test("bad data is refused with the file, the line and the mend", async () => {
  const cases: [string, string | Uint8Array<ArrayBuffer>, string][] = [
    ["rows.jsonl", "", "rows.jsonl is empty"],
    ["rows.jsonl", " \n\n", "rows.jsonl is empty"],
    ["rows.jsonl", '{"text":"a"}\n{"text":\n', "rows.jsonl line 2 is not JSON"],
    [
      "rows.jsonl",
      '{"text":"a"}\n\n{"txt":"b"}\n',
      'rows.jsonl line 3 is an object with the keys ["txt"]: a row is {"text"',
    ],
    ["rows.jsonl", '{"text":7}', "all of them strings"],
    ["rows.jsonl", '{"messages":[{"role":"user","content":7}]}', "line 1 is an object"],
    [
      "rows.jsonl",
      '{"messages":[{"role":"user","content":"x"}]}',
      'line 1: a chat to learn from must end with an "assistant"',
    ],
    ["rows.jsonl", "null", "line 1 is null"],
    ["rows.jsonl", '{"text":""}', "line 1 has nothing to learn (1 tokens)"],
    [
      "rows.jsonl",
      JSON.stringify({ text: "x".repeat(64) }),
      "line 1 has 65 tokens and the model's context holds 64: shorten",
    ],
    ["rows.jsonl", new Uint8Array([123, 125, 10, 0xc3, 0x28]), "line 2 is not UTF-8"],
    ["rows.csv", "a,b", "must end in .jsonl"],
  ];
  for (const [name, content, sentence] of cases) {
    await assertRejects(() => load(name, content), DataError, sentence);
  }
  assertThrows(() => loadExamples("absent.txt", bytewise, { context: 4 }), FileError, "There is no file absent.txt");
});

Deno.test("a text of one token is too short", async () => {
  const noEnd = { ...bytewise, eosId: null };
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(`${folder}/a.txt`, "a");
  assertThrows(
    () => loadExamples(`${folder}/a.txt`, noEnd, { context: 4 }),
    DataError,
    "a.txt is too short: it has 1 token",
  );
  await Deno.remove(folder, { recursive: true });
});

Deno.test("batches are padded on the right, to a length or to a bucket", () => {
  const examples = [{ ids: [1, 2, 3], labels: [N, 2, 3] }, { ids: [4], labels: [4] }];
  const batch = makeBatch(examples, { bucket: 4, padId: 9 });
  assertEquals(batch.shape, [2, 4]);
  assertEquals([...batch.inputIds], [1, 2, 3, 9, 4, 9, 9, 9]);
  assertEquals([...batch.attentionMask], [1, 1, 1, 0, 1, 0, 0, 0]);
  assertEquals([...batch.labels], [N, 2, 3, N, 4, N, N, N]);
  assertEquals(makeBatch(examples, { seq: 5, padId: 0 }).shape, [2, 5]);
});

Deno.test("every epoch shows each example once, in another order; a step can be had without the ones before", () => {
  const order = batchOrder(6, { batch: 4, seed: 1 });
  const steps = Array.from({ length: 6 }, (_, s) => order(s));
  const flat = steps.flat();
  const epochs = [0, 1, 2, 3].map((e) => flat.slice(6 * e, 6 * e + 6));
  for (const epoch of epochs) assertEquals([...epoch].sort(), [0, 1, 2, 3, 4, 5]);
  assert(new Set(epochs.map(String)).size > 1);
  assertEquals(batchOrder(6, { batch: 4, seed: 1 })(5), steps[5]);
  const walked = batches("abcdef".split(""), { batch: 4, seed: 1 }, 2);
  const first = walked.next().value!;
  assertEquals([first.step, first.epoch], [2, 1]);
  assertEquals(first.examples, steps[2].map((i) => "abcdef"[i]));
});
