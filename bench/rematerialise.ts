/**
 * What does making values again cost, and what does it save? A training step that holds all it made, and one that makes the
 * cheap part again (`kernels/plan/rematerialise.ts`), in turn, there and back.
 *
 * `deno run --allow-read --allow-env --allow-ffi bench/rematerialise.ts MODEL [--all-linear] [--no-blas] [--trips N] [--rounds N]`
 */
import { parseArgs } from "node:util";
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import { median } from "./alternate.ts";
import { type ModelName, models, trainingStep } from "./training.ts";

const { values: flags, positionals } = parseArgs({
  args: Deno.args,
  options: {
    blas: { type: "boolean", default: true },
    "all-linear": { type: "boolean", default: false },
    trips: { type: "string" },
    rounds: { type: "string", default: "4" },
  },
  allowNegative: true,
  allowPositionals: true,
});
const name = (positionals[0] ?? "gpt2-tiny") as ModelName;
if (!(name in models)) {
  console.error(`error: there is no model ${name}: choose one of ${Object.keys(models).join(", ")}`);
  Deno.exit(2);
}
using device = await openCpu({ blas: flags.blas });
const targets = flags["all-linear"] ? "all-linear" as const : undefined;
const again = flags.trips === undefined ? undefined : Number(flags.trips);

/** The arena of all programs so far is shared: the leaner step goes first, and what the other adds is the difference. */
const steps = [again, 0].map((rematerialise) => trainingStep(device, name, false, { targets, rematerialise }));
const losses: number[] = [], peaks: number[] = [];
for (const step of steps) {
  losses.push(await step.once());
  peaks.push(device.memory.current);
}

async function timed(i: number): Promise<number> {
  const began = performance.now();
  await steps[i].once();
  return performance.now() - began;
}

const ratios: number[] = [], times: number[][] = [[], []];
for (let round = 0; round < Number(flags.rounds); round++) {
  const order = round % 2 === 0 ? [0, 1] : [1, 0];
  const taken = [0, 0];
  for (const i of order) taken[i] = await timed(i);
  taken.forEach((ms, i) => times[i].push(ms));
  ratios.push(taken[0] / taken[1]);
}
console.log(JSON.stringify({
  model: name,
  targets: targets ?? models[name].targets,
  note: device.description,
  again_ms: median(times[0]),
  held_ms: median(times[1]),
  ratio: median(ratios),
  saved_mb: (peaks[1] - peaks[0]) / 1e6,
  same_loss: losses[0] === losses[1],
}));
