/** Golden cases of trained tokens in front of a model's own: prefix tuning, prompt tuning, p-tuning. */
import { assert, assertEquals } from "@std/assert";
import { causalLoss, ignoredLabel } from "../../core/nn/loss.ts";
import { full } from "../../core/ops/broadcast.ts";
import { concat } from "../../core/ops/structure.ts";
import { type HostTensor, upload } from "../../core/tensor.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { loadAdapter } from "../../formats/tuned_model.ts";
import { unmergedSteps } from "../../formats/unmerged.ts";
import { methodOf } from "../../formats/peft/config.ts";
import { partOf } from "../../formats/peft/keys.ts";
import { asKept, type Method, tune } from "../../lora/mod.ts";
import { promptPath } from "../../lora/methods/virtual_tokens.ts";
import { generator } from "../../models/generate/generate.ts";
import { loadModel } from "../../models/load/load_model.ts";
import type { LoadedModel } from "../../models/load/loader.ts";
import type { OpenRuntime } from "../runtimes.ts";
import { countOf } from "./adapter_cases.ts";
import { assertNear, type GoldenCase } from "./golden_case.ts";
import { batchOf } from "./model_cases.ts";

/** Options in PEFT's words as ours. */
function optionsOf(method: Method<any, any>, config: Readonly<Record<string, unknown>>) {
  const named = Object.entries(method.options).flatMap(([name, { peft }]) =>
    peft === null ? [] : [[name, config[peft]]]
  );
  return Object.fromEntries(named.filter(([, value]) => value !== undefined && value !== null));
}

/** `gpt2-prefix`, `llama-prefix-projection`, `gpt2-prompt`, `gpt2-ptuning` and their like. */
export async function runPromptCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using model = await loadModel(golden.base!, { device: runtime.home });
  const loaded = loadAdapter<any, any, any>(`${golden.folder}/adapter`, model as any);
  await checkFunction(golden, loaded, loaded.trainable, runtime);
  const trained = trainedOf(golden, model, loaded, runtime);
  if (trained !== loaded) await checkFunction(golden, trained, trained.trainable, runtime);
  await checkGradients(golden, trained, runtime);
  await checkKept(golden, trained, runtime);
  await checkGenerated(golden, model, loaded, runtime);
  assertEquals(countOf(trained.trainable), golden.info.trainable_params);
  assertEquals(countOf(trained.trainable) + countOf(model.params), golden.info.all_params);
}

/** What PEFT trained: the adapter itself, or the network whose output is all that its file has. */
function trainedOf(golden: GoldenCase, model: LoadedModel, loaded: any, runtime: OpenRuntime): any {
  if (!golden.has("encoder.safetensors")) return loaded;
  const config = { ...golden.json("adapter/adapter_config.json"), ...golden.info.prompt_config };
  const method = methodOf(config) as Method<any, any>;
  const tuned = tune<any, any, any, any>(model as any, method, optionsOf(method, config));
  const network = golden.tensors("encoder.safetensors");
  const entry = Object.fromEntries(
    Object.keys(tuned.trainable[promptPath]).map((leaf) => {
      const name = partOf(method, leaf, {}).ending.replace("prompt_encoder.", "");
      return [leaf, upload(runtime.home, network.get(name)!)];
    }),
  );
  return { ...tuned, trainable: { [promptPath]: entry } };
}

/** Logits and losses, those of embeddings in front among them. */
async function checkFunction(golden: GoldenCase, tuned: any, trainable: any, runtime: OpenRuntime): Promise<void> {
  const io = golden.tensors("io.safetensors");
  for (const name of ["a", "b"]) {
    const { inputs, labels } = batchOf(io, name, runtime)!;
    const run = runtime.jit((t: any, f: any, inputs: any, labels: any) => ({
      ...lossOf(tuned, t, f, inputs, labels),
      own: tuned.apply(t, f, inputs),
    }));
    const { logits, loss, own } = await runtime.read(run(trainable, tuned.frozen, inputs, labels));
    const expected = io.get(`${name}.logits`)!;
    assertNear(`${name}.logits`, logits, expected, golden.rtol.values);
    assertNear(`the loss of ${name}`, loss, golden.info.losses[name], golden.rtol.values);
    assertNear(`${name}.logits of the text`, own, lastPlaces(expected, labels.shape[1]), golden.rtol.values);
  }
}

/** As PEFT computes it: nothing is learned of what stands in front, but the first token of the text is predicted from it. */
function lossOf(tuned: any, t: any, f: any, inputs: any, labels: any) {
  const logits = tuned.apply(t, f, inputs, { whole: true });
  const [b, length] = labels.shape, count = logits.shape[1] - length;
  const all = count === 0 ? labels : concat([full([b, count], ignoredLabel, "i32"), labels], 1);
  return { logits, loss: causalLoss(logits, all) };
}

/** The last so many places of logits [B,T,V]. */
function lastPlaces({ shape: [b, t, v], dtype, data }: HostTensor, count: number): HostTensor {
  const kept = new Float32Array(b * count * v);
  for (let row = 0; row < b; row++) {
    kept.set(data.subarray((row * t + t - count) * v, (row + 1) * t * v) as Float32Array, row * count * v);
  }
  return { shape: [b, count, v], dtype, data: kept };
}

async function checkGradients(golden: GoldenCase, tuned: any, runtime: OpenRuntime): Promise<void> {
  const batch = batchOf(golden.tensors("io.safetensors"), "a", runtime)!;
  const [{ method }] = tuned.plan.adapted;
  const loss = (t: any, f: any) => lossOf(tuned, t, f, batch.inputs, batch.labels).loss;
  const [, grads] = await runtime.read(runtime.jit(valueAndGrad(loss))(tuned.trainable, tuned.frozen));
  const expected = golden.tensors("grads.safetensors");
  const found = Object.entries<HostTensor>(grads[promptPath]).map(([leaf, grad]) =>
    [partOf(method, leaf, {}).ending, grad] as const
  );
  assertEquals(found.map(([key]) => key).sort(), [...expected.keys()].sort());
  for (const [key, grad] of found) assertNear(`the gradient of ${key}`, grad, expected.get(key)!, golden.rtol.long);
}

/** What is saved of what was trained is what PEFT saved. */
async function checkKept(golden: GoldenCase, tuned: any, runtime: OpenRuntime): Promise<void> {
  const kept = runtime.jit((t: any) => asKept(tuned, t).trainable)(tuned.trainable);
  const { [promptPath]: { prompt } } = await runtime.read(kept) as any;
  const expected = golden.tensors("adapter/adapter_model.safetensors").get("prompt_embeddings")!;
  assertNear("prompt_embeddings", prompt, expected, golden.rtol.values);
}

/** Token by token over a cache the same tokens are likeliest as over whole sequences; and as PEFT's, where it says which. */
async function checkGenerated(golden: GoldenCase, model: LoadedModel, tuned: any, runtime: OpenRuntime): Promise<void> {
  const io = golden.tensors("io.safetensors");
  const rows = ({ shape: [count, length], data }: HostTensor) =>
    Array.from({ length: count }, (_, i) => Array.from(data.subarray(i * length, (i + 1) * length), Number));
  const prompts = rows(io.get("greedy.prompt") ?? io.get("a.input_ids")!);
  const known = io.has("greedy.ids") ? rows(io.get("greedy.ids")!) : null;
  const maxNewTokens = known === null ? 4 : known[0].length - prompts[0].length;
  const { trainable, frozen } = tuned;
  const made = await generator(unmergedSteps(model, tuned))({ trainable, frozen }, prompts, { maxNewTokens });
  const whole = made.map(({ ids }, i) => [...prompts[i], ...ids]);
  if (known !== null) assertEquals(whole, known);
  const length = whole[0].length;
  const inputIds = upload(runtime.home, {
    shape: [whole.length, length],
    dtype: "i32",
    data: Int32Array.from(whole.flat()),
  });
  const logits = await runtime.read(
    runtime.jit((t: any, f: any, x: any) => tuned.apply(t, f, { inputIds: x }))(trainable, frozen, inputIds),
  );
  const vocabulary = logits.shape[2];
  whole.forEach((ids, row) => {
    for (let at = prompts[row].length; at < length; at++) {
      const place = (row * length + at - 1) * vocabulary;
      const scores = logits.data.subarray(place, place + vocabulary);
      const best = scores.reduce((a: number, b: number) => Math.max(a, b));
      assert(
        best - scores[ids[at]] <= golden.rtol.values * Math.abs(best),
        `token ${at} of row ${row} is not the likeliest`,
      );
    }
  });
}
