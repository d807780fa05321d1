/** Tables of the pages: a cell that holds a bar is easily cut by it. */
import { assert, assertEquals } from "@std/assert";

const root = new URL("../../", import.meta.url);

/** Markdown files of the project's own. */
function* pages(folder = ""): Generator<string> {
  for (const { name, isFile, isDirectory } of Deno.readDirSync(new URL(folder, root))) {
    if (isFile && name.endsWith(".md")) yield folder + name;
    else if (isDirectory && !/^(\.|node_modules$|out$)/.test(name)) yield* pages(`${folder}${name}/`);
  }
}

/** How many cells a row has: bars that are not escaped part them, in code, too. */
const cells = (row: string) => row.trim().replace(/^\||(?<!\\)\|$/g, "").split(/(?<!\\)\|/);

/** What is amiss with a row below a header of so many cells; the formatter cuts off the cells that are too many. */
function amiss(row: string, count: number): string | null {
  const found = cells(row);
  if (found.length !== count) return `has ${found.length} cells, its header ${count}`;
  const open = found.find((cell) => (cell.match(/`+/g) ?? []).length % 2 === 1);
  return open === undefined ? null : `has a cell that ends within code: ${open.trim()}`;
}

Deno.test("every row of a table has as many cells as its header", () => {
  const wrong: string[] = [];
  let tables = 0;
  for (const page of pages()) {
    const lines = Deno.readTextFileSync(new URL(page, root)).replace(
      /^```[^]*?^```/gm,
      (block) => block.replace(/[^\n]/g, ""),
    ).split("\n");
    for (let i = 1; i < lines.length; i++) {
      if (!/^\s*\|?[\s:|-]*-[\s:|-]*\|[\s:|-]*$/.test(lines[i]) || !lines[i - 1].includes("|")) continue;
      tables++;
      const count = cells(lines[i - 1]).length;
      for (let row = i - 1; row < lines.length && lines[row].includes("|"); row++) {
        const why = amiss(lines[row], count);
        if (why !== null) wrong.push(`${page}:${row + 1} ${why}`);
      }
    }
  }
  assert(tables > 20, `${tables} tables were found`);
  assertEquals(wrong, []);
});
