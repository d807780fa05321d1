import { assert, assertEquals, assertRejects } from "@std/assert";
import { FileError } from "../core/errors.ts";
import type { Terminal } from "./command.ts";
import { command } from "./report.ts";

/** A terminal that remembers. */
function memory() {
  const lines: string[] = [];
  const results: unknown[] = [];
  const keep = (line: string) => void lines.push(line);
  const terminal: Terminal = {
    ...{ json: false, quiet: false, color: false, columns: 80, print: keep, say: keep, warn: keep },
    write: (piece) => lines.push(piece) > 0,
    result: (value) => void results.push(value),
  };
  return { lines, results, terminal };
}

const metrics = [
  {
    ...{ event: "run", started: "2026-01-02T03:04:05Z", steps: 1, from: 0, environment: {}, adapter: [] },
    configuration: { model: "tiny" },
  },
  { event: "step", step: 1, loss: 2, gradNorm: 1, lr: 0.1, tokens: 9, seconds: 1, deviceBytes: 1, processBytes: 2 },
].map((event) => JSON.stringify(event) + "\n").join("");

Deno.test("the page stands beside the metrics, or where it is asked for", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/metrics.jsonl`, metrics);
    const { lines, results, terminal } = memory();
    await command.run([folder], terminal);
    await command.run([`${folder}/metrics.jsonl`, "--out", `${folder}/other.html`, "--title", "A <title>"], terminal);
    assertEquals(lines, [`written   ${folder}/report.html`, `written   ${folder}/other.html`]);
    assertEquals(results[0], { page: `${folder}/report.html`, steps: 1, evaluations: 0 });
    assert((await Deno.readTextFile(`${folder}/report.html`)).includes("<h1>tiny</h1>"));
    assert((await Deno.readTextFile(`${folder}/other.html`)).includes("<h1>A &lt;title&gt;</h1>"));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a folder without metrics is named, and nothing is written", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await assertRejects(() => command.run([folder], memory().terminal), FileError, `${folder}/metrics.jsonl`);
    await assertRejects(() => command.run([], memory().terminal), Error, "no run is named: give its folder");
    assertEquals([...Deno.readDirSync(folder)].length, 0);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
