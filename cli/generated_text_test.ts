import { assert, assertEquals } from "@std/assert";
import type { TokenEvent, TokenStream } from "../models/generate/generate.ts";
import { describeText, streamText } from "./generated_text.ts";

const tokenizer = {
  decode: (ids: readonly number[]) => new TextDecoder().decode(Uint8Array.from(ids)),
  endIds: [],
};

/** The bytes of a text as tokens. */
const bytesOf = (text: string): TokenStream =>
  async function* (): AsyncGenerator<TokenEvent> {
    const bytes = [...new TextEncoder().encode(text)];
    for (const [i, id] of bytes.entries()) {
      yield await Promise.resolve({ row: 0, id, finish: i === bytes.length - 1 ? "length" : null });
    }
  };

async function written(text: string, stop: string[] = []) {
  const pieces: string[] = [];
  const options = { params: {}, tokenizer, stop, maxNewTokens: 9 };
  const made = await streamText(bytesOf(text), [1], options, { write: (piece) => pieces.push(piece) > 0 });
  return { pieces, made, line: describeText(made, options) };
}

Deno.test("a text is written piece by piece in whole characters, and ends its line", async () => {
  const { pieces, made } = await written("aß€😀!");
  assertEquals(pieces, ["a", "ß", "€", "😀", "!", "\n"]);
  assertEquals([made.text, made.tokens, made.finish], ["aß€😀!", 11, "length"]);
});

Deno.test("nothing of a stop text is written, nor what would have followed", async () => {
  const { pieces, made } = await written("one\ntwo, three", ["two, ", "\n\n"]);
  assertEquals(pieces.join(""), "one\n\n");
  assertEquals([made.text, made.tokens, made.finish], ["one\n", 9, "stop"]);
  assertEquals((await written("abc")).made.perSecond, null, "too few for a rate");
});

Deno.test("what was made is one line of fewer than 80 columns that says why it ended", () => {
  const options = { params: {}, tokenizer, maxNewTokens: 12345 };
  const line = (tokens: number, finish: "stop" | "length" | "interrupted", perSecond: number | null = 123.4) =>
    describeText({ text: "", tokens, finish, perSecond }, options);
  assertEquals(line(12345, "length"), "made      12345 tokens, 123 a second; cut at --max-tokens");
  assertEquals(line(9000, "length", 3.14), "made      9000 tokens, 3.1 a second; cut at the model's context");
  assertEquals(line(1, "stop", null), "made      1 token; ended by itself or a stop text");
  for (const finish of ["stop", "length", "interrupted"] as const) assert(line(12345, finish).length < 80);
});

Deno.test({
  name: "Ctrl-C ends a text after a whole character, on a line of its own",
  ignore: Deno.build.os === "windows",
}, async () => {
  const folder = await Deno.makeTempDir();
  try {
    // Tokens without end, each the next byte of a character; nothing gives way to signals but the stream itself.
    await Deno.writeTextFile(
      `${folder}/program.ts`,
      `import { streamText } from "${new URL("./generated_text.ts", import.meta.url).href}";
      const bytes = [...new TextEncoder().encode("€")];
      async function* stream() {
        for (let i = 0;; i++) {
          for (const end = performance.now() + 2; performance.now() < end;);
          yield { row: 0, id: bytes[i % 3], finish: null };
        }
      }
      const decode = (ids: number[]) => new TextDecoder().decode(Uint8Array.from(ids));
      const options = { params: {}, tokenizer: { decode, endIds: [] }, maxNewTokens: 1e9 };
      const write = (piece: string) => Deno.stdout.writeSync(new TextEncoder().encode(piece)) > 0;
      const { finish, text } = await streamText(stream, [1], options, { write });
      write(finish + " " + new Set(text).size);`,
    );
    const child = new Deno.Command("deno", {
      args: [
        ...["run", "--quiet", "--no-lock", "--no-check", "--allow-read"],
        ...["--import-map", new URL("../offline.json", import.meta.url).href, `${folder}/program.ts`],
      ],
      stdout: "piped",
    }).spawn();
    let output = "", sent = false;
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      output += text;
      if (!sent) child.kill("SIGINT");
      sent = true;
    }
    await child.status;
    assert(/^€+\ninterrupted 1$/.test(output), output);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
