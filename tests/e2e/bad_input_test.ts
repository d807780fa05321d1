import { assertEquals, assertMatch } from "@std/assert";
import { type BadInput, badInputs } from "./bad_input.ts";
import { errorsPage } from "../../tools/write_errors_page.ts";
import { writeTinyModel } from "./tiny_model.ts";

const root = new URL("../../", import.meta.url);
const { tasks } = JSON.parse(await Deno.readTextFile(new URL("deno.json", root)));
/** The permissions that the documents give train.ts; what is not among them must not be needed. */
const permissions: string[] = [...tasks.train.command.match(/--allow-\S+/g), "--allow-env=LOWRANK_CALL"];

for (const [part, entries] of Object.entries(badInputs)) {
  for (const entry of entries) {
    // Other processes can't be sent Ctrl-C on Windows, and elsewhere than on Linux a driver can't be hidden by a variable.
    const ignore = (entry.interrupt && Deno.build.os === "windows") || (!!entry.env && Deno.build.os !== "linux");
    Deno.test({ name: `bad input: ${part}: ${entry.name}`, ignore }, () => check(entry));
  }
}

Deno.test("docs/errors.md is the table of bad inputs", async () => {
  const page = await Deno.readTextFile(new URL("docs/errors.md", root));
  assertEquals(page.replaceAll("\r\n", "\n"), errorsPage(), "run: deno task docs:errors");
});

async function check(entry: BadInput): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await writeTinyModel(`${folder}/model`);
    await Deno.writeTextFile(`${folder}/rows.jsonl`, '{"text":"one row"}\n{"prompt":"another ","completion":"row"}\n');
    if (entry.before) {
      const { code, output } = await runIn(folder, { args: entry.before });
      assertEquals(code, 0, output);
    }
    await entry.files?.(folder);
    const { code, output } = await runIn(folder, entry);
    assertMatch(output, patternOf(entry.sentence), `${entry.name} printed:\n${output}`);
    assertEquals(code, entry.code, output);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** A sentence as a pattern: `…` is any text. */
function patternOf(sentence: string): RegExp {
  return new RegExp(sentence.split("…").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("[^]*?"));
}

type Call = Pick<BadInput, "args" | "program" | "env" | "interrupt">;

/** Runs the command in `folder`, where relative paths begin; gives its exit code and what it printed to standard error. */
async function runIn(folder: string, entry: Call): Promise<{ code: number; output: string }> {
  const [program, args] = entry.args[0] === "lowrank" ? ["cli.ts", entry.args.slice(1)] : ["train.ts", entry.args];
  let script = new URL(program, root).href;
  if (entry.program !== undefined) {
    script = `${folder}/program.ts`;
    await Deno.writeTextFile(script, entry.program);
  }
  // Bare names are mapped by a file, so that they are the same for a program outside the project.
  const map = new URL("offline.json", root).href;
  const child = new Deno.Command("deno", {
    args: ["run", "--quiet", "--no-prompt", "--no-lock", "--import-map", map, ...permissions, script, ...args],
    cwd: folder,
    env: { NO_COLOR: "1", LOWRANK_CALL: "lowrank", ...entry.env },
    stdout: "null",
    stderr: "piped",
  }).spawn();
  let output = "";
  for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
    if (entry.interrupt && !output.includes("step ") && text.includes("step ")) child.kill("SIGINT");
    output += text;
  }
  return { code: (await child.status).code, output };
}
