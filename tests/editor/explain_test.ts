import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { makeModule } from "./modules.ts";
import { main } from "../../denops/lowrank/main.ts";
import { findNvim, startNvim } from "./nvim.ts";
import { StandIn } from "./stand_in.ts";

const explain = (editor: { denops: StandIn["denops"] }, buffer: number) =>
  (editor.denops.dispatcher.explain as (buffer: number) => Promise<void>)(buffer);

Deno.test("the editor shows a module's kernels, and again after a write", async () => {
  using module = makeModule("shape: [8, 4]");
  const editor = new StandIn();
  await main(editor.denops);
  const buffer = editor.open(module.file);
  await explain(editor, buffer);
  const page = editor.buffers[1];
  assertEquals(page.name, `lowrank://${module.file}`);
  assertEquals(page.variables["&filetype"], "wgsl");
  assertEquals(page.variables["&modifiable"], 0);
  assertStringIncludes(page.lines.join("\n"), "f32[8,4]");
  assertEquals(editor.commands.filter((c) => c.includes("vsplit")).length, 1);
  assertEquals(editor.commands.filter((c) => c.includes("BufWritePost")).length, 1);
  module.write("shape: [16, 4]");
  await explain(editor, buffer);
  assertStringIncludes(page.lines.join("\n"), "f32[16,4]");
  assert(!page.lines.join("\n").includes("f32[8,4]"));
  assertEquals(editor.commands.filter((c) => c.includes("vsplit")).length, 1, "one split, refreshed");
});

Deno.test("what can't be explained is one echoed line", async (t) => {
  const cases = {
    "a module without the export": ["export const other = 1;", "add three lines: import { explain, newInput }"],
    "a module that does not parse": ["export const = ;", "'"],
    "a shape that does not fit": [
      'import { explain, matmul, newInput } from "@lowrank/lowrank";\n' +
      'const x = newInput({ shape: [2, 3], dtype: "f32" });\n' +
      "export const explainThis = () => explain((x) => matmul(x, x))(x);",
      "Cannot",
    ],
    "a module that wants to write": ['Deno.writeTextFileSync("out.txt", ""); export {};', "Requires write access"],
    "a page that is none": ["export const explainThis = () => 3;", "explainThis returned number, not a page"],
  };
  for (const [name, [text, expected]] of Object.entries(cases)) {
    await t.step(name, async () => {
      using module = makeModule("");
      module.writeText(text);
      const editor = new StandIn();
      await main(editor.denops);
      await explain(editor, editor.open(module.file));
      assertEquals(editor.buffers.length, 1, "no split");
      assertEquals(editor.commands.length, 1);
      assertStringIncludes(editor.commands[0], expected);
      assert(!editor.commands[0].includes("\n"));
    });
  }
});

const nvim = findNvim();
Deno.test({
  name: nvim ? "Neovim: the split follows a write and keeps its cursor" : "Neovim is not here: its test is skipped",
  ignore: nvim === undefined,
  async fn() {
    using module = makeModule("shape: [8, 4]");
    const editor = startNvim(nvim!, module.folder);
    const { denops } = editor;
    await main(denops);
    await denops.cmd(`edit ${module.file}`);
    await denops.cmd("LowrankExplain");
    await denops.eval("1"); // The notification comes before this answer.
    await editor.settled();
    assertEquals(await denops.eval("winnr('$')"), 2);
    assertEquals(await denops.eval("winnr()"), 1, "the cursor stays in the module");
    assertEquals(await denops.eval("getbufvar(winbufnr(2), '&filetype')"), "wgsl");
    await denops.cmd("2wincmd w");
    assert(await denops.eval("foldclosed(search('^step 0', 'n'))") as number > 0, "a dispatch is folded");
    await denops.cmd("normal! 3G");
    await denops.cmd("1wincmd w");
    await denops.cmd("%s/\\[8, 4\\]/[16, 4]/ | write");
    await denops.eval("1");
    await editor.settled();
    assertStringIncludes((await denops.eval("getbufline(winbufnr(2), 1, '$')") as string[]).join("\n"), "f32[16,4]");
    assertEquals(await denops.eval("line('.', win_getid(2))"), 3);
    await denops.cmd("%d | write");
    await denops.eval("1");
    await editor.settled();
    assertStringIncludes(await denops.call("execute", "messages") as string, "exports no explainThis");
    await editor.close();
  },
});
