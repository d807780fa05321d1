/** Golden cases of BERT: an encoder's states, pooler and sentence embeddings; a classifier; an adapter on it. */
import { assert, assertEquals } from "@std/assert";
import { classificationLoss } from "../../core/nn/loss.ts";
import type { Value } from "../../core/ir/graph.ts";
import { type HostTensor, type Tensor, upload } from "../../core/tensor.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { flatten } from "../../core/tree.ts";
import { bert, bertClassifier } from "../../models/mod.ts";
import type { OpenRuntime } from "../runtimes.ts";
import { adapted, assertAllNear, byKey } from "./adapter_cases.ts";
import { assertNear, type GoldenCase } from "./golden_case.ts";

/** What a case's model reads, on a device. */
export function bertInputs(io: Map<string, HostTensor>, runtime: OpenRuntime) {
  const put = (input: string, name: string) => {
    const tensor = io.get(name);
    return tensor === undefined ? {} : { [input]: upload(runtime.home, tensor) };
  };
  return {
    inputIds: upload(runtime.home, io.get("input_ids")!),
    ...put("attentionMask", "attention_mask"),
    ...put("tokenTypeIds", "token_type_ids"),
  };
}

/** `bert-base`: padding, two token types; and ids alone. */
export async function runEncoderCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using model = await bert.load(`${golden.folder}/model`, { device: runtime.home });
  const io = golden.tensors("io.safetensors");
  const run = runtime.jit((params, inputs) => ({
    last_hidden_state: model.apply(params, inputs),
    pooler_output: model.pool(params, inputs),
    mean_pooled_normalised: model.embed(params, inputs),
    states: model.hiddenStates(params, inputs),
  }));
  const inputs = bertInputs(io, runtime);
  const { states, ...outputs } = await runtime.read(run(model.params, inputs));
  states.forEach((state: HostTensor, i: number) => outputs[`hidden_states.${i}`] = state);
  const { inputIds } = inputs;
  outputs["no_mask.last_hidden_state"] = await runtime.read(runtime.jit(model.apply)(model.params, { inputIds }));
  assert(!io.has(`hidden_states.${states.length}`), "as many hidden states as in the golden");
  for (const [name, value] of Object.entries<HostTensor>(outputs)) {
    if (io.has(name)) assertNear(name, value, io.get(name)!, golden.rtol.values);
  }
}

/** `bert-seqcls`: logits, loss, and the gradient of every weight. */
export async function runClassifierCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using model = await bertClassifier.load(`${golden.folder}/model`, { device: runtime.home });
  assertEquals(model.fresh, []);
  const apply = (params: any, _: unknown, inputs: any) => model.apply(params, inputs);
  const grads = await checkClassifier(golden, runtime, apply, model.params, null);
  const { leaves, paths } = flatten<HostTensor>(grads, isHost);
  checkGrads(golden, new Map(paths.map((path, i) => [model.hubName(path), leaves[i]])));
}

/** `bert-lora`: an adapter on queries and values, with the head trained whole beside it. */
export async function runClassifierLoraCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using model = await bertClassifier.load(golden.base!, { device: runtime.home });
  const { tuned, trainable, keyOf } = adapted(model, `${golden.folder}/adapter`);
  checkGrads(golden, byKey(await checkClassifier(golden, runtime, tuned.apply, trainable, tuned.frozen), keyOf));

  const io = golden.tensors("io.safetensors");
  const run = runtime.jit((trainable, frozen, inputs) => {
    const params = tuned.merge(trainable, frozen);
    return { params, logits: model.apply(params as any, inputs) };
  });
  const { params, logits } = await runtime.read(run(trainable, tuned.frozen, bertInputs(io, runtime)));
  assertNear("the logits of merged weights", logits, io.get("merged_logits")!, golden.rtol.values);
  const { leaves, paths } = flatten<HostTensor>(params, isHost);
  const merged = new Map(paths.map((path, i) => [model.hubName(path), leaves[i]]));
  assertAllNear("merged", merged, golden.tensors("merged.safetensors"), golden.rtol.values);
  const count = (tree: unknown) => flatten<Tensor>(tree).leaves.reduce((n, leaf) => n + leaf.size, 0);
  assertEquals(count(trainable), golden.info.trainable_params);
  assertEquals(count(trainable) + count(model.params), golden.info.all_params);
}

const isHost = (x: unknown) => (x as HostTensor | null)?.data !== undefined;

/** Checks logits and loss of a function of trained and fixed weights, and gives the gradients of the trained. */
async function checkClassifier(
  golden: GoldenCase,
  runtime: OpenRuntime,
  apply: (trained: any, fixed: any, inputs: any) => Value,
  trained: unknown,
  fixed: unknown,
): Promise<unknown> {
  const io = golden.tensors("io.safetensors");
  const run = runtime.jit((trained, fixed, inputs, labels) => {
    const loss = (trained: unknown) => classificationLoss(apply(trained, fixed, inputs), labels);
    const [value, grads] = valueAndGrad(loss)(trained);
    return { logits: apply(trained, fixed, inputs), value, grads };
  });
  const labels = upload(runtime.home, io.get("labels")!);
  const { logits, value, grads } = await runtime.read(run(trained, fixed, bertInputs(io, runtime), labels));
  assertNear("the logits", logits, io.get("logits")!, golden.rtol.values);
  assertNear("the loss", value, golden.info.losses.loss, golden.rtol.values);
  return grads;
}

function checkGrads(golden: GoldenCase, found: ReadonlyMap<string, HostTensor>): void {
  const expected = golden.tensors("grads.safetensors");
  assertEquals([...found.keys()].sort(), [...expected.keys()].sort());
  assertAllNear("the gradient of", found, expected, golden.rtol.long);
}
