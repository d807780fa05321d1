/**
 * Readers of mutated files: `deno task test:fuzz` tries 10,000 mutations of each file, drawn at random each time; without a number
 * some are tried, always the same.
 */
import { assert } from "@std/assert";
import fc from "fast-check";
import { LowrankError } from "../../core/errors.ts";
import { edits, mutate } from "./mutations.ts";
import { readerCases } from "./readers.ts";

const wanted = Deno.args[0] === undefined ? null : Number(Deno.args[0]);
const runs = wanted ?? 200;

/** The most that reading a file of some kilobytes may add to the process. */
const maxMemory = 2 ** 30;

const folder = await Deno.makeTempDir();
globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

for (const { name, bytes, read } of await readerCases(folder)) {
  Deno.test(`${name}: a typed error or a right answer for ${runs} mutations`, async () => {
    await read(bytes); // the file itself
    const before = Deno.memoryUsage().rss;
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(edits, async (changes) => {
        try {
          await read(mutate(bytes, changes));
        } catch (error) {
          if (!(error instanceof LowrankError)) throw error;
          refused++;
        }
        const grown = Deno.memoryUsage().rss - before;
        assert(grown < maxMemory, `${grown} bytes more than before`);
      }),
      wanted === null ? { numRuns: runs, seed: 1 } : { numRuns: runs },
    );
    assert(refused > 0, "nothing was refused: the mutations miss what is read");
  });
}
