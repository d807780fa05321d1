/**
 * :LowrankExplain. The buffer's module runs in a process of its own that may only read: a Worker's permissions need an
 * unstable flag, and without it the whole of denops would end. The split is `lowrank://FILE`; a write of FILE refreshes it.
 */
import type { Denops, Entrypoint } from "@denops/std";
import { dirname, join } from "node:path";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** Gives the editor its one method, `explain(buffer)`. */
export const main: Entrypoint = (denops) => {
  denops.dispatcher = {
    async explain(buffer) {
      const file = await denops.call("fnamemodify", await denops.call("bufname", buffer), ":p") as string;
      const page = await explainModule(file);
      if ("error" in page) await denops.cmd(`redraw | echomsg 'lowrank: ${page.error.replaceAll("'", "''")}'`);
      else await show(denops, buffer as number, file, page.lines);
    },
  };
};

/** The page of the module's `explainThis`, or why there is none, in one line. */
async function explainModule(file: string): Promise<{ lines: string[] } | { error: string }> {
  if (!existsSync(file)) return { error: `${file || "this buffer"} is no file yet: write it first` };
  const config = nearestConfig(dirname(file));
  const program = fileURLToPath(new URL("./explain_module.ts", import.meta.url));
  const args = ["run", "--quiet", "--no-lock", "--no-prompt", "--allow-read"];
  if (config) args.push("--config", config);
  const child = new Deno.Command(Deno.execPath(), {
    args: [...args, program, file],
    cwd: dirname(file),
    env: { NO_COLOR: "1" },
  });
  const { success, stdout, stderr } = await child.output();
  const text = new TextDecoder().decode(success ? stdout : stderr).trimEnd();
  if (success) return { lines: text.split("\n") };
  return { error: text.split("\n")[0].replace(/^error: /, "") };
}

/** The deno.json that the module's own imports are resolved by. */
function nearestConfig(folder: string): string | undefined {
  const found = ["deno.json", "deno.jsonc"].map((name) => join(folder, name)).find((path) => existsSync(path));
  return found ?? (dirname(folder) === folder ? undefined : nearestConfig(dirname(folder)));
}

/** Puts the page into the split of `file`, made at first; the cursor of each window stays where it was. */
async function show(denops: Denops, buffer: number, file: string, lines: string[]): Promise<void> {
  const name = `lowrank://${file}`;
  const page = await denops.call("bufadd", name) as number;
  const isNew = !(await denops.call("bufloaded", page));
  await denops.call("bufload", page);
  await denops.call("setbufvar", page, "&modifiable", 1);
  const before = (await denops.call("getbufline", page, 1, "$") as string[]).length;
  await denops.call("setbufline", page, 1, lines);
  if (before > lines.length) await denops.call("deletebufline", page, lines.length + 1, "$");
  if (isNew) {
    for (
      const [option, value] of Object.entries({ buftype: "nofile", swapfile: 0, bufhidden: "hide", filetype: "wgsl" })
    ) {
      await denops.call("setbufvar", page, `&${option}`, value);
    }
    await denops.cmd("augroup lowrank_explain | augroup END");
    await denops.cmd(
      `autocmd! lowrank_explain BufWritePost <buffer=${buffer}> call denops#notify('lowrank', 'explain', [${buffer}])`,
    );
  }
  await denops.call("setbufvar", page, "&modifiable", 0);
  if (await denops.call("bufwinid", page) !== -1) return;
  // A fold for each dispatch; the graph and the plan stand open above them.
  await denops.cmd(
    `belowright vsplit | buffer ${page} | setlocal foldmethod=expr foldlevel=0 ` +
      `foldexpr=getline(v:lnum)=~#'^step\\ '?'>1':'=' | wincmd p`,
  );
}
