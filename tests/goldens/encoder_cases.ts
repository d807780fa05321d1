/** Golden cases of encoders: states, pooler and sentence embeddings; classifiers, taggers, masked words; an adapter on each. */
import { assert, assertEquals } from "@std/assert";
import { classificationLoss } from "../../core/nn/loss.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { EncoderModel, HeadedModel, TokenInputs } from "../../core/model.ts";
import { type HostTensor, upload } from "../../core/tensor.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { flatten } from "../../core/tree.ts";
import type { EncoderFamily } from "../../models/families/encoder.ts";
import { variantOf } from "../../models/families/mod.ts";
import { parseConfig } from "../../models/load/config.ts";
import { loadAnyModel } from "../../models/mod.ts";
import type { OpenRuntime } from "../runtimes.ts";
import { adapted, assertAllNear, byKey, countOf, isHost } from "./adapter_cases.ts";
import { assertNear, type GoldenCase } from "./golden_case.ts";
import { maskedRows } from "./model_cases.ts";

/** An encoder with a head or without, as its file says. */
type AnyEncoder = (EncoderModel | HeadedModel) & Pick<Awaited<ReturnType<typeof loadAnyModel>>, "config">;

async function encoderOf(path: string, runtime: OpenRuntime) {
  return await loadAnyModel(path, { device: runtime.home }) as unknown as AnyEncoder & Disposable;
}

/** What a model reads of a case, its keys after a prefix (`a.`, `anchor_`), on a device. */
export function encoderInputs(io: ReadonlyMap<string, HostTensor>, prefix: string, runtime: OpenRuntime): TokenInputs {
  const put = (input: string, name: string) => {
    const tensor = io.get(prefix + name);
    return tensor === undefined ? {} : { [input]: upload(runtime.home, tensor) };
  };
  return {
    inputIds: upload(runtime.home, io.get(`${prefix}input_ids`)!),
    ...put("attentionMask", "attention_mask"),
    ...put("tokenTypeIds", "token_type_ids"),
  };
}

/** The batches of a case: their keys' prefix, and the key of their loss. */
const batchesOf = (io: ReadonlyMap<string, HostTensor>) =>
  [["", "loss"], ["a.", "a"], ["b.", "b"]].filter(([prefix]) => io.has(`${prefix}input_ids`));

/** `bert-base` and its like: padding, two token types; and ids alone. */
export async function runEncoderCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using loaded = await encoderOf(`${golden.folder}/model`, runtime);
  const model = loaded as EncoderModel, io = golden.tensors("io.safetensors");
  const inputs = encoderInputs(io, "", runtime), { inputIds } = inputs;
  const run = runtime.jit((params, inputs) => ({
    last_hidden_state: model.apply(params, inputs),
    ...(io.has("pooler_output") && { pooler_output: model.pool(params, inputs) }),
    mean_pooled_normalised: model.embed(params, inputs),
    states: model.hiddenStates(params, inputs),
  }));
  const { states, ...outputs } = await runtime.read(run(model.params, inputs));
  states.forEach((state: HostTensor, i: number) => outputs[`hidden_states.${i}`] = state);
  outputs["no_mask.last_hidden_state"] = await runtime.read(runtime.jit(model.apply)(model.params, { inputIds }));
  assert(!io.has(`hidden_states.${states.length}`), "as many hidden states as in the golden");
  for (const [name, value] of Object.entries<HostTensor>(outputs)) {
    if (io.has(name)) assertNear(name, value, io.get(name)!, golden.rtol.values);
  }
}

/** `bert-seqcls`, `roberta-mlm-base` and their like: logits, losses, states, and the gradient of every weight. */
export async function runHeadCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using loaded = await encoderOf(`${golden.folder}/model`, runtime);
  const model = loaded as HeadedModel & AnyEncoder;
  if ("fresh" in model) assertEquals(model.fresh, []);
  const apply = (params: any, _: unknown, inputs: any) => model.apply(params, inputs);
  checkGrads(golden, byPath(model, await checkBatches(golden, runtime, apply, model.params, null)));
  await checkStates(golden, model, runtime);
  const { params, config } = model, { sizes } = variantOf(config.modelType, null) as EncoderFamily;
  if (golden.has("config_legacy.json")) {
    const legacy = parseConfig(golden.json("config_legacy.json"), `${golden.folder}/config_legacy.json`);
    assertEquals(sizes(legacy), sizes(config));
  }
  if (golden.info.n_params !== undefined) assertEquals(countOf(params), golden.info.n_params);
}

async function checkStates(golden: GoldenCase, model: HeadedModel, runtime: OpenRuntime) {
  const io = golden.tensors("io.safetensors");
  if (!io.has("a.hidden_states.0")) return;
  const run = runtime.jit(model.hiddenStates);
  const states = await runtime.read(run(model.params, encoderInputs(io, "a.", runtime)));
  states.forEach((state: HostTensor, i: number) => {
    assertNear(`a.hidden_states.${i}`, state, io.get(`a.hidden_states.${i}`)!, golden.rtol.values);
  });
  assert(!io.has(`a.hidden_states.${states.length}`), "as many hidden states as in the golden");
}

/** `bert-lora`, `roberta-lora` and their like: an adapter, maybe with the head trained whole beside it. */
export async function runHeadLoraCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using loaded = await encoderOf(golden.base!, runtime);
  const model = loaded as HeadedModel;
  const { tuned, trainable, keyOf } = adapted(model, `${golden.folder}/adapter`);
  checkGrads(golden, byKey(await checkBatches(golden, runtime, tuned.apply, trainable, tuned.frozen), keyOf));

  const io = golden.tensors("io.safetensors"), [[prefix]] = batchesOf(io);
  const run = runtime.jit((trainable, frozen, inputs) => {
    const params = tuned.merge(trainable, frozen);
    return { params, logits: model.apply(params as any, inputs) };
  });
  const { params, logits } = await runtime.read(run(trainable, tuned.frozen, encoderInputs(io, prefix, runtime)));
  assertNear("the logits of merged weights", logits, io.get(`${prefix}merged_logits`)!, golden.rtol.values);
  assertAllNear("merged", byPath(model, params), golden.tensors("merged.safetensors"), golden.rtol.values);
  assertEquals(countOf(trainable), golden.info.trainable_params);
  assertEquals(countOf(trainable) + countOf(model.params), golden.info.all_params);
}

/** Leaves by their names in files. */
function byPath(model: HeadedModel, tree: unknown): Map<string, HostTensor> {
  const { leaves, paths } = flatten<HostTensor>(tree, isHost);
  return new Map(paths.map((path, i) => [model.hubName(path), leaves[i]]));
}

/** Checks logits and losses of a function of trained and fixed weights, and gives the gradients of the trained by the first. */
async function checkBatches(
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
  let first: unknown;
  for (const [prefix, key] of batchesOf(io)) {
    const labels = upload(runtime.home, io.get(`${prefix}labels`)!), mask = io.get(`${prefix}attention_mask`);
    const { logits, value, grads } = await runtime.read(
      run(trained, fixed, encoderInputs(io, prefix, runtime), labels),
    );
    // Logits of tokens that are padding mean nothing.
    const [found, expected] = [logits, io.get(`${prefix}logits`)!].map((x) => maskedRows(x, mask));
    assertNear(`${prefix}logits`, found, expected, golden.rtol.values);
    assertNear(`the loss of ${key}`, value, golden.info.losses[key], golden.rtol.values);
    first ??= grads;
  }
  return first;
}

/** Compares every gradient with that of the same key. */
export function checkGrads(golden: GoldenCase, found: ReadonlyMap<string, HostTensor>): void {
  const expected = golden.tensors("grads.safetensors");
  assertEquals([...found.keys()].sort(), [...expected.keys()].sort());
  const size = ({ data }: HostTensor) => Math.max(...Array.from(data, Math.abs));
  const largest = Math.max(...[...expected.values()].map(size));
  // A key's bias moves all scores alike, so that its gradient is zero in theory: what is left on both sides is the roundings of
  // sums whose terms are as large as other gradients.
  const noise = 2 ** -20 * largest;
  const isNoise = (tensor: HostTensor) => size(tensor) < noise;
  for (const [key, tensor] of expected) {
    if (isNoise(tensor)) assert(isNoise(found.get(key)!), `the gradient of ${key} is above ${noise}`);
  }
  const real = new Map([...expected].filter(([, tensor]) => !isNoise(tensor)));
  assertAllNear("the gradient of", found, real, golden.rtol.long);
}
