/** Pages that are written from tables are as the tables say. */
import { assertEquals } from "@std/assert";
import { ggufPage } from "../../tools/write_gguf_page.ts";
import { withModels } from "../../tools/write_models_table.ts";
import { operationsPage } from "../../tools/write_operations_page.ts";

/** A table's cells, without what the formatter does to it. */
const cells = (text: string) => text.replaceAll("\r\n", "\n").replace(/ *\| */g, "|").replace(/[-—\s]+/g, " ");

Deno.test("docs/operations.md is the registry's", async () => {
  const page = await Deno.readTextFile("docs/operations.md");
  assertEquals(cells(page), cells(operationsPage()), "run: deno task docs:operations");
});

Deno.test("docs/gguf.md is the reader's table", async () => {
  const page = await Deno.readTextFile("docs/gguf.md");
  assertEquals(cells(page), cells(ggufPage()), "run: deno task docs:gguf");
});

Deno.test("docs/models.md has the table of the architectures", async () => {
  const page = await Deno.readTextFile("docs/models.md");
  assertEquals(cells(page), cells(withModels(page)), "run: deno task docs:models");
});
