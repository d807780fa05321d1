/**
 * How fast are tokens generated? Greedy, one sequence, 64 tokens after a prompt of 32, of a .gguf file, with f32 weights or
 * as they are packed there.
 *
 * `deno run --allow-read --allow-env bench/decode.ts MODEL.gguf [--dtype f32|packed] [--activations f32|int8] [--tokens N]
 * [--threads N] [--serve]`:
 * one JSON line. With --serve, the tokens once for each line of standard input and their milliseconds as the answer: what
 * bench/against.ts alternates with bench/llama_decode.py and bench/torch_decode.py.
 */
import process from "node:process";
import { parseArgs } from "node:util";
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import { type Activations, tokenStream } from "../models/generate/generate.ts";
import { loadModel } from "../models/load/load_model.ts";
import type { LoadedModel, WeightDType } from "../models/load/loader.ts";
import { median } from "./alternate.ts";
import { answerLines } from "./lines.ts";

const text = { type: "string" } as const;
const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    serve: { type: "boolean" },
    ...{ dtype: { ...text, default: "packed" }, activations: { ...text, default: "f32" } },
    ...{ tokens: { ...text, default: "64" }, rounds: { ...text, default: "5" }, threads: text },
  },
});
const path = positionals[0] ?? ".cache/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const tokens = Number(flags.tokens);
using device = await openCpu({
  threads: flags.threads ? Number(flags.threads) : undefined,
  blas: false,
});
using model = await loadModel(path, { device, dtype: flags.dtype as WeightDType }) as LoadedModel;
const stream = tokenStream(model);
const prompt = Array.from({ length: 32 }, (_, i) => 1 + (i * 37) % 40000);

/** Milliseconds of `tokens` tokens after the first, which ends the prompt. */
async function timed(): Promise<number> {
  let began = 0;
  const activations = flags.activations as Activations;
  for await (const { id } of stream(model.params, [prompt], { maxNewTokens: tokens + 1, activations })) {
    if (id !== null && began === 0) began = performance.now();
  }
  return performance.now() - began;
}

await timed();
if (flags.serve) await answerLines(timed);
else {
  const times: number[] = [];
  for (let i = 0; i < Number(flags.rounds); i++) times.push(await timed());
  console.log(JSON.stringify({
    peer: `lowrank ${flags.dtype}, activations ${flags.activations}`,
    workload: "W6 smollm2 decode",
    shape: [prompt.length, tokens],
    ms_min: Math.min(...times),
    ms_median: median(times),
    tokens_s: tokens / median(times) * 1000,
    rss_mb: process.resourceUsage().maxRSS / 1000,
    note: device.description,
  }));
}
