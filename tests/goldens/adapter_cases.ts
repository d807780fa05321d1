/** Golden cases of adapters: what PEFT computed with them, merged them into, and their gradients. */
import { assertEquals, assertExists } from "@std/assert";
import { causalLoss } from "../../core/nn/loss.ts";
import { type HostTensor, Tensor } from "../../core/tensor.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { flatten } from "../../core/tree.ts";
import { lora } from "../../lora/lora.ts";
import { loadModel } from "../../models/load_model.ts";
import type { LoadedModel } from "../../models/loader.ts";
import { adapterOptions, pairsFor, readAdapter } from "../../train/adapter_files.ts";
import { formatAdapterKey } from "../../train/adapter_keys.ts";
import type { OpenRuntime } from "../runtimes.ts";
import { assertNear, type GoldenCase } from "./golden_case.ts";
import { batchOf, checkBatches, uploadTree } from "./model_cases.ts";

const isHost = (x: unknown) => (x as HostTensor | null)?.data !== undefined;

/** The module paths of a model: its leaves' without `.weight` and `.bias`. */
function modulePaths(model: LoadedModel): Set<string> {
  return new Set(flatten(model.params).paths.map((path) => path.replace(/\.(weight|bias)$/, "")));
}

/** A model with an adapter as PEFT saved it. */
export function adapted(model: LoadedModel, folder: string, runtime: OpenRuntime) {
  const files = readAdapter(folder);
  const tuned = lora(model, adapterOptions(files, modulePaths(model)));
  const shapes = new Map(
    Object.entries<any>(tuned.trainable).map(([path, { A, B }]) => [path, { A: A.shape, B: B.shape }]),
  );
  const pairs = pairsFor(files, shapes);
  const trainable = uploadTree(
    Object.fromEntries(Object.entries(pairs).map(([path, { A, B }]) => [path, { A, B }])),
    runtime,
  );
  /** PEFT's key of one matrix of a module. */
  const keyOf = (path: string, part: "A" | "B") =>
    formatAdapterKey(model.hubName(path), pairs[path].embedding ? `embedding${part}` : part);
  return { tuned, trainable, keyOf };
}

/** Matrices of an adapter, by PEFT's keys. */
export function byKey(tree: any, keyOf: (path: string, part: "A" | "B") => string): Map<string, HostTensor> {
  return new Map(
    Object.entries<any>(tree).flatMap(([path, pair]) => (["A", "B"] as const).map((p) => [keyOf(path, p), pair[p]])),
  );
}

/** Compares every expected tensor with that of the same key. */
export function assertAllNear(
  what: string,
  actual: ReadonlyMap<string, HostTensor>,
  expected: ReadonlyMap<string, HostTensor>,
  rtol: number,
): void {
  for (const [key, tensor] of expected) {
    assertExists(actual.get(key), `there is no ${key}`);
    assertNear(`${what} ${key}`, actual.get(key)!, tensor, rtol);
  }
}

/** `gpt2-lora-basic`, `llama-lora-qv` and their like. */
export async function runAdapterCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using model = await loadModel(`${golden.root}/${golden.info.base}`, { device: runtime.home });
  const { tuned, trainable, keyOf } = adapted(model, `${golden.folder}/adapter`, runtime);
  const io = golden.tensors("io.safetensors");
  const apply = ({ trainable, frozen }: any, inputs: any) => tuned.apply(trainable, frozen, inputs);
  await checkBatches(golden, io, apply, { trainable, frozen: tuned.frozen }, runtime);

  const batch = batchOf(io, "a", runtime)!;
  const loss = (trainable: any, frozen: any) => causalLoss(tuned.apply(trainable, frozen, batch.inputs), batch.labels);
  const [, grads] = await runtime.read(runtime.jit(valueAndGrad(loss))(trainable, tuned.frozen));
  const [found, expected] = [byKey(grads, keyOf), golden.tensors("grads.safetensors")];
  assertEquals([...found.keys()].sort(), [...expected.keys()].sort());
  assertAllNear("the gradient of", found, expected, golden.rtol.long);

  await checkMerged(golden, model, tuned, trainable, runtime);
  checkCounts(golden, model, tuned, trainable);
}

/** Merged weights and logits as PEFT makes them, and that merging changes nothing that is computed. */
async function checkMerged(golden: GoldenCase, model: LoadedModel, tuned: any, trainable: any, runtime: OpenRuntime) {
  const io = golden.tensors("io.safetensors");
  const batch = batchOf(io, "a", runtime)!;
  const merge = (options?: unknown) =>
    runtime.jit((t, f, inputs) => {
      const params = tuned.merge(t, f, options);
      return { params, logits: model.apply(params, inputs) };
    })(trainable, tuned.frozen, batch.inputs);
  const { params, logits } = await runtime.read(merge({ tied: "peft" }));
  const expected = golden.tensors("merged.safetensors");
  const { leaves, paths } = flatten<HostTensor>(params, isHost);
  const merged = new Map(paths.map((path, i) => [model.hubName(path), leaves[i]]));
  for (const [name, tensor] of expected) assertNear(`merged ${name}`, merged.get(name)!, tensor, golden.rtol.values);
  assertNear("a.merged_logits", logits, io.get("a.merged_logits")!, golden.rtol.values);
  const same = await runtime.read(merge());
  assertNear("the logits of merged weights", same.logits, io.get("a.logits")!, golden.rtol.values);
}

function checkCounts(golden: GoldenCase, model: LoadedModel, tuned: any, trainable: unknown): void {
  const count = (tree: unknown) => flatten<Tensor>(tree).leaves.reduce((n, leaf) => n + leaf.size, 0);
  const { trainable_params, all_params, scaling } = golden.info;
  assertEquals(count(trainable), trainable_params);
  assertEquals(count(trainable) + count(model.params), all_params);
  const found = tuned.matched.map((m: any) => [`base_model.model.${model.hubName(m.path)}`, m.scaling]);
  assertEquals(found.sort(), scaling.toSorted());
}
