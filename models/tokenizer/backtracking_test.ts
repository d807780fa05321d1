import { assertEquals } from "@std/assert";
import { preTokenizers } from "../load/gguf/pre_tokenizers.ts";
import { ambiguousPart } from "./backtracking.ts";
import { compilePattern } from "./patterns.ts";

Deno.test("expressions that can match one text in exponentially many ways, or a power of its length, are found", () => {
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
      ...["a*a*b", "\\s*\\s*\\s*x", ".*.*.*x", "(?:.*)(.*)x", "a*b*a*c", "a*b?a+$", "a+a+(?!a)", "[^x]*[^y]*,z"],
      ...["(?:a*|b)a*c", "(?:ca*a*)*b", "a{0,999}a{0,999}b", "(?:a{0,99}){0,99}b", "(?:a+){2,8}b", "x|(a*(a*)b)"],
      ...[
        "(?:a{0,16}){0,16}b",
        "(?:a{1,3})+b",
        "(?:a{1,9}){9}b",
        `${"a?".repeat(30)}${"a".repeat(30)}`,
        "a{0,9}a{0,9}a{0,9}b",
      ],
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
      ...["\\s+(?!\\S)|\\s+", "(?=(\\d{3})+(?!\\d))", "a*ba*c", "\\s*[\\r\\n]+", "[A-Za]*[a-z]+(?:'s)?", "a*(?:b*|c)"],
      ...["\\p{N}{1,3}\\p{N}{1,3}x", "(?:a+)?b", "(?:\\p{N}{1,3})+", " ?[^\\s\\p{L}]+[\\r\\n]*x"],
    ]
  ) assertEquals(part(harmless), null, harmless);
});

Deno.test("the patterns of known models are let through", () => {
  for (const [name, { splits }] of preTokenizers) {
    for (const Regex of splits) assertEquals(ambiguousPart(compilePattern({ Regex })), null, `${name}: ${Regex}`);
  }
});
