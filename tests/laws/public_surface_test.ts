/** What the package exports, name by name: a change of it is a change of this golden file, and of the changelog. */
import { assertEquals } from "@std/assert";
import config from "../../deno.json" with { type: "json" };

/** The exports of one entry point with their signatures, sorted, as `deno doc` has them. */
async function surfaceOf(file: string): Promise<string[]> {
  const { success, stdout, stderr } = await new Deno.Command("deno", {
    args: ["doc", "--import-map=offline.json", file],
    env: { NO_COLOR: "1" },
  }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  const text = new TextDecoder().decode(stdout);
  // A declaration follows the line that says where it stands; its documentation is indented below it.
  return text.split(/^Defined in .*\n\n/m).slice(1).map((entry) => entry.split("\n")[0].trimEnd()).sort();
}

Deno.test("the public surface is as recorded", async () => {
  const entries = Object.entries(config.exports);
  const parts = await Promise.all(
    entries.map(async ([name, file]) => `${name}\n  ${(await surfaceOf(file)).join("\n  ")}\n`),
  );
  const text = parts.join("\n");
  const golden = new URL("../snapshots/public_surface.txt", import.meta.url);
  if (Deno.env.has("UPDATE_SNAPSHOTS")) await Deno.writeTextFile(golden, text);
  assertEquals(
    text,
    (await Deno.readTextFile(golden)).replaceAll("\r\n", "\n"),
    "if meant: run with UPDATE_SNAPSHOTS=1",
  );
});
