/** What the package exports, name by name: a change of it is a change of this golden file, and of the changelog. */
import { assertEquals } from "@std/assert";
import config from "../../deno.json" with { type: "json" };
import { isOptions, parametersOf } from "./surface.ts";

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

const entries = Object.entries(config.exports);
/** The places in what an entry point exports, members and helper types too, that are of the type `any`. */
async function anysOf(file: string): Promise<string[]> {
  const args = ["doc", "--json", "--import-map=offline.json", file];
  const { stdout } = await new Deno.Command("deno", { args }).output();
  const found: string[] = [];
  const walk = (x: unknown, way: readonly string[]) => {
    if (x === null || typeof x !== "object") return;
    const { kind, value } = x as { kind?: unknown; value?: unknown };
    if (kind === "keyword" && value === "any") found.push(way.join("."));
    for (const [key, item] of Object.entries(x)) walk(item, [...way, (item as { name?: string } | null)?.name ?? key]);
  };
  walk(JSON.parse(new TextDecoder().decode(stdout)).nodes, []);
  return found;
}

const surfaces = await Promise.all(entries.map(([, file]) => surfaceOf(file)));

Deno.test("the public surface is as recorded", async () => {
  const text = entries.map(([name], i) => `${name}\n  ${surfaces[i].join("\n  ")}\n`).join("\n");
  const golden = new URL("../snapshots/public_surface.txt", import.meta.url);
  if (Deno.env.has("UPDATE_SNAPSHOTS")) await Deno.writeTextFile(golden, text);
  assertEquals(
    text,
    (await Deno.readTextFile(golden)).replaceAll("\r\n", "\n"),
    "if meant: run with UPDATE_SNAPSHOTS=1",
  );
});

Deno.test("no exported type is any, nor has one within", async () => {
  for (const [, file] of entries) assertEquals(await anysOf(file), [], file);
  const own = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    await Deno.writeTextFile(own, "export interface Box { readonly content: readonly any[] }");
    assertEquals((await anysOf(own)).length, 1, "one would be found");
  } finally {
    await Deno.remove(own);
  }
});

Deno.test("options follow at most two other arguments; tensors, which are computed with, are not counted", () => {
  const isComputedWith = (parameter: string) => /: (Operand|[A-Z])$/.test(parameter); // a tensor, or a tree of them
  const many = surfaces.flat().filter((signature) => {
    const parameters = parametersOf(signature);
    const others = parameters.filter((p) => !isOptions(p) && !isComputedWith(p));
    return parameters.some(isOptions) && (others.length > 2 || !isOptions(parameters.at(-1)!));
  });
  assertEquals(many, []);
  assertEquals(parametersOf("function f<A>(g: (a: A, b: B) => C, {x, y}: D): E"), [
    "g: (a: A, b: B) ⇒ C",
    "{x, y}: D",
  ]);
});
