/** Patterns of adapters: PEFT's meaning, whoever wrote them. */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { type AdapterConfig, rankOf, selects } from "./config.ts";

const path = "model.layers.12.self_attn.q_proj";
const config = (more: Partial<AdapterConfig>) =>
  ({
    r: 8,
    rank_pattern: {},
    target_modules: ["q_proj"],
    exclude_modules: null,
    modules_to_save: null,
    layers_to_transform: null,
    layers_pattern: null,
    ...more,
  }) as unknown as AdapterConfig;
const selected = (target_modules: string, name = path) => selects(config({ target_modules }))?.(name) ?? null;

Deno.test("an expression of target modules must match all of a path", () => {
  assertEquals(selected(".*\\.q_proj"), true);
  assertEquals(selected("q_proj"), false);
  assertEquals(selected("model\\.layers\\.1\\d\\.(self_attn|mlp)\\.(q|v)_proj"), true);
  assertEquals(selected("(?:.*?(?:vision|layers).*?(?:self_attn|mlp).*?(?:k_proj|q_proj).*?)|x"), true);
  assertEquals(selected("(?P<name>.*)proj"), true);
  // What looks ahead can't be evaluated in bounded time: the file's own modules are taken, and a note says so.
  assertEquals(selected("(?!vision).*"), null);
  assertEquals(rankOf(config({ rank_pattern: { "layers\\.\\d+\\.self_attn\\.q_proj": 4 } }), path), 4);
  assertEquals(rankOf(config({ rank_pattern: { "proj": 4, "q_proj": 2 } }), path), 2);
});

Deno.test("no expression takes longer than the path is long", () => {
  const long = `model.${"a".repeat(5000)}`;
  for (
    const hostile of [
      "(.*)*x",
      "((a+)+)+b",
      "(.|..|a)*!",
      `${".*".repeat(30)}x`,
      "model\\.(a|a?)+$b",
      "(a{1,30}){1,30}b",
    ]
  ) {
    assertEquals(selected(hostile, long), false, hostile);
    assertEquals(rankOf(config({ rank_pattern: { [hostile]: 4 } }), long), 8, hostile);
  }
});

Deno.test("an expression means what it means in JavaScript, where both know it", () => {
  const piece = fc.constantFrom(
    ".*",
    "\\.",
    "q",
    "proj",
    "_",
    "layers",
    "\\d+",
    "(q|k)",
    "[a-z]+",
    "(?:self|cross)_attn",
    ".?",
    "x{0,2}",
  );
  fc.assert(
    fc.property(
      fc.array(piece, { maxLength: 6 }),
      fc.constantFrom(path, "q_proj", "layers.3.q", ""),
      (pieces, name) => {
        const source = pieces.join("");
        assertEquals(selected(source, name), new RegExp(`^(?:${source})$`).test(name), `${source} on ${name}`);
      },
    ),
  );
});
