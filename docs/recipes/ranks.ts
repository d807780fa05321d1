// deno run --allow-read --allow-write=out docs/recipes/ranks.ts [STEPS [TEST_ROWS]]
/**
 * How much rank does a task need? The letters task with rank 1, 2, 4, 8 and 16 at constant alpha / r, so that every adapter
 * moves its weights as far: quality and size in a table (out/ranks/ranks.md) and a figure (out/ranks/ranks.svg).
 */
import { lora, openDevice } from "@lowrank/lowrank";
import { loadModel } from "@lowrank/lowrank/models";
import * as t from "@lowrank/lowrank/train";
import * as letters from "../../examples/letters/mod.ts";
import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";

const [steps, testRows] = [Number(Deno.args[0] ?? 240), Number(Deno.args[1] ?? 100)];
const ranks = [1, 2, 4, 8, 16], batch = 6;

using device = await openDevice("cpu");
using model = await loadModel("assets/letters-base", { device });
const tokenizer = model.tokenizer();
const task = letters.lettersTask(tokenizer);
const data = Array.from({ length: steps * batch }, (_, i) => task.examples.at(i)!);
const test = task.test.slice(0, testRows);
const prompts = test.map(({ prompt }) => prompt);
const kept = test.map(({ text, values }) =>
  t.encodeRow({ prompt: text, completion: JSON.stringify(values) }, tokenizer)
);
const answer = t.answerer(model, tokenizer, { maxNewTokens: task.maxNewTokens });

interface Found {
  readonly rank: number;
  /** Bytes of the adapter's numbers, f32. */
  readonly bytes: number;
  readonly loss: number;
  readonly score: letters.Score;
}
const found: Found[] = [];
for (const r of ranks) {
  const tuned = lora(model, { r, alpha: 2 * r, targets: "all-linear" });
  const bar = t.progressBar(steps);
  const run = await t.train<any, any>(tuned, { ...task.settings, steps, batch, data, onStep: bar.update });
  bar.end();
  const { loss } = await t.evaluator<any, any>(tuned, kept)(run.trainable);
  const score = letters.scoreAnswers(await answer(t.mergeParams(tuned, run.trainable), prompts), test);
  found.push({ rank: r, bytes: t.sizeOfTree(run.trainable).bytes, loss, score });
  console.log(`rank ${r}: loss ${loss.toFixed(4)}, ${letters.describeScore(score)}`);
}

const share = ({ score }: Found) => `${(100 * score.values / score.of).toFixed(0)} %`;
const table = [
  "| rank | adapter | loss on held-out letters | answers with all values right |",
  "| ---: | ------: | ------------------------: | ----------------------------: |",
  ...found.map((f) => `| ${f.rank} | ${t.formatBytes(f.bytes)} | ${f.loss.toFixed(4)} | ${share(f)} |`),
];
Deno.mkdirSync("out/ranks", { recursive: true });
Deno.writeTextFileSync("out/ranks/ranks.md", `${table.join("\n")}\n`);
Deno.writeTextFileSync("out/ranks/ranks.svg", draw(found));
console.log(table.join("\n"));

/** Right answers over the rank, each point with its adapter's size; colours that light and dark pages bear alike. */
function draw(found: readonly Found[]): string {
  const { document } = parseHTML("<html></html>") as any;
  const point = { x: "rank", y: ({ score }: Found) => 100 * score.values / score.of };
  return Plot.plot({
    document,
    ...{ width: 640, height: 300, marginLeft: 52, marginRight: 16, marginBottom: 38, marginTop: 30 },
    style: { fontSize: "12px", fontFamily: "system-ui, sans-serif", background: "none", color: "#7d8590" },
    x: { type: "log", base: 2, label: "rank", ticks: ranks, tickFormat: String, inset: 36 },
    y: { label: "answers with all values right (%)", grid: true, ticks: 5, domain: [0, 100] },
    marks: [
      Plot.lineY(found, { ...point, stroke: "#3f7fe0", strokeWidth: 2 }),
      Plot.dot(found, { ...point, fill: "#3f7fe0", r: 4 }),
      Plot.text(found, { ...point, text: (f) => t.formatBytes(f.bytes), dy: -14 }),
    ],
  }).outerHTML.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"') + "\n";
}
