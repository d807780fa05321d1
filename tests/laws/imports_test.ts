/** How the sources import each other: in one direction, without cycles, and nothing of the examples. */
import { assert, assertEquals } from "@std/assert";
import { dirname, join } from "node:path/posix";
import { filesUnder, textOf } from "../sources.ts";

/** What each folder may import besides itself. An entry (`mod.ts`, `train/mod.ts`) gathers what it exports from all of them. */
const folders: Record<string, readonly string[]> = {
  core: [],
  lora: ["core"],
  kernels: ["core"],
  models: ["core"],
  data: ["core", "models"],
  formats: ["core", "lora", "kernels", "models"],
  train: ["core", "lora", "kernels", "models", "data", "formats"],
  report: ["core", "lora", "kernels", "models", "data", "formats", "train"],
  cli: ["core", "lora", "kernels", "models", "data", "formats", "train", "report"],
  testing: ["core", "lora", "kernels", "models"],
};
const entries = ["mod.ts", "train/mod.ts", "testing/mod.ts", "cli.ts"];
/** The longest that a file may be. */
const mostLines = 400;

const files = [...Object.keys(folders).flatMap((folder) => [...filesUnder(`${folder}/`)]), "mod.ts", "cli.ts"];
const sources = files.filter((file) => !file.endsWith("_test.ts"));
const imports = new Map(sources.map((file) => [
  file,
  [...textOf(file).matchAll(/(?:\bfrom|\bimport\(?)\s*"(\.{1,2}\/[^"]+\.ts)"/g)].map(([, path]) =>
    join(dirname(file), path)
  ),
]));

Deno.test("a folder imports only from those to its left", () => {
  assert(sources.length > 200, `${sources.length} files were found`);
  const wrong = [...imports].flatMap(([file, paths]) => {
    const [folder] = file.split("/");
    if (entries.includes(file)) {
      return paths.filter((path) => !(path.split("/")[0] in folders)).map((path) => `${file} imports ${path}`);
    }
    return paths.filter((path) => ![folder, ...folders[folder]].includes(path.split("/")[0])).map((path) =>
      `${file} imports ${path}`
    );
  });
  assertEquals(wrong, []);
});

Deno.test("no file imports itself, by way of others either", () => {
  const circles: string[] = [], done = new Set<string>();
  const walk = (file: string, way: readonly string[]) => {
    if (way.includes(file)) return void circles.push([...way.slice(way.indexOf(file)), file].join(" → "));
    if (done.has(file)) return;
    for (const next of imports.get(file) ?? []) walk(next, [...way, file]);
    done.add(file);
  };
  for (const file of sources) walk(file, []);
  assertEquals(circles, []);
});

Deno.test(`no file has more than ${mostLines} lines`, () => {
  const long = files.map((file) => [file, textOf(file).split("\n").length - 1] as const).filter(([, n]) =>
    n > mostLines
  );
  assertEquals(long, []);
});

Deno.test("what a file exports is imported by another", () => {
  const others = ["tests/", "tools/", "bench/", "examples/", "docs/recipes/", "denops/"].flatMap((folder) => [
    ...filesUnder(folder),
  ]);
  const users = new Map(
    [...files, ...others, "train.ts", "demo.ts"].map((file) => [file, new Set(textOf(file).match(/\w+/g))]),
  );
  const unused = sources.filter((file) => !entries.includes(file)).flatMap((file) =>
    [...textOf(file).matchAll(/^export (?:async )?(?:function\*?|const|class) (\w+)/gm)]
      .filter(([, name]) => ![...users].some(([other, words]) => other !== file && words.has(name)))
      .map(([, name]) => `${file}: ${name}`)
  );
  assertEquals(unused, []);
});
