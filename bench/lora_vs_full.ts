/**
 * What does LoRA save? The same model and the same step, once with adapters of rank 8 and once with every parameter trained:
 * time, peak memory, the optimiser's state, and what is saved at the end.
 *
 * `deno run --allow-read --allow-env --allow-ffi --allow-run=deno bench/lora_vs_full.ts [MODEL] [--no-blas] [--rounds 7]`:
 * the two are processes that take turns, A B A B …; MODEL is gpt2-small, gpt2-tiny or smollm2.
 */
import { parseArgs } from "node:util";
import { median, row } from "./alternate.ts";
import { startContender } from "./contender.ts";

const { values: flags, positionals } = parseArgs({
  args: Deno.args,
  options: { blas: { type: "boolean", default: true }, rounds: { type: "string", default: "7" } },
  allowNegative: true,
  allowPositionals: true,
});
const model = positionals[0] ?? "gpt2-small";
const script = new URL("training_step.ts", import.meta.url).pathname;
const start = (extra: readonly string[]) =>
  startContender("deno", [
    "run",
    "--quiet",
    "--allow-read",
    "--allow-env",
    "--allow-ffi",
    script,
    model,
    "--serve",
    ...(flags.blas ? [] : ["--no-blas"]),
    ...extra,
  ]);
const contenders = [await start([]), await start(["--full"])];
const times: number[][] = [];
for (let i = 0; i < Number(flags.rounds) + 2; i++) {
  const round: number[] = [];
  for (const { sample } of contenders) round.push(await sample());
  if (i >= 2) times.push(round);
}
const facts = await Promise.all(contenders.map(({ end }) => end()));
const widths = [30, 12, 12, 8];
const ms = [0, 1].map((i) => median(times.map((t) => t[i])));
const mb = (bytes: number) => (bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 0);
console.log(`${model}, ${facts[0].shape} tokens, ${facts[0].note}`);
console.log(row(["", "LoRA r 8", "full", "full/LoRA"], widths));
const line = (name: string, values: number[], text = mb) =>
  console.log(
    row([name, ...values.map(text), (values[1] / values[0]).toFixed(values[1] > 20 * values[0] ? 0 : 2)], widths),
  );
line("step, ms", ms, (x) => x.toFixed(0));
for (
  const [name, key] of [
    ["peak memory of the process, MB", "peak"],
    ["optimiser's state, MB", "optimiser"],
    ["saved at the end, MB", "saved"],
    ["trained parameters, millions", "trainable"],
  ] as const
) line(name, facts.map((f) => Number(f[key])));
