/** SmolLM2 computed: its logits, its greedy words, and twenty steps of LoRA as PyTorch and PEFT took them. */
import { assert, assertEquals } from "@std/assert";
import { slice } from "../../core/ops/structure.ts";
import { type HostTensor, upload } from "../../core/tensor.ts";
import { generator } from "../../models/generate/generate.ts";
import { llama } from "../../models/mod.ts";
import { assertNear } from "../goldens/golden_case.ts";
import { followTrace } from "../goldens/train_cases.ts";
import { type OpenRuntime, runtimes } from "../runtimes.ts";
import { real, smollm2 } from "./real_case.ts";

/** Where it is worth running 135 million parameters: the CPU wholly, a software adapter for a taste. */
const cpu = runtimes.find((r) => r.name === "cpu")!;
const webgpu = runtimes.find((r) => r.name.startsWith("webgpu"));

/** Logits of 2e-3 and less apart are equal: what the golden says of float32. */
const logitsApart = 2e-3;

/** Logits and hidden states of one prompt's last place. */
async function checkLast(ids: number[], name: string, last: Map<string, HostTensor>, model: any, runtime: OpenRuntime) {
  const t = ids.length;
  const run = runtime.jit((params, inputIds) => ({
    logits: slice(model.apply(params, { inputIds }), 1, t - 1, t),
    hidden: model.hiddenStates(params, { inputIds }).map((x: any) => slice(x, 1, t - 1, t)),
  }));
  const inputIds = upload(runtime.home, { shape: [1, t], dtype: "i32", data: Int32Array.from(ids) });
  const { logits, hidden } = await runtime.read(run(model.params, inputIds));
  const expected = last.get(`${name}.last_logits`)!;
  const apart = Array.from(expected.data, (x, i) => Math.abs(x - logits.data[i]));
  const worst = apart.reduce((most, x) => Math.max(most, x), 0);
  assert(worst <= logitsApart, `${name}: logits differ by ${worst}`);
  const states = last.get(`${name}.last_hidden`)!;
  const width = states.shape[1];
  hidden.forEach((state: HostTensor, i: number) => {
    const data = states.data.slice(i * width, (i + 1) * width);
    assertNear(`${name}: hidden state ${i}`, { ...state, shape: [width] }, { ...state, shape: [width], data }, 1e-4);
  });
}

real("SmolLM2 on the cpu: logits, hidden states and greedy words", "real-smollm2-logits", async (golden) => {
  using runtime = await cpu.open();
  using model = await llama.load(smollm2, { device: runtime.home });
  const { prompts } = golden.json("logits.json");
  const last = golden.tensors("last.safetensors");
  for (const [i, { ids }] of prompts.entries()) await checkLast(ids, `p${i}`, last, model, runtime);

  const generate = generator(model);
  const made = await generate(model.params, prompts.map((p: any) => p.ids), { maxNewTokens: 32 });
  prompts.forEach(({ greedy_ids, greedy_top2_gaps }: any, i: number) => {
    // From a step whose two best are nearer than rounding on, either may be taken.
    const close = greedy_top2_gaps.findIndex((gap: number) => gap <= 1e-2);
    const certain = close < 0 ? greedy_ids.length : close;
    assertEquals(made[i].ids.slice(0, certain), greedy_ids.slice(0, certain), `prompt ${i}`);
  });
});

/** The tolerances that the trace states; its gradients as those of every golden. */
const rtol = { loss: 1e-4, norm: 1e-3, gradient: 5e-4, end: 0.05 };

real("SmolLM2 on the cpu: twenty steps of LoRA", "real-smollm2-train", async (golden) => {
  using runtime = await cpu.open();
  using model = await llama.load(smollm2, { device: runtime.home });
  await followTrace(golden, model, runtime, { rounds: Infinity, rtol });
});

if (webgpu === undefined) {
  Deno.test({ name: "SmolLM2 on webgpu: skipped, there is no adapter", ignore: true, fn: () => {} });
} else {
  real(`SmolLM2 on ${webgpu.name}: logits of one prompt`, "real-smollm2-logits", async (golden) => {
    using runtime = await webgpu.open();
    using model = await llama.load(smollm2, { device: runtime.home });
    const [{ ids }] = golden.json("logits.json").prompts;
    await checkLast(ids, "p0", golden.tensors("last.safetensors"), model, runtime);
  });
  real(`SmolLM2 on ${webgpu.name}: two steps of LoRA`, "real-smollm2-train", async (golden) => {
    using runtime = await webgpu.open();
    using model = await llama.load(smollm2, { device: runtime.home });
    await followTrace(golden, model, runtime, { rounds: 2, rtol });
  });
}
