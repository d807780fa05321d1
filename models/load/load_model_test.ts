import { assertEquals } from "@std/assert";
import { architectures } from "./load_model.ts";
import { ggufArchitectures } from "./gguf/names.ts";

Deno.test("the page of models has a row for every architecture that is loaded, and no other", () => {
  const page = Deno.readTextFileSync(`${import.meta.dirname}/../../docs/models.md`);
  const rows = [...page.matchAll(/^\| `(\w+)` .*\| (\S+) +\|$/gm)].slice(1).map(([, name, gguf]) => ({ name, gguf }));
  assertEquals(rows.map(({ name }) => name), architectures);
  assertEquals(rows.filter(({ gguf }) => gguf === "yes").map(({ name }) => name).sort(), [...ggufArchitectures].sort());
});
