import { assert, assertEquals } from "@std/assert";
import { readChatTemplate } from "../../models/template/chat_template.ts";
import { holdTokenizer, type ReferenceTokenizer } from "../goldens/tokenizer_rows.ts";
import { peer, runScript } from "./peer.ts";

peer("tokenizers: ids, offsets and texts of hard and random strings are the tokenizers package's", async () => {
  const job = { seed: Date.now() % 1e6, texts: 300 };
  const found = await runScript<Record<string, ReferenceTokenizer>>("tokenizer_styles.py", job);
  console.log(`seed ${job.seed}`);
  for (const [name, reference] of Object.entries(found)) holdTokenizer(name, reference);
});

interface Rendered {
  readonly template: string;
  readonly variables: Record<string, unknown>;
  readonly text?: string;
  readonly error?: string;
}

peer("templates: conversations and random expressions are written as jinja2 writes them", async () => {
  const job = { seed: Date.now() % 1e6, expressions: 5000 };
  const found = await runScript<{ chats: Rendered[]; expressions: Rendered[] }>("template_styles.py", job);
  const ours = ({ template, variables }: Rendered): string | null => {
    try {
      return readChatTemplate(template)(variables).text;
    } catch {
      return null;
    }
  };
  for (const chat of found.chats) assertEquals(ours(chat), chat.text ?? null, chat.template);
  // Python refuses some operations on kinds of values that no template meets; what both write is the same.
  let both = 0;
  for (const expression of found.expressions) {
    const text = expression.text === undefined ? null : ours(expression);
    if (text === null) continue;
    assertEquals(text, expression.text, `seed ${job.seed}: ${expression.template}`);
    both++;
  }
  assert(both > 0.5 * found.expressions.length, `${both} of ${found.expressions.length} expressions were compared`);
});
