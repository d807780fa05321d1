/** Rows about which answers are better, as TRL and LLaMA-Factory write them: what each becomes, and how it is called. */
import { assertEquals } from "@std/assert";
import { objectives } from "../train/objectives/mod.ts";
import { parseRow } from "./rows.ts";

const parse = (row: object) => {
  const { kind, row: found, reader, unused } = parseRow(JSON.stringify(row), "rows.jsonl line 1", objectives);
  return { kind, row: found, reader: reader.learner, unused };
};
const user = (content: string) => ({ role: "user", content });
const assistant = (content: string) => ({ role: "assistant", content });
const chat = (...messages: object[]) => ({ messages });

Deno.test("a preference is a prompt with two answers, in each of the shapes that other tools write", () => {
  const plain = { chosen: { prompt: "a ", completion: "b" }, rejected: { prompt: "a ", completion: "c" } };
  const talk = { chosen: chat(user("a"), assistant("b")), rejected: chat(user("a"), assistant("c")) };
  const shapes: [object, object][] = [
    [{ prompt: "a ", chosen: "b", rejected: "c" }, plain],
    [{ prompt: "a ", chosen: "b", rejected: "c", margin: 2 }, { ...plain, margin: 2 }],
    // What both begin with is the prompt; the space before an answer belongs to the answer.
    [{ chosen: "a: b", rejected: "a: c" }, {
      chosen: { prompt: "a:", completion: " b" },
      rejected: { prompt: "a:", completion: " c" },
    }],
    [{ prompt: [user("a")], chosen: [assistant("b")], rejected: [assistant("c")] }, talk],
    [{ prompt: [user("a")], chosen: "b", rejected: "c" }, talk],
    [{ prompt: "a", chosen: [assistant("b")], rejected: [assistant("c")] }, talk],
    [{ chosen: [user("a"), assistant("b")], rejected: [user("a"), assistant("c")] }, talk],
    [{
      conversations: [{ from: "human", value: "a" }],
      chosen: { from: "gpt", value: "b" },
      rejected: { from: "gpt", value: "c" },
    }, talk],
    [{ instruction: "a", input: "", chosen: "b", rejected: "c" }, talk],
  ];
  for (const [row, wanted] of shapes) {
    assertEquals(parse(row), { kind: "preference", row: wanted, reader: "preference learning (dpo)", unused: [] });
  }
});

Deno.test("a judged answer has a label that is true or false; with another label it is none", () => {
  const talk = chat(user("a"), assistant("b"));
  const shapes: [object, object][] = [
    [{ prompt: "a", completion: "b", label: true }, { answer: { prompt: "a", completion: "b" }, desirable: true }],
    [{ prompt: [user("a")], completion: [assistant("b")], label: false }, { answer: talk, desirable: false }],
    [{ messages: talk.messages, label: true }, { answer: talk, desirable: true }],
    [{ conversations: [{ from: "human", value: "a" }, { from: "gpt", value: "b" }], kto_tag: true }, {
      answer: talk,
      desirable: true,
    }],
    [{ instruction: "a", input: "", output: "b", kto_tag: false }, { answer: talk, desirable: false }],
  ];
  for (const [row, wanted] of shapes) {
    const { kind, row: found, unused } = parse(row);
    assertEquals({ kind, found, unused }, { kind: "judged answer", found: wanted, unused: [] });
  }
  assertEquals(parse({ prompt: "a", completion: "b", label: "good" }).kind, "prompt and completion");
});

Deno.test("conversations of ShareGPT's, and prompts and completions of messages, are chats", () => {
  const turns = [{ from: "human", value: "a" }, { from: "gpt", value: "b" }];
  const told = chat({ role: "system", content: "s" }, user("a"), assistant("b"));
  assertEquals(parse({ conversations: turns, system: "s" }).row, told);
  assertEquals(parse({ prompt: [user("a")], completion: [assistant("b")] }).row, chat(user("a"), assistant("b")));
});
