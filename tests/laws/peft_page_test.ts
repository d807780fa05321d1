/** docs/peft.md keeps to what there is: options by their names, tests that exist. */
import { assert } from "@std/assert";
import { optionsOf, refusedOptions } from "../../lora/check_options.ts";
import { methods } from "../../lora/methods/mod.ts";
import { starts } from "../../lora/methods/starts.ts";
import { pathKind } from "../../models/load/files/byte_source.ts";

const root = `${import.meta.dirname}/../..`;
const page = Deno.readTextFileSync(`${root}/docs/peft.md`);
const table = page.slice(0, page.indexOf("## Where it differs"));
const rows = table.split("\n").filter((line) => line.startsWith("| ")).slice(1).filter((line) =>
  !line.startsWith("| -")
);

Deno.test("every option of every method has its row in docs/peft.md, under PEFT's name", () => {
  const options = Object.values(methods).flatMap((method) => Object.entries(optionsOf(method)));
  for (const [name, { peft }] of options) {
    if (peft === null) continue; // PEFT draws from the process's own state
    const row = rows.find((row) => row.split("|")[1].includes(peft));
    assert(row !== undefined, `no row for ${peft}`);
    assert(
      rows.some((row) => row.split("|")[1].includes(peft) && row.split("|")[2].includes(name)),
      `${peft} is ${name}`,
    );
  }
});

Deno.test("every row names a golden case or a test that is there", () => {
  for (const row of rows) {
    const shown = [...row.split(" | ").at(-1)!.matchAll(/`([^`]+)`/g)].map((found) => found[1]);
    assert(shown.length > 0, `nothing shows ${row}`);
    for (const name of shown) {
      const path = name.endsWith(".ts") ? `${root}/${name}` : `${root}/tests/goldens/cases/${name}/case.json`;
      assert(pathKind(path) === "file", `${name} is not there`);
    }
  }
});

Deno.test("what is refused by name is documented", () => {
  for (const name of [...starts.map((start) => start.name), ...Object.keys(refusedOptions)]) {
    const part = name.replace(/_config$|_core$|_group_size$/, "").replace("qalora", "use_qalora").replace(
      "use_use_",
      "use_",
    );
    assert(page.includes(part), `docs/peft.md does not say why there is no ${name}`);
  }
});
