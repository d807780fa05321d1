/** Real llama.cpp runs our adapters: the same logits as ours, and the letters answered as well. */
import { assert } from "@std/assert";
import { type HostTensor, type Tensor, tensor, upload } from "../../core/tensor.ts";
import { mapTree } from "../../core/tree.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import type { Device } from "../../kernels/device/device.ts";
import { evaluate } from "../../kernels/runtime/read.ts";
import { lora, type Trainable } from "../../lora/mod.ts";
import { llama } from "../../models/mod.ts";
import { loadModel } from "../../models/load/load_model.ts";
import type { LoadedModel } from "../../models/load/loader.ts";
import { pathKind } from "../../models/load/files/byte_source.ts";
import { saveAdapter } from "../../formats/adapter.ts";
import { loadAdapter } from "../../formats/tuned_model.ts";
import { readAdapter } from "../../formats/peft/files.ts";
import { writeGgufAdapter } from "../../formats/gguf.ts";
import { rngFrom } from "../../data/rng.ts";
import { scoreAnswers } from "../../examples/letters/score.ts";
import { realLettersTask } from "../../examples/letters/tasks.ts";
import { smollm2 } from "../real/real_case.ts";
import { apart, peer, readFloats, runScript } from "./peer.ts";
import { asF32, tinyGpt2, tinyLlama } from "./tiny_gguf.ts";

const cases = `${import.meta.dirname}/../goldens/cases`;

/** Logits of every place of each prompt, one after the other, with an adapter or without. */
async function ours(model: LoadedModel, device: Device, prompts: number[][], adapter?: string): Promise<Float32Array> {
  const tuned = adapter === undefined ? null : loadAdapter(adapter, model, { anyBase: true });
  const all: number[] = [];
  for (const prompt of prompts) {
    const inputs = { inputIds: tensor(device, [prompt], "i32") };
    const logits = tuned ? tuned.apply(tuned.trainable, tuned.frozen, inputs) : model.apply(model.params, inputs);
    for (const x of (await evaluate(logits) as HostTensor).data) all.push(x);
  }
  return Float32Array.from(all);
}

async function theirs(folder: string, model: string, prompts: number[][], lora?: string): Promise<Float32Array> {
  await runScript("llama_cpp_logits.py", { model, lora, prompts, out: `${folder}/logits` });
  return readFloats(`${folder}/logits`);
}

const tinyPrompts = [[5, 17, 200, 3, 99, 42, 7, 250], [1, 2, 3]];

for (
  const [id, base, make] of [
    ["llama-lora-qv", "llama-base", tinyLlama],
    ["llama-lora-all7", "llama-base", tinyLlama],
    ["llama-lora-rslora-patterns", "llama-base", tinyLlama],
    ["gpt2-lora-basic", "gpt2-base", tinyGpt2],
    ["gpt2-lora-all-linear", "gpt2-base", tinyGpt2],
    ["gpt2-lora-patterns", "gpt2-base", tinyGpt2],
    ["gpt2-lora-rslora", "gpt2-base", tinyGpt2],
    ["gpt2-lora-layers", "gpt2-base", tinyGpt2],
    ["gpt2-lora-exclude", "gpt2-base", tinyGpt2],
  ] as const
) {
  peer(`llama.cpp gives our logits with ${id}`, async (folder) => {
    using device = await openCpu();
    using model = await loadModel(`${cases}/${base}/model`, { device });
    Deno.writeFileSync(`${folder}/base.gguf`, make());
    writeGgufAdapter(`${folder}/lora.gguf`, readAdapter(`${cases}/${id}/adapter`), model.config);
    const plain = await theirs(folder, `${folder}/base.gguf`, tinyPrompts);
    const adapted = await theirs(folder, `${folder}/base.gguf`, tinyPrompts, `${folder}/lora.gguf`);
    // llama.cpp's distance on the base alone: it looks GPT-2's gelu up in a table of f16.
    const noise = apart(plain, await ours(model, device, tinyPrompts));
    const found = apart(adapted, await ours(model, device, tinyPrompts, `${cases}/${id}/adapter`));
    assert(noise <= (base === "gpt2-base" ? 2 ** -11 : 1e-4), `the base alone is ${noise} apart`);
    assert(found <= Math.max(1e-4, 2 * noise), `${found} apart, where the base alone is ${noise}`);
    assert(apart(plain, adapted) > 0.1, "the adapter is seen");
  });
}

const noModel = pathKind(smollm2) === null ? `${smollm2} is not here (./task model:smollm2 brings it)` : null;

/** An adapter on every projection of SmolLM2, with ranks and alphas of their own, large enough to be seen. */
async function saveRandomAdapter(folder: string, model: LoadedModel, device: Device): Promise<void> {
  const tuned = lora(model as any, {
    ...{ r: 4, alpha: 8, targets: "all-linear", rslora: true },
    ...{ rankPattern: { q_proj: 8 }, alphaPattern: { "layers.3.self_attn.k_proj": 2 } },
  });
  const { next } = rngFrom(7);
  const trainable = mapTree(tuned.trainable, ({ aval: { shape } }: Tensor) => {
    const data = Float32Array.from({ length: shape[0] * shape[1] }, () => 0.1 * (next() - 0.5));
    return upload(device, { shape, dtype: "f32", data });
  });
  await saveAdapter(folder, tuned, { trainable: trainable as Trainable });
}

peer("llama.cpp gives our logits on SmolLM2, and as near as the base's where it rounds activations", async (folder) => {
  using device = await openCpu();
  using model = await llama.load(smollm2, { device });
  const tokenizer = model.tokenizer();
  const prompts = ["The capital of France is", "def main():\n    print("].map((text) => tokenizer.encode(text));
  await saveRandomAdapter(`${folder}/adapter`, model, device);
  const lora = `${folder}/lora.gguf`;
  writeGgufAdapter(lora, readAdapter(`${folder}/adapter`), model.config);
  const [own, ownAdapted] = [
    await ours(model, device, prompts),
    await ours(model, device, prompts, `${folder}/adapter`),
  ];
  const change = apart(ownAdapted, own);

  // With 4-bit weights llama.cpp rounds activations to 8 bits: that is its distance on the base, too.
  const noise = apart(await theirs(folder, smollm2, prompts), own);
  const found = apart(await theirs(folder, smollm2, prompts, lora), ownAdapted);
  console.log(`SmolLM2: the adapter changes ${change}; Q4_1 is ${found} apart, the base alone ${noise}`);
  assert(change > 4 * noise, `the adapter changes ${change}, which is not seen beside ${noise}`);
  assert(found <= 2 * noise, `${found} apart, where the base alone is ${noise}`);
  // The same numbers as f32 weights are multiplied without rounding.
  Deno.writeFileSync(`${folder}/f32.gguf`, asF32(smollm2));
  const exact = apart(await theirs(folder, `${folder}/f32.gguf`, prompts, lora), ownAdapted);
  console.log(`SmolLM2: the same weights as f32 are ${exact} apart`);
  assert(exact <= 1e-4, `${exact} apart with f32 weights`);
}, noModel);

/** The adapter that demo.ts leaves. */
const demo = Deno.env.get("LETTERS_ADAPTER") ?? "out/smollm2/adapter";
const noDemo = pathKind(demo) === null ? `${demo} is not here (deno task demo trains it)` : null;

peer("llama.cpp answers the letters of the demo as well as we do", async (folder) => {
  using device = await openCpu();
  using model = await llama.load(smollm2, { device });
  const tokenizer = model.tokenizer();
  const task = realLettersTask(tokenizer);
  writeGgufAdapter(`${folder}/lora.gguf`, readAdapter(demo), model.config);
  const job = {
    model: smollm2,
    prompts: task.test.map(({ prompt }) => prompt),
    greedy: { maxNewTokens: task.maxNewTokens, stopIds: [tokenizer.eosId] },
  };
  const score = async (lora?: string) => {
    const answers = await runScript<number[][]>("llama_cpp_logits.py", { ...job, lora });
    return scoreAnswers(answers.map((ids) => tokenizer.decode(ids)), task.test);
  };
  const [before, after] = [await score(), await score(`${folder}/lora.gguf`)];
  console.log(`llama.cpp: ${before.values} of ${before.of} letters before, ${after.values} after (keys ${after.keys})`);
  assert(after.of === 18 && after.keys >= 17 && after.values >= 13, JSON.stringify(after));
  assert(before.values < after.values, "the base alone answers as well");
}, noModel ?? noDemo);
