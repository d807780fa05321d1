/**
 * How long does a training step take, and how much memory? LoRA of rank 8 with AdamW, random weights, f32, on one of
 * gpt2-small (4 x 128 tokens), gpt2-tiny (8 x 128), smollm2 (2 x 128).
 *
 * `deno run --allow-read --allow-env --allow-ffi bench/training_step.ts MODEL [--full] [--no-blas] [--threads N] [--webgpu]
 * [--serve]`: one JSON line in the form of the side-by-side tables. With --serve, a step for each line of standard input and its
 * milliseconds as the answer: what bench/against.ts alternates.
 */
import { parseArgs } from "node:util";
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import { openWebGpu } from "../kernels/device/webgpu/webgpu.ts";
import { median } from "./alternate.ts";
import { answerLines } from "./lines.ts";
import { type ModelName, models, trainingStep } from "./training.ts";

const { values: flags, positionals } = parseArgs({
  args: Deno.args,
  options: {
    blas: { type: "boolean", default: true },
    webgpu: { type: "boolean", default: false },
    full: { type: "boolean", default: false },
    serve: { type: "boolean", default: false },
    threads: { type: "string" },
    rounds: { type: "string", default: "7" },
  },
  allowNegative: true,
  allowPositionals: true,
});
const name = (positionals[0] ?? "gpt2-small") as ModelName;
if (!(name in models)) {
  console.error(`error: there is no model ${name}: choose one of ${Object.keys(models).join(", ")}`);
  Deno.exit(2);
}
using device = flags.webgpu
  ? await openWebGpu()
  : await openCpu({ blas: flags.blas, threads: flags.threads ? Number(flags.threads) : undefined });
const began = performance.now();
const made = trainingStep(device, name, flags.full);
const ready = performance.now();
await made.once();
const first = performance.now() - ready;

async function timed(): Promise<number> {
  const start = performance.now();
  await made.once();
  return performance.now() - start;
}

const [batch, tokens] = models[name].batch;
const facts = { shape: `${batch}x${tokens}`, first_step_s: first / 1000, load_s: (ready - began) / 1000 };
if (flags.serve) {
  await answerLines(timed);
  const { trainable, optimiserBytes: optimiser, savedBytes: saved } = made;
  const note = device.description;
  console.log(JSON.stringify({ ...facts, note, peak: peakBytes(), optimiser, saved, trainable }));
} else {
  const times: number[] = [];
  for (let i = 0; i < Number(flags.rounds); i++) times.push(await timed());
  console.log(JSON.stringify({
    peer: flags.full ? "lowrank full" : "lowrank",
    workload: name,
    ...facts,
    ms_min: Math.min(...times),
    ms_median: median(times),
    tokens_s: batch * tokens / median(times) * 1000,
    rss_mb: peakBytes() / 1e6,
    device_mb: device.memory.peak / 1e6,
    note: device.description,
  }));
}

/** The most memory that the process ever held; what it holds now where the system does not say. */
function peakBytes(): number {
  try {
    return Number(/VmHWM:\s+(\d+)/.exec(Deno.readTextFileSync("/proc/self/status"))![1]) * 1024;
  } catch {
    return Deno.memoryUsage().rss;
  }
}
