/** The two programs that teach a model to answer letters, whole, with the scores they are to reach. */
import { assert, assertEquals } from "@std/assert";
import { pathKind } from "../../models/load/byte_source.ts";
import type { Score } from "../../train/letters_score.ts";
import { smollm2 } from "./real_case.ts";

const root = new URL("../../", import.meta.url);

/** Runs a program of the project; gives the JSON object that it prints. */
async function run(...args: string[]): Promise<{ before: Score; after: Score; losses: number[] }> {
  const out = await Deno.makeTempDir();
  try {
    const map = new URL("offline.json", root).href;
    const { code, stdout, stderr } = await new Deno.Command("deno", {
      args: ["run", "--quiet", "--no-prompt", "--import-map", map, "--allow-read", `--allow-write=${out}`, ...args]
        .concat("--json", "--out", out),
      cwd: root,
    }).output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    assertEquals(code, 0, text(stderr));
    return JSON.parse(text(stdout));
  } finally {
    await Deno.remove(out, { recursive: true });
  }
}

Deno.test("train.ts: the small model learns to answer letters it has never seen", async () => {
  const { before, after } = await run("train.ts");
  assertEquals(before, { keys: 0, values: 0, of: 100 });
  assert(after.keys >= 95 && after.values >= 90, JSON.stringify(after));
});

const absent = pathKind(smollm2) === null;
for (const seed of [1, 2, 3]) {
  const title = `demo.ts: SmolLM2 learns to answer letters, seed ${seed}`;
  Deno.test({
    name: absent ? `${title}: skipped, ${smollm2} is not here (./task model:smollm2 brings it)` : title,
    ignore: absent,
    fn: async () => {
      const { after } = await run("demo.ts", "--seed", String(seed));
      assert(after.of === 18 && after.keys >= 17 && after.values >= 13, JSON.stringify(after));
    },
  });
}
