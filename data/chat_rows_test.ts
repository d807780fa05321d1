import { assertEquals, assertThrows } from "@std/assert";
import { DataError } from "../core/errors.ts";
import { ignoredLabel } from "../core/nn/loss.ts";
import { makeTokenizer, type Tokenizer } from "../models/load/tokenizer.ts";
import { byteTokenizerConfig, byteTokenizerFile } from "./byte_tokenizer.ts";
import { parseRow } from "./rows.ts";
import { causalLM } from "../train/objectives/causal_lm.ts";

const bytes = (chatTemplate: string): Tokenizer =>
  makeTokenizer({ path: "bytes", tokenizer: byteTokenizerFile(), config: byteTokenizerConfig(), chatTemplate });

/** What of a row's text is learned. */
function learned(line: unknown, tokenizer: Tokenizer, learn?: "last" | "all"): string {
  const { row } = parseRow(JSON.stringify(line), "line 1", [causalLM]);
  const { ids, labels } = causalLM.encode(row, tokenizer, { learn });
  return ids.map((id, i) => labels[i] === ignoredLabel ? "" : tokenizer.decode([id])).join("");
}

const plain = "{% for m in messages %}<{{ m.role }}>{{ m.content }};{% endfor %}" +
  "{% if add_generation_prompt %}<assistant>{% endif %}";
const turns = ["hi", "yo", "bye", " ciao"].map((content, i) => ({ role: i % 2 ? "assistant" : "user", content }));

Deno.test("the last answer of a chat is learned, or every one", () => {
  assertEquals(learned({ messages: turns }, bytes(plain)), " ciao;");
  assertEquals(learned({ messages: turns }, bytes(plain), "all"), "yo; ciao;");
  const alone = { messages: [{ role: "assistant", content: "x" }] };
  assertEquals(learned(alone, bytes(plain), "all"), "x;");
});

Deno.test("what a template marks as the assistant's is what is learned", () => {
  const marking =
    "{% for m in messages %}[{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}" +
    "{% else %}{{ m.content }}{% endif %}]{% endfor %}";
  assertEquals(learned({ messages: turns }, bytes(marking)), " ciao");
  assertEquals(learned({ messages: turns }, bytes(marking), "all"), "yo ciao");
});

Deno.test("a beginning of the answer that the text does not have, as of thoughts, is no reason to refuse", () => {
  const thinking = plain.replace("<assistant>{% endif %}", "<assistant><think>{% endif %}");
  assertEquals(learned({ messages: turns.slice(0, 2) }, bytes(thinking)), "yo;");
});

Deno.test("a template that rewrites earlier messages is refused if that hides the answer", () => {
  const counting = `{{ messages | length }}${plain}`;
  assertThrows(() => learned({ messages: turns }, bytes(counting)), DataError, "can't be separated from the prompt");
});

Deno.test("tools, documents and calls reach a template that has a place for them, and are refused by one that has none", () => {
  const tools = [{ type: "function", function: { name: "weather" } }];
  const call = {
    role: "assistant",
    content: null,
    tool_calls: [{ function: { name: "weather", arguments: { a: 1 } } }],
  };
  const using = "{% for t in tools %}{{ t | tojson }}{% endfor %}{{ documents | tojson }}" +
    "{% for m in messages %}<{{ m.role }}>{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% else %}{{ m.content }}{% endif %}{% endfor %}" +
    "{% if add_generation_prompt %}<assistant>{% endif %}";
  const messages = [turns[0], call];
  assertEquals(
    learned({ messages, tools, documents: [{ text: "d" }] }, bytes(using)),
    '[{"function": {"name": "weather", "arguments": {"a": 1}}}]',
  );
  for (
    const [row, sentence] of [
      [{ messages: turns, tools }, "has no place for tools"],
      [{ messages: turns, documents: [{}] }, "has no place for documents"],
      [{ messages }, "has no place for tool_calls"],
      [{ messages: turns, tools: "weather" }, "tools that are not a list"],
    ] as const
  ) assertThrows(() => learned(row, bytes(plain)), DataError, sentence);
  assertEquals(learned({ messages: turns, tools: [] }, bytes(plain)), " ciao;");
});

Deno.test("contents in parts are joined for a template of texts, and given to one of parts", () => {
  const parts = [{ type: "text", text: "a " }, { type: "text", text: "b" }];
  const messages = [{ role: "user", content: parts }, { role: "assistant", content: parts }];
  assertEquals(learned({ messages }, bytes(plain)), "a b;");
  const ofParts =
    "{% for m in messages %}<{{ m.role }}>{% for p in m.content %}{{ p.text | trim }}|{% endfor %}{% endfor %}" +
    "{% if add_generation_prompt %}<assistant>{% endif %}";
  assertEquals(learned({ messages }, bytes(ofParts)), "a|b|");
  const image = { messages: [{ role: "user", content: [{ type: "image" }] }, turns[1]] };
  assertThrows(() => learned(image, bytes(plain)), DataError, 'a part of the type "image", and only text is read here');
  const empty = { messages: [turns[0], { role: "assistant", content: null }] };
  assertThrows(() => learned(empty, bytes(plain)), DataError, "message 2 (assistant) has no content");
});

Deno.test("keys that nothing reads are reported", () => {
  assertEquals(parseRow('{"text":"a","id":1,"source":"x"}', "", [causalLM]).unused, ["id", "source"]);
  assertEquals(
    parseRow('{"messages":[{"role":"assistant","content":"x"}],"tools":[],"chat_template_kwargs":{}}', "", [causalLM])
      .unused,
    [
      "chat_template_kwargs",
    ],
  );
});
