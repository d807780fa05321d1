import { assert } from "@std/assert";

const root = new URL("../../", import.meta.url);

/** Indexes a file, then makes batches of it; prints how much the process grew, and how far its rows were read. */
const program = `
import { chooseLengths, makeBatcher } from "${new URL("data/batches.ts", root).href}";
import { objectiveOf, openData } from "${new URL("train/objectives/mod.ts", root).href}";
import { byteTokenizer } from "./tokenizer.ts";

const rss = () => Deno.memoryUsage().rss;
const before = rss();
using data = openData("rows.jsonl", byteTokenizer, { context: 1024 });
let most = rss();
const objective = objectiveOf(data);
const lengths = chooseLengths(data, 3, 1024);
const batcher = makeBatcher(data, { batch: 8, accumulate: 1, seed: 1, padId: 0, lengths, pack: false, objective });
for (let step = 0; step < 100; step++) {
  batcher.next();
  most = Math.max(most, rss());
}
console.log(JSON.stringify({ grown: most - before, rows: data.length, streamed: data.streamed, lengths }));
`;

const tokenizer = `
const encoder = new TextEncoder();
export const byteTokenizer = { encode: (text) => [...encoder.encode(text)], eosId: 256 };
`;

Deno.test("a file of 128 MB is shuffled and batched in half of that", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const size = 128 * 2 ** 20;
    using file = Deno.openSync(`${folder}/rows.jsonl`, { write: true, create: true });
    const encoder = new TextEncoder();
    for (let written = 0, i = 0; written < size;) {
      const lines = Array.from(
        { length: 1000 },
        () => JSON.stringify({ text: `row ${i++} ${"word ".repeat(60 + i % 60)}` }),
      );
      const bytes = encoder.encode(lines.join("\n") + "\n");
      for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
      written += bytes.length;
    }
    await Deno.writeTextFile(`${folder}/tokenizer.ts`, tokenizer);
    await Deno.writeTextFile(`${folder}/program.ts`, program);
    const { code, stdout, stderr } = await new Deno.Command("deno", {
      args: [
        ...[
          "run",
          "--quiet",
          "--no-check",
          "--no-lock",
          "--v8-flags=--max-old-space-size=48",
          "--import-map",
          new URL("offline.json", root).href,
        ],
        ...["--allow-read", "program.ts"],
      ],
      cwd: folder,
    }).output();
    assert(code === 0, new TextDecoder().decode(stderr));
    const { grown, rows, streamed } = JSON.parse(new TextDecoder().decode(stdout));
    assert(streamed && rows > 200_000, String(rows));
    assert(grown < size / 2, `${(grown / 2 ** 20).toFixed(0)} MB`);
    console.log(`${rows} rows of a file of 128 MB: the process grew by ${(grown / 2 ** 20).toFixed(0)} MB`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
