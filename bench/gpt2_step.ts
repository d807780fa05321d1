/**
 * How long does a LoRA step of GPT-2 small take? 4 sequences of 128 tokens, r 8 on c_attn, AdamW on the adapter, random
 * weights, f32. One JSON line in the form of the side-by-side tables, then Deno's own timing.
 *
 * `deno bench bench/gpt2_step.ts`; GPT2=tiny for 4 layers of width 256 with 8 sequences.
 */
import { causalLoss } from "../core/nn/loss.ts";
import { upload } from "../core/tensor.ts";
import { mapTree } from "../core/tree.ts";
import { openCpu } from "../kernels/device/cpu.ts";
import { jit, read } from "../kernels/jit.ts";
import { lora } from "../lora/lora.ts";
import { gpt2Shapes, makeGpt2 } from "../models/gpt2.ts";
import { adamw } from "../train/optimiser.ts";
import { makeStep } from "../train/step.ts";
import { median } from "./alternate.ts";

const tiny = Deno.env.get("GPT2") === "tiny";
const sizes = tiny
  ? { vocabSize: 4096, contextLength: 1024, width: 256, layers: 4, heads: 4, innerWidth: 1024 }
  : { vocabSize: 50257, contextLength: 1024, width: 768, layers: 12, heads: 12, innerWidth: 3072 };
const [batch, tokens] = tiny ? [8, 128] : [4, 128];
const config = { ...sizes, activation: "gelu_new", eps: 1e-5, tiedHead: true } as const;

const device = await openCpu();
let state = 1;
const noise = () => (state = (state * 48271) % 2147483647) / 2147483647 - 0.5;
const isShape = (x: unknown) => Array.isArray(x) && typeof x[0] === "number";
const params = mapTree(gpt2Shapes(config), (shape: number[]) =>
  upload(device, {
    shape,
    dtype: "f32",
    data: Float32Array.from(
      { length: shape.reduce((a, b) => a * b, 1) },
      () => shape.length === 1 ? 1 : noise() * 0.07,
    ),
  }), isShape);
const model = makeGpt2(config, params as never);
const tuned = lora(model, { r: 8, alpha: 16, targets: ["c_attn"] });
const ids = upload(device, {
  shape: [batch, tokens],
  dtype: "i32",
  data: Int32Array.from({ length: batch * tokens }, () => Math.floor((noise() + 0.5) * sizes.vocabSize)),
});
const optimiser = adamw();
const step = jit(
  makeStep(
    (trainable: typeof tuned.trainable, frozen, inputIds) =>
      causalLoss(tuned.apply(trainable, frozen, { inputIds }), inputIds),
    { optimiser, clip: 1 },
  ),
  { donate: [0] },
);
let training = { params: tuned.trainable, optimiser: jit(optimiser.init)(tuned.trainable) };
async function once(): Promise<number> {
  const began = performance.now();
  const { state, report } = step(training, 2e-4, tuned.frozen, ids);
  training = state;
  await read(report, { release: true });
  return performance.now() - began;
}

const first = await once();
const rounds: number[] = [];
for (let i = 0; i < (tiny ? 15 : 5); i++) rounds.push(await once());
const ms = median(rounds);
console.log(JSON.stringify({
  peer: "lowrank",
  workload: tiny ? "W3 gpt2-tiny" : "W3",
  shape: `${batch}x${tokens}`,
  ms_min: Math.min(...rounds),
  ms_median: ms,
  tokens_s: batch * tokens / ms * 1000,
  rss_mb: Deno.memoryUsage().rss / 1e6,
  device_mb: device.memory.peak / 1e6,
  first_step_s: first / 1000,
  note: device.description,
}));
Deno.bench(
  `LoRA step, GPT-2 ${tiny ? "tiny" : "small"}, ${batch} x ${tokens} tokens`,
  { n: 3, warmup: 0 },
  async () => {
    await once();
  },
);
addEventListener("unload", () => device[Symbol.dispose]());
