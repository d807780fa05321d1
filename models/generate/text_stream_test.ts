import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { OptionError } from "../../core/errors.ts";
import type { TokenEvent, TokenStream } from "./generate.ts";
import { DecodeStream, generateText } from "./text_stream.ts";

/** Tokens are pieces of text, numbered. */
const decoder = (pieces: readonly string[]) => (ids: readonly number[]) => ids.map((i) => pieces[i]).join("");

Deno.test("nothing of a stop string is shown, and all that is before it", () => {
  const piece = fc.string({ unit: fc.constantFrom("a", "b", "é"), minLength: 1, maxLength: 3 });
  const stop = fc.array(fc.string({ unit: fc.constantFrom("a", "b"), minLength: 1, maxLength: 4 }), { maxLength: 3 });
  fc.assert(fc.property(fc.array(piece, { maxLength: 12 }), stop, (pieces, stop) => {
    const text = new DecodeStream(decoder(pieces), stop);
    let shown = "";
    for (let i = 0; i < pieces.length && !text.stopped; i++) shown += text.push(i);
    shown += text.end();
    assert(stop.every((s) => !shown.includes(s)));
    const whole = pieces.join("");
    assert(whole.startsWith(shown));
    if (!text.stopped) assertEquals(shown, whole);
    else assert(stop.some((s) => whole.startsWith(shown + s)));
    assertEquals(text.shown, shown);
  }));
});

Deno.test("a character is shown once it is whole", () => {
  const bytes = [...new TextEncoder().encode("aß€😀!")];
  const text = new DecodeStream((ids) => new TextDecoder().decode(Uint8Array.from(ids)));
  assertEquals(bytes.map((b) => text.push(b)).filter((piece) => piece !== ""), ["a", "ß", "€", "😀", "!"]);
});

Deno.test("what waits for a stop string that does not come is shown at the end", async () => {
  const pieces = ["one", " <e", "n", "d"];
  const stream: TokenStream = async function* (): AsyncGenerator<TokenEvent> {
    for (let id = 0; id < 3; id++) yield await Promise.resolve({ row: 0, id, finish: id === 2 ? "length" : null });
  };
  const tokenizer = { decode: decoder(pieces), endIds: [] };
  const found: string[] = [];
  const text = generateText(stream, [1], { params: {}, tokenizer, maxNewTokens: 3, stop: ["<end>"] });
  for (let next = await text.next(); !next.done; next = await text.next()) found.push(next.value);
  assertEquals(found, ["one", " ", "<en"]);
});

Deno.test("an empty stop string is refused", () => {
  assertThrows(() => new DecodeStream(() => "", ["x", ""]), OptionError, "stop string 2 is empty");
});
