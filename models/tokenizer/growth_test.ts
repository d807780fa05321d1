import { assertThrows } from "@std/assert";
import { refuseGrowth } from "./growth.ts";

Deno.test("steps that grow a text without a bound are refused, and so are steps without an end", () => {
  const replace = (content: string) => ({ type: "Replace", pattern: { String: "a" }, content });
  const sequence = (normalizers: unknown[]) => ({ type: "Sequence", normalizers });
  for (
    const hostile of [
      replace("a".repeat(5000)),
      sequence(Array(13).fill(replace("aa"))),
      sequence(Array(3).fill(sequence(Array(5).fill(replace("aa"))))),
      sequence(Array(13).fill({ type: "ByteLevel" })),
      { type: "Prepend", prepend: "a".repeat(10_000) },
      sequence(Array(65).fill({ type: "NFC" })),
      { type: "Sequence", pretokenizers: Array(20_000).fill({ type: "Digits" }) },
      { type: "Sequence", decoders: Array(60).fill(replace("aa")) },
    ]
  ) assertThrows(() => refuseGrowth(hostile, "its part"), Error, "its part");
  for (const harmless of [null, undefined, sequence([]), sequence(Array(9).fill(replace("aa"))), replace("")]) {
    refuseGrowth(harmless, "its part");
  }
});
