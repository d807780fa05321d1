import { assert, assertThrows } from "@std/assert";
import { readChatTemplate } from "./chat_template.ts";

Deno.test("a template that works without end is ended, whatever it works on", () => {
  for (
    const source of [
      "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
      "{% for i in range(100000) %}{% set x = range(100000) | list | sort %}{% endfor %}",
      "{% set n = namespace(s='aaaa') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
      "{% for i in range(99999) %}{% for c in text %}{% endfor %}{% endfor %}",
      "{% for i in range(99999) %}{% set x = text.upper() %}{% endfor %}",
      "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    ]
  ) assertThrows(() => readChatTemplate(source)({ text: "some text ".repeat(1000) }), Error);
  // A long conversation is far from the end.
  const messages = Array.from({ length: 2000 }, () => ({ role: "user", content: "some text ".repeat(500) }));
  const chat = "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' + m['content'] | trim ~ '\\n' }}{% endfor %}";
  assert(readChatTemplate(chat)({ messages }).text.length > 9_000_000);
});
