import { assert, assertEquals } from "@std/assert";
import { linkTo } from "../../../tests/attack/command.ts";
import { dyingAfter } from "../../../tests/attack/dying.ts";
import { writeFlushed } from "./atomic_file.ts";
import { pathKind } from "./byte_source.ts";
import { currentPath, stageFolder } from "./staged_folder.ts";

type Contents = Readonly<Record<string, string>>;

const isStale = (name: string) => ["key", "weights", "template", "more"].includes(name);

function put(folder: string, contents: Contents): void {
  using staging = stageFolder(folder);
  for (const [name, text] of Object.entries(contents)) {
    writeFlushed(`${staging.path}/${name}`, text);
  }
  staging.commit("key", isStale);
}

/** What a program finds that knows nothing of how folders are written; null where it finds no key. */
function seen(folder: string, at = (name: string) => `${folder}/${name}`): Contents | null {
  const names = ["key", "weights", "template", "more"].filter((name) => pathKind(at(name)) !== null);
  return names.includes("key")
    ? Object.fromEntries(names.map((name) => [name, Deno.readTextFileSync(at(name))]))
    : null;
}

/** Old and new contents that differ in all, in one file, by files that come and go, and not at all. */
const changes: [Contents | null, Contents][] = [
  [null, { key: "a", weights: "1" }],
  [{ key: "a", weights: "1" }, { key: "b", weights: "2" }],
  [{ key: "a", weights: "1" }, { key: "a", weights: "2" }],
  [{ key: "a", weights: "1" }, { key: "a", weights: "1" }],
  [{ key: "a", weights: "1", template: "t" }, { key: "b", weights: "2", more: "m" }],
  [{ key: "a", weights: "1", template: "t" }, { key: "a", weights: "1" }],
  [{ key: "a", weights: "1", more: "m" }, { key: "a", weights: "2", more: "n" }],
];

Deno.test("a folder that is replaced is the old one, the new one or none, wherever its writer ends", () => {
  for (const [before, after] of changes) {
    let nothing = 0;
    for (let calls = 0, done = false; !done; calls++) {
      const folder = Deno.makeTempDirSync();
      Deno.writeTextFileSync(`${folder}/theirs`, "stays");
      if (before) put(folder, before);
      done = dyingAfter(calls, () => put(folder, after));
      const found = seen(folder);
      if (found === null) nothing++;
      else assertEquals([found], [JSON.stringify(found) === JSON.stringify(before) ? before : after]);
      // What is on its way counts for who knows of it; only files that the new contents have not may still be there.
      const ours = seen(folder, (name) => currentPath(folder, name));
      assertEquals(ours === null, before === null && found === null && !done && ours === null);
      if (ours) {
        for (const [name, text] of Object.entries(ours)) assert([before?.[name], after[name]].includes(text));
      }
      put(folder, after);
      assertEquals(seen(folder), after);
      assertEquals(Deno.readTextFileSync(`${folder}/theirs`), "stays");
      assertEquals(pathKind(`${folder}/.new`), null);
      Deno.removeSync(folder, { recursive: true });
    }
    assert(nothing > 0 || before !== null);
  }
});

Deno.test({ name: "what another put in the way is never written through", ignore: Deno.build.os === "windows" }, () => {
  const [folder, elsewhere] = [Deno.makeTempDirSync(), Deno.makeTempDirSync()];
  Deno.writeTextFileSync(`${elsewhere}/victim`, "untouched");
  for (const name of ["key", "weights", ".new"]) linkTo(`${elsewhere}/victim`, `${folder}/${name}`);
  put(folder, { key: "a", weights: "1" });
  linkTo(elsewhere, `${folder}/.new`);
  Deno.writeTextFileSync(`${elsewhere}/plan.json`, '{"key":"victim","stale":["../victim"]}');
  put(folder, { key: "b", weights: "2" });
  assertEquals([seen(folder), Deno.readTextFileSync(`${elsewhere}/victim`)], [{ key: "b", weights: "2" }, "untouched"]);
  Deno.mkdirSync(`${folder}/.new`);
  Deno.writeTextFileSync(`${folder}/.new/plan.json`, '{"key":"key","stale":["../../victim"]}');
  put(folder, { key: "c", weights: "3" });
  assertEquals(seen(folder), { key: "c", weights: "3" });
  for (const path of [folder, elsewhere]) Deno.removeSync(path, { recursive: true });
});
