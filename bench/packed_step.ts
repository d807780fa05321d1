/**
 * What does a training step cost on weights that stay packed? LoRA of rank 8 on q_proj and v_proj, AdamW, 2 x 128 tokens,
 * of a .gguf file, f32 and packed in turn; and with `--only` the peak memory of one of them.
 *
 * `deno run --allow-read --allow-env --allow-ffi bench/packed_step.ts MODEL.gguf [--only f32|packed] [--no-blas] [--rounds N]`
 */
import process from "node:process";
import { parseArgs } from "node:util";
import { causalLoss } from "../core/nn/loss.ts";
import type { Value } from "../core/ir/graph.ts";
import { upload } from "../core/tensor.ts";
import { type CpuDevice, openCpu } from "../kernels/device/cpu/cpu.ts";
import { jit } from "../kernels/runtime/jit.ts";
import { read } from "../kernels/runtime/read.ts";
import { lora } from "../lora/lora.ts";
import { llama } from "../models/mod.ts";
import { adamw } from "../train/optimiser.ts";
import { makeStep } from "../train/step.ts";
import { median } from "./alternate.ts";

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  allowNegative: true,
  options: {
    blas: { type: "boolean", default: true },
    only: { type: "string" },
    rounds: { type: "string", default: "7" },
  },
});
const path = positionals[0] ?? ".cache/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const kinds = (flags.only ? [flags.only] : ["f32", "packed"]) as ("f32" | "packed")[];
using device = await openCpu({ blas: flags.blas });

/** One step of training, ready to be repeated. */
async function stepOf(device: CpuDevice, dtype: "f32" | "packed"): Promise<() => Promise<void>> {
  const model = await llama.load(path, { device, dtype });
  const tuned = lora(model, { r: 8, alpha: 16, targets: ["q_proj", "v_proj"] });
  const optimiser = adamw();
  const loss = (trainable: any, frozen: any, inputIds: Value) =>
    causalLoss(tuned.apply(trainable, frozen, { inputIds }), inputIds);
  const step = jit(makeStep(loss, { optimiser, clip: 1 }), { donate: [0] });
  const data = Int32Array.from({ length: 256 }, (_, i) => 1 + (i * 7919) % 40000);
  const ids = upload(device, { shape: [2, 128], dtype: "i32", data });
  let state: any = { params: tuned.trainable, optimiser: jit(optimiser.init)(tuned.trainable) };
  return async () => {
    const { state: next, report } = step(state, 2e-4, tuned.frozen, ids);
    state = next;
    await read(report, { release: true });
  };
}

const steps = [];
for (const kind of kinds) steps.push(await stepOf(device, kind));
const times: number[][] = kinds.map(() => []);
for (let round = -2; round < Number(flags.rounds); round++) {
  for (const [i, step] of steps.entries()) {
    const start = performance.now();
    await step();
    if (round >= 0) times[i].push(performance.now() - start);
  }
}
const ratios = times.length > 1 ? times[1].map((t, i) => t / times[0][i]) : null;
console.log(JSON.stringify({
  ...Object.fromEntries(kinds.map((kind, i) => [`${kind}_ms`, Math.round(median(times[i]))])),
  ...(ratios && { ratio: Number(median(ratios).toFixed(3)) }),
  rss_peak_mb: Math.round(process.resourceUsage().maxRSS / 1000),
  device_mb: Math.round(device.memory.peak / 1e6),
  note: device.description,
}));
