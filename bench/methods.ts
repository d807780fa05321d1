/**
 * The LoRA paper's comparison on this machine: all parameters, LoRA of several ranks, DoRA, MiSS, OFT, IA3, bottleneck layers
 * and a prefix on one task, with several seeds. A table, as Markdown, and a figure, in out/methods.
 *
 * `./task bench:methods [--task spam|letters] [--steps 40] [--seeds 3] [--test-rows 200] [--model PATH] [--only NAME,NAME]`. Each
 * line is a process of its own, one after the other. Docs: docs/recipes/methods.md.
 */
import { parseArgs } from "node:util";
import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";
import { compared, methodOf } from "./methods_compared.ts";
import type { Found } from "./methods_run.ts";
import { taskNames } from "./methods_tasks.ts";

/** One line with what was found. */
interface Line extends Found {
  readonly name: string;
}

/** Runs one line by itself. */
async function inProcess(asked: object): Promise<any> {
  const script = new URL("methods_run.ts", import.meta.url).pathname;
  const map = new URL("../offline.json", import.meta.url).pathname;
  const { code, stdout } = await new Deno.Command("deno", {
    args: [
      ...["run", "--quiet", "--no-lock", "--no-check", "--import-map", map],
      ...["--allow-read", "--allow-env", "--allow-ffi", script, JSON.stringify(asked)],
    ],
    stderr: "inherit",
  }).output();
  const text = new TextDecoder().decode(stdout).trim().split("\n").at(-1)!;
  if (code !== 0) throw new Error(`${JSON.stringify(asked)} ended with ${code}`);
  return JSON.parse(text);
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

/** The deviation of a sample; nothing of one value. */
function deviation(values: readonly number[]): number {
  const middle = mean(values);
  return values.length < 2 ? 0 : Math.sqrt(values.reduce((sum, x) => sum + (x - middle) ** 2, 0) / (values.length - 1));
}

const count = (n: number) => n >= 1e6 ? `${(n / 1e6).toFixed(1)} M` : n >= 1e3 ? `${(n / 1e3).toFixed(1)} k` : `${n}`;
const bytes = (n: number) => n >= 1e6 ? `${(n / 1e6).toFixed(1)} MB` : `${(n / 1e3).toFixed(1)} kB`;

/** The table of a page: quality with the deviation over seeds, and what each costs. */
function table(lines: readonly Line[], quality: string): string {
  const digits = quality === "loss" ? 4 : 2;
  const heading = ["", quality, "trained", "saved", "step", "peak memory", "latency, unmerged", "merged"];
  const rows = lines.map((l) => [
    l.name,
    `${mean(l.quality).toFixed(digits)} ± ${deviation(l.quality).toFixed(digits)}`,
    ...[count(l.trainable), bytes(l.saved), `${(1000 * l.secondsPerStep).toFixed(0)} ms`, bytes(l.peak)],
    ...[`${l.unmerged.toFixed(1)} ms`, l.merged === null ? "—" : `${l.merged.toFixed(1)} ms`],
  ]);
  const widths = heading.map((name, i) => Math.max(3, name.length, ...rows.map((row) => row[i].length)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, i) => i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])).join(" | ")} |`;
  const rule = `| ${widths.map((width, i) => i === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`).join(" | ")} |`;
  return [line(heading), rule, ...rows.map(line)].join("\n");
}

/** Quality over the number of trained parameters, every seed and their mean; colours that light and dark pages bear alike. */
function draw(lines: readonly Line[], quality: string): string {
  const { document } = parseHTML("<html></html>") as any;
  const seeds = lines.flatMap(({ name, trainable, quality }) => quality.map((y) => ({ name, trainable, y })));
  const means = lines.map(({ name, trainable, quality }) => ({ name, trainable, y: mean(quality) }));
  const ranks = means.filter(({ name }) => name.startsWith("LoRA"));
  return Plot.plot({
    document,
    ...{ width: 640, height: 360, marginLeft: 52, marginRight: 24, marginBottom: 38, marginTop: 30 },
    style: { fontSize: "12px", fontFamily: "system-ui, sans-serif", background: "none", color: "#7d8590" },
    x: { type: "log", label: "trained parameters", tickFormat: "~s", inset: 36 },
    y: { label: quality, grid: true, ticks: 6, inset: 12 },
    marks: [
      Plot.lineY(ranks, { x: "trainable", y: "y", stroke: "#3f7fe0", strokeWidth: 2 }),
      Plot.dot(seeds, { x: "trainable", y: "y", stroke: "#7d8590", r: 2.5 }),
      Plot.dot(means, { x: "trainable", y: "y", fill: "#3f7fe0", r: 4 }),
      Plot.text(means, { x: "trainable", y: "y", text: "name", dy: -12 }),
    ],
  }).outerHTML.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"') + "\n";
}

if (import.meta.main) {
  const { values: flags } = parseArgs({
    args: Deno.args,
    options: {
      task: { type: "string", default: "spam" },
      steps: { type: "string", default: "40" },
      seeds: { type: "string", default: "3" },
      "test-rows": { type: "string", default: "200" },
      model: { type: "string" },
      only: { type: "string" },
      blas: { type: "boolean", default: true },
      out: { type: "string", default: "out/methods" },
    },
    allowNegative: true,
  });
  const whole = (name: "steps" | "seeds" | "test-rows") => {
    const value = Number(flags[name]);
    if (Number.isInteger(value) && value >= 1) return value;
    console.error(`error: --${name} is a whole number from 1, not ${flags[name]}`);
    Deno.exit(2);
  };
  const [steps, seeds, testRows] = [whole("steps"), whole("seeds"), whole("test-rows")];
  if (!taskNames.includes(flags.task)) {
    console.error(`error: there is no task ${flags.task}: choose one of ${taskNames.join(", ")}`);
    Deno.exit(2);
  }
  const only = flags.only?.split(",").map((name) => name.trim());
  const chosen = compared.filter(({ name }) => only === undefined || only.includes(name));
  const lines: Line[] = [], left: string[] = [];
  const quality = flags.task === "spam" ? "accuracy, %" : "loss";
  const page = () => [table(lines, quality), "", ...left.map((why) => `Left out: ${why}.`)].join("\n").trimEnd();
  /** What there is so far: a run that is ended early leaves it. */
  const write = () => {
    Deno.mkdirSync(flags.out, { recursive: true });
    Deno.writeTextFileSync(`${flags.out}/${flags.task}.md`, `${page()}\n`);
    if (lines.length > 0) Deno.writeTextFileSync(`${flags.out}/${flags.task}.svg`, draw(lines, quality));
  };
  for (const line of chosen) {
    if (line.method !== null && methodOf(line) === undefined) {
      left.push(`${line.name}: no method of the name ${line.method}`);
      continue;
    }
    const asked = { task: flags.task, name: line.name, steps, seeds, testRows, model: flags.model, blas: flags.blas };
    const { refused, ...found } = await inProcess(asked);
    if (refused !== undefined) left.push(`${line.name}: ${refused}`);
    else lines.push({ name: line.name, ...found });
    write();
    console.error(refused ?? `${line.name}: ${found.quality.map((x: number) => x.toFixed(3)).join(", ")}`);
  }
  write();
  console.log(page());
}
