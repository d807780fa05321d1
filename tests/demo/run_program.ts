import { assertEquals } from "@std/assert";
import type { Score } from "../../examples/letters/score.ts";

const root = new URL("../../", import.meta.url);

/** Runs a program of the project; gives the JSON object that it prints. */
export async function run(...args: string[]): Promise<{ before: Score; after: Score; losses: number[] }> {
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
