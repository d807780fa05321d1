/** Every command of the README and the other pages, run as it stands there in a fresh copy of what git has. */
import { assert, assertEquals } from "@std/assert";
import { pathKind } from "../../models/load/files/byte_source.ts";
import { commandsOf, pages, scriptOf } from "./pages.ts";

const root = new URL("../../", import.meta.url).pathname;
const { tasks } = JSON.parse(Deno.readTextFileSync(`${root}deno.json`)) as { tasks: Record<string, unknown> };

async function output(command: string, args: string[], options: Deno.CommandOptions): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args, ...options }).output();
  const text = new TextDecoder().decode(stdout);
  assert(success, `${args.join(" ")}\n${text.slice(-3000)}${new TextDecoder().decode(stderr).slice(-6000)}`);
  return text;
}

/** The files that git has or would take. */
const files = (await output("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], { cwd: root }))
  .split("\0").filter((name) => name !== "" && pathKind(`${root}${name}`) === "file");
const markdown = files.filter((name) => name.endsWith(".md") && !name.startsWith("tests/"));
const commands = new Map(markdown.map((name) => [name, commandsOf(Deno.readTextFileSync(`${root}${name}`))] as const));

const parent = await Deno.makeTempDir();
const copy = `${parent}/lowrank`; // as a clone is called
globalThis.addEventListener("unload", () => Deno.removeSync(parent, { recursive: true }));
for (const name of files) {
  await Deno.mkdir(`${copy}/${name}`.replace(/[^/]*$/, ""), { recursive: true });
  await Deno.copyFile(`${root}${name}`, `${copy}/${name}`);
}

/** Brings a model of .cache into the copy; says whether it is here. */
async function download(model: string): Promise<boolean> {
  if (pathKind(`${root}.cache/${model}`) === null) return false;
  await Deno.mkdir(`${copy}/.cache/${model}`, { recursive: true });
  for (const { name } of Deno.readDirSync(`${root}.cache/${model}`)) {
    const to = `${copy}/.cache/${model}/${name}`;
    if (pathKind(to) === null) await Deno.copyFile(`${root}.cache/${model}/${name}`, to);
  }
  return true;
}

/** Where `deno` is this one, and `lowrank` what the pages mean by it. */
const env = { PATH: `${Deno.execPath().replace(/[/\\][^/\\]*$/, "")}:${Deno.env.get("PATH")}`, NO_COLOR: "1" };
// Every page begins as in a fresh clone.
const prelude = 'set -e\nrm -rf out\nlowrank() { ./task lowrank "$@"; }\n';

for (const [page, all] of commands) {
  if (all.length === 0) continue;
  const script = scriptOf(page, all);
  const model = pages[page]?.needs;
  const absent = model !== undefined && !await download(model);
  const missing = `.cache/${model} is not here (./task model:${model} brings it)`;
  Deno.test({
    name: absent ? `${page}: skipped, ${missing}` : `${page}: its commands`,
    ignore: absent || script === null,
    fn: async () => void await output("sh", ["-c", prelude + script], { cwd: copy, env }),
  });
}

Deno.test("the table of commands names pages that there are", () => {
  assertEquals(Object.keys(pages).filter((page) => !commands.has(page)), []);
});

/** Pieces of the pages' text that are commands. */
const inline = markdown.flatMap((page) => {
  const text = Deno.readTextFileSync(`${root}${page}`).replace(/^```[^]*?^```/gm, "");
  return [...text.matchAll(/`([^`\n]+)`/g)].map(([, code]) => code);
});

Deno.test("tasks that a page names are there", () => {
  const named = [...inline, ...[...commands.values()].flat()]
    .flatMap((text) => [...text.matchAll(/(?:\.\/task|deno task) +([\w:]+)/g)].map(([, task]) => task));
  assertEquals([...new Set(named)].filter((task) => !Object.hasOwn(tasks, task)), []);
});

Deno.test("programs that a page names are there, and need no registry that may be out of reach", async () => {
  const named = inline.flatMap((code) => /\bdeno (?:run|bench) .*?([\w/.]+\.ts)\b/.exec(code)?.slice(1) ?? []);
  const programs = [...new Set(named)];
  assert(programs.length > 8, programs.join());
  for (const program of programs) {
    const info = JSON.parse(await output("deno", ["info", "--json", program], { cwd: copy, env }));
    const modules = info.modules as { specifier: string; error?: string }[];
    const far = modules.filter(({ specifier, error }) => specifier.startsWith("jsr:") || error !== undefined);
    assertEquals(far.map(({ specifier }) => specifier), [], program);
  }
});

Deno.test("./task browser serves its page until it is ended", async () => {
  const options: Deno.CommandOptions = { args: ["browser", "8765"], cwd: copy, env, stdout: "piped", stderr: "null" };
  const child = new Deno.Command("./task", options).spawn();
  let said = "";
  for await (const piece of child.stdout.pipeThrough(new TextDecoderStream())) {
    said += piece;
    if (!said.includes("open http://localhost:8765")) continue;
    const page = await fetch("http://127.0.0.1:8765/");
    assertEquals([page.status, (await page.text()).includes("<html")], [200, true]);
    child.kill("SIGTERM");
  }
  await child.status;
  assert(said.includes("open http://localhost:8765"), said);
});
