/** The program that teaches the small model to answer letters, whole, with the score it is to reach. */
import { assert, assertEquals } from "@std/assert";
import { run } from "../demo/run_program.ts";

Deno.test("train.ts: the small model learns to answer letters it has never seen", async () => {
  const { before, after } = await run("train.ts");
  assertEquals(before, { keys: 0, values: 0, of: 100 });
  assert(after.keys >= 95 && after.values >= 90, JSON.stringify(after));
});
