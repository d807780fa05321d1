import { assertEquals } from "@std/assert";
import { makeTokenizer } from "../models/load/tokenizer.ts";
import { byteTokenizerConfig, byteTokenizerFile, END_OF_TEXT } from "./byte_tokenizer.ts";

Deno.test("every byte is its own token, the end mark follows, and decoding gives the text back", () => {
  const tokenizer = makeTokenizer({ path: "here", tokenizer: byteTokenizerFile(), config: byteTokenizerConfig() });
  for (const text of ["Hello, Zoë!\n> ", "naïve 日本 🙂\t ½", "  two  blanks ", "\u00ad\u00a0\u007f\u0000"]) {
    const ids = tokenizer.encode(text);
    assertEquals(ids, [...new TextEncoder().encode(text)]);
    assertEquals(tokenizer.decode(ids), text);
  }
  assertEquals(tokenizer.encode(`a${END_OF_TEXT.text}`), [97, END_OF_TEXT.id]);
  assertEquals([tokenizer.eosId, tokenizer.padId, tokenizer.vocabSize], [256, 256, 257]);
});
