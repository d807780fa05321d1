import { assertEquals, assertThrows } from "@std/assert";
import { parseRows } from "./rows.ts";

Deno.test("rows come as arrows and as JSON, with empty lines between", () => {
  assertEquals(parseRows('One? => Two => Three.\r\n\n  {"prompt": "a ", "completion": "b"}\n'), [
    { prompt: "One?", completion: " Two => Three." },
    { prompt: "a ", completion: "b" },
  ]);
});

Deno.test("a line that is no row is named, with what it lacks", () => {
  const refusals: [string, string][] = [
    ["  \n", "There are no rows yet: write one a line, prompt => completion."],
    ["a => b\nno arrow", 'Line 2 has no " => ": write prompt => completion.'],
    ["\n=> b", 'Line 2 has no prompt before its " => ".'],
    ["a =>", 'Line 1 has nothing to learn after its " => ".'],
    [
      '{"prompt": "a"',
      'Line 1 begins with { and is no JSON: write {"prompt": "…", "completion": "…"} on one line.',
    ],
    [
      '{"prompt": "a", "completion": 3}',
      'Line 1 lacks the text of a "prompt" or a "completion": write {"prompt": "…", "completion": "…"}.',
    ],
    ['{"prompt": "a", "completion": " "}', 'Line 1 has an empty "prompt" or "completion".'],
  ];
  for (const [text, message] of refusals) assertEquals(assertThrows(() => parseRows(text), Error).message, message);
});
