/** Golden cases of BERT: the encoder's states, its pooler and sentence embeddings; a classifier with every gradient. */
import { assertEquals } from "@std/assert";
import { classificationLoss } from "../../core/nn/loss.ts";
import { type HostTensor, upload } from "../../core/tensor.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { flatten } from "../../core/tree.ts";
import { bert } from "../../models/bert.ts";
import { bertClassifier } from "../../models/classifier.ts";
import type { OpenRuntime } from "../runtimes.ts";
import { assertNear, type GoldenCase } from "./golden_case.ts";

/** What a case's model reads, on a device. */
export function bertInputs(io: Map<string, HostTensor>, runtime: OpenRuntime) {
  const put = (name: string) => upload(runtime.home, io.get(name)!);
  return {
    inputIds: put("input_ids"),
    attentionMask: put("attention_mask"),
    tokenTypeIds: put("token_type_ids"),
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
  for (const [name, value] of Object.entries<HostTensor>(outputs)) {
    assertNear(name, value, io.get(name)!, golden.rtol.values);
  }
}

/** `bert-seqcls`: logits, loss, and the gradient of every weight. */
export async function runClassifierCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using model = await bertClassifier.load(`${golden.folder}/model`, { device: runtime.home });
  assertEquals(model.fresh, []);
  const io = golden.tensors("io.safetensors");
  const run = runtime.jit((params, inputs, labels) => {
    const loss = (params: any) => classificationLoss(model.apply(params, inputs), labels);
    const [value, grads] = valueAndGrad(loss)(params);
    return { logits: model.apply(params, inputs), value, grads };
  });
  const labels = upload(runtime.home, io.get("labels")!);
  const { logits, value, grads } = await runtime.read(run(model.params, bertInputs(io, runtime), labels));
  assertNear("the logits", logits, io.get("logits")!, golden.rtol.values);
  assertNear("the loss", value, golden.info.losses.loss, golden.rtol.values);
  const found = flatten<HostTensor>(grads, (x) => (x as HostTensor | null)?.data !== undefined);
  const expected = golden.tensors("grads.safetensors");
  assertEquals(found.paths.map((path) => model.hubName(path)).sort(), [...expected.keys()].sort());
  found.paths.forEach((path, i) => {
    const name = model.hubName(path);
    assertNear(`the gradient of ${name}`, found.leaves[i], expected.get(name)!, golden.rtol.long);
  });
}
