/** Golden cases of whole models: logits, hidden states, losses, gradients, greedy continuations, in each file format. */
import { assert, assertEquals } from "@std/assert";
import { fromBf16, fromF16, toBf16, toF16 } from "../../core/dtype.ts";
import { causalLoss } from "../../core/nn/loss.ts";
import { upload } from "../../core/tensor.ts";
import type { HostTensor, Tensor } from "../../core/tensor.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { flatten, mapTree } from "../../core/tree.ts";
import { generator } from "../../models/generate/generate.ts";
import { gpt2, loadModel } from "../../models/load/load_model.ts";
import type { LoadedModel } from "../../models/load/loader.ts";
import { parseConfig } from "../../models/load/config.ts";
import { openGguf } from "../../models/load/gguf/source.ts";
import { openModelFiles } from "../../models/load/model_files.ts";
import { openSafetensors } from "../../models/load/safetensors/safetensors.ts";
import type { DecoderFamily, LayeredModel } from "../../models/families/language_model.ts";
import { familyOf } from "../../models/families/mod.ts";
import type { Rotary } from "../../models/families/rotary.ts";
import type { OpenRuntime } from "../runtimes.ts";
import { assertNear, type GoldenCase } from "./golden_case.ts";

/** A batch of a case, on the device: what the model reads, and the labels for its loss. */
export interface Batch {
  readonly inputs: { readonly inputIds: Tensor; readonly attentionMask?: Tensor };
  readonly labels: Tensor;
}

/** Batch `name` (`a` without padding, `b` with) of a case's io.safetensors, if it is there. */
export function batchOf(io: Map<string, HostTensor>, name: string, runtime: OpenRuntime): Batch | null {
  const [ids, mask, labels] = ["input_ids", "attention_mask", "labels"].map((key) => io.get(`${name}.${key}`));
  if (ids === undefined || labels === undefined) return null;
  const inputIds = upload(runtime.home, ids);
  return {
    inputs: mask === undefined ? { inputIds } : { inputIds, attentionMask: upload(runtime.home, mask) },
    labels: upload(runtime.home, labels),
  };
}

/** Logits and loss of every batch in io.safetensors. `apply` has its parameters already. */
export async function checkBatches(
  golden: GoldenCase,
  io: Map<string, HostTensor>,
  apply: (params: any, inputs: any) => any,
  params: unknown,
  runtime: OpenRuntime,
): Promise<void> {
  for (const name of ["a", "b"]) {
    const batch = batchOf(io, name, runtime);
    if (batch === null) continue;
    const run = runtime.jit((params, inputs, labels) => {
      const logits = apply(params, inputs);
      return { logits, loss: causalLoss(logits, labels) };
    });
    const { logits, loss } = await runtime.read(run(params, batch.inputs, batch.labels));
    const expected = io.get(`${name}.logits`);
    // What a padded token gives is arbitrary where it sees nothing in its window.
    const real = (x: HostTensor) => maskedRows(x, io.get(`${name}.attention_mask`));
    if (expected !== undefined) assertNear(`${name}.logits`, real(logits), real(expected), golden.rtol.values);
    if (golden.info.losses) assertNear(`the loss of ${name}`, loss, golden.info.losses[name], golden.rtol.values);
  }
}

/** Zeros in the rows [B,T] of x [B,T,…] that a mask hides; all of x where it is not of the tokens, or there is no mask. */
export function maskedRows(x: HostTensor, mask: HostTensor | undefined): HostTensor {
  if (mask === undefined || x.shape.length < 3) return x;
  const width = x.data.length / mask.data.length;
  return { ...x, data: Float32Array.from(x.data, (value, i) => mask.data[Math.floor(i / width)] === 0 ? 0 : value) };
}

/** Loads the case's own model. */
export const ownModel = (golden: GoldenCase, runtime: OpenRuntime): Promise<LoadedModel> =>
  loadModel(`${golden.folder}/model`, { device: runtime.home });

/** `gpt2-base`, `llama-base`, `llama-untied` and their like. */
export async function runBaseCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using model = await ownModel(golden, runtime);
  const io = golden.tensors("io.safetensors");
  await checkBatches(golden, io, model.apply, model.params, runtime);
  await checkHiddenStates(golden, io, model, runtime);
  if (golden.has("grads.safetensors")) await checkGradients(golden, io, model, runtime);
  if (io.has("greedy.ids")) await checkGreedy(golden, io, model);
  if (golden.has("model_hub_layout.safetensors")) await checkHubLayout(golden, io, runtime);
  if (golden.has("model.gguf")) await checkGguf(golden, io, runtime);
  if (golden.has("config_legacy.json")) checkLegacyConfig(golden, model);
  const params = flatten<Tensor>(model.params).leaves.reduce((n, t) => n + t.size, 0);
  if (golden.info.n_params !== undefined) assertEquals(params, golden.info.n_params);
}

async function checkHiddenStates(
  golden: GoldenCase,
  io: Map<string, HostTensor>,
  model: LayeredModel<any>,
  runtime: OpenRuntime,
) {
  if (!io.has("a.hidden_states.0")) return;
  const batch = batchOf(io, "a", runtime)!;
  const states = await runtime.read(runtime.jit(model.hiddenStates)(model.params, batch.inputs));
  states.forEach((state: HostTensor, i: number) => {
    assertNear(`a.hidden_states.${i}`, state, io.get(`a.hidden_states.${i}`)!, golden.rtol.values);
  });
  assert(!io.has(`a.hidden_states.${states.length}`), "as many hidden states as in the golden");
}

async function checkGradients(
  golden: GoldenCase,
  io: Map<string, HostTensor>,
  model: LayeredModel<any>,
  runtime: OpenRuntime,
) {
  const batch = batchOf(io, "a", runtime)!;
  const loss = (params: any, inputs: any, labels: any) => causalLoss(model.apply(params, inputs), labels);
  const [, grads] = await runtime.read(runtime.jit(valueAndGrad(loss))(model.params, batch.inputs, batch.labels));
  const found = flatten<HostTensor>(grads, (x) => (x as HostTensor | null)?.data !== undefined);
  const expected = golden.tensors("grads.safetensors");
  assertEquals(found.paths.map((path) => model.hubName(path)).sort(), [...expected.keys()].sort());
  found.paths.forEach((path, i) => {
    const name = model.hubName(path);
    assertNear(`the gradient of ${name}`, found.leaves[i], expected.get(name)!, golden.rtol.long);
  });
}

async function checkGreedy(golden: GoldenCase, io: Map<string, HostTensor>, model: LayeredModel<any>) {
  const rows = ({ shape: [count, length], data }: HostTensor) =>
    Array.from({ length: count }, (_, i) => [...data.subarray(i * length, (i + 1) * length)]);
  const [prompts, expected] = [rows(io.get("greedy.prompt")!), rows(io.get("greedy.ids")!)];
  const maxNewTokens = expected[0].length - prompts[0].length;
  const made = await generator(model)(model.params, prompts, { maxNewTokens });
  assertEquals(made.map(({ ids }, i) => [...prompts[i], ...ids]), expected, golden.id);
}

/** The same weights under the names of the original file on the hub. */
async function checkHubLayout(golden: GoldenCase, io: Map<string, HostTensor>, runtime: OpenRuntime) {
  const files = openModelFiles(`${golden.folder}/model`, [gpt2.modelType]);
  files.source[Symbol.dispose]();
  const source = openSafetensors(`${golden.folder}/model_hub_layout.safetensors`);
  using model = await gpt2.fromFiles({ ...files, source }, { device: runtime.home });
  await checkBatches(golden, io, model.apply, model.params, runtime);
}

/** The same weights as a GGUF file, which says nothing of windows. */
async function checkGguf(golden: GoldenCase, io: Map<string, HostTensor>, runtime: OpenRuntime) {
  using model = await loadModel(`${golden.folder}/model.gguf`, { device: runtime.home });
  const { inputs } = batchOf(io, "a", runtime)!;
  const logits = await runtime.read(runtime.jit(model.apply)(model.params, inputs));
  assertNear("gguf.a.logits", logits, io.get("gguf.a.logits")!, golden.rtol.values);
}

/** The older spelling of a configuration says the same. */
function checkLegacyConfig(golden: GoldenCase, model: LoadedModel) {
  const legacy = parseConfig(golden.json("config_legacy.json"), `${golden.folder}/config_legacy.json`);
  const { sizes } = familyOf(model.architecture) as DecoderFamily;
  assertEquals(sizes(legacy), sizes(model.config));
}

/**
 * `llama-bf16-sharded`: weights of 16 bits, held as they are and as f32. The reference rounded the whole module before it
 * widened it again, its inverse frequencies (which no file holds) among the rest; so they are rounded here too.
 */
export async function runShardedCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  const io = golden.tensors("io.safetensors");
  for (const dtype of [undefined, "f32"] as const) {
    using model = await loadModel(`${golden.folder}/model`, { device: runtime.home, dtype });
    const { sizes, over } = familyOf(model.architecture) as DecoderFamily;
    const config = sizes(model.config);
    const round = model.config.raw.dtype === "float16"
      ? (x: number) => fromF16(toF16(x))
      : (x: number) => fromBf16(toBf16(x));
    const rotary = (config.rotary as (Rotary | null)[] | undefined)?.map((kind) =>
      kind && { ...kind, frequencies: Array.from(kind.frequencies, round) }
    );
    const rounded = rotary === undefined ? model : over({ ...config, rotary }, model.params);
    await checkBatches(golden, io, rounded.apply, model.params, runtime);
  }
}

/** The GGUF files of one model in several types, by the type that the file's name ends with. */
export function ggufFiles(golden: GoldenCase): Map<string, string> {
  const names = [...Deno.readDirSync(golden.folder)].map(({ name }) => name);
  return new Map(names.flatMap((name) => {
    const type = /-([A-Z]+[0-9]+[A-Z0-9_]*)\.gguf$/.exec(name)?.[1];
    return type === undefined ? [] : [[type, `${golden.folder}/${name}`] as const];
  }));
}

/** `llama-gguf`: one model in several GGUF types, each with the logits that it gives. */
export async function runGgufCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  const io = golden.tensors("io.safetensors");
  const batch = batchOf(io, "a", runtime)!;
  for (const [type, file] of ggufFiles(golden)) {
    const expected = io.get(`${type}.a.logits`);
    assert(expected !== undefined, `there are logits for ${type}`);
    using source = openGguf(file);
    const packs = source.names.some((name) => source.entry(name).packed !== undefined);
    for (const dtype of packs ? ["f32", "packed"] as const : [undefined]) {
      using model = await loadModel(file, { device: runtime.home, dtype });
      const logits = await runtime.read(runtime.jit(model.apply)(model.params as any, batch.inputs));
      assertNear(`${type}.a.logits as ${dtype}`, logits, expected, golden.rtol.values);
    }
  }
}

/** The tree of host tensors put on a device. */
export function uploadTree(tree: unknown, runtime: OpenRuntime): any {
  return mapTree(tree, (x: HostTensor) => upload(runtime.home, x), (x) => (x as HostTensor | null)?.data !== undefined);
}
