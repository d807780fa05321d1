import { assertEquals } from "@std/assert";
import { preTokenizers } from "../load/gguf/pre_tokenizers.ts";
import { ambiguousPart } from "./backtracking.ts";
import { compilePattern } from "./patterns.ts";

Deno.test("expressions that can match one text in exponentially many ways are found", () => {
  const part = (source: string) => ambiguousPart(new RegExp(source, "u"));
  for (
    const hostile of [
      ...[
        "(a+)+$",
        "(?:a*)*b",
        "(a|a)*b",
        "(a|ab)*c",
        "(?:\\w+\\s?)*$",
        "([a-z]+)+!",
        "(.*)*x",
        "((a+)b?)+c",
        "(?:a?b?)*c",
      ],
      ...["(\\p{L}+)+x", "x(?:(?:aa|a)c?)+y", "(?:[^x]|y)+z", "(\\s|\\n)+x"],
    ]
  ) {
    if (part(hostile) === null) throw new Error(`${hostile} is let through`);
  }
  for (
    const harmless of [
      ...[
        "a+b+",
        "(?:ab)+",
        "(?:a|b)+",
        "(?:\\p{L}\\p{M}*)+",
        "(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+",
        "(\\d{3})+(?!\\d)",
        "(a+)?b",
      ],
      ...["\\s+(?!\\S)|\\s+", "(?=(\\d{3})+(?!\\d))"],
    ]
  ) assertEquals(part(harmless), null, harmless);
});

Deno.test("the patterns of known models are let through", () => {
  for (const [name, { splits }] of preTokenizers) {
    for (const Regex of splits) assertEquals(ambiguousPart(compilePattern({ Regex })), null, `${name}: ${Regex}`);
  }
});
