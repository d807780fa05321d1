/** Golden cases of adapters: what PEFT computed with them, merged them into, and their gradients. */
import { assertEquals, assertExists, assertThrows } from "@std/assert";
import { sizeOf } from "../../core/aval.ts";
import { OptionError } from "../../core/errors.ts";
import type { Model } from "../../core/model.ts";
import { causalLoss } from "../../core/nn/loss.ts";
import { type HostTensor, Tensor } from "../../core/tensor.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { flatten } from "../../core/tree.ts";
import type { Saved } from "../../lora/mod.ts";
import { loadModel } from "../../models/load/load_model.ts";
import type { LoadedModel } from "../../models/load/loader.ts";
import { loadAdapter } from "../../formats/tuned_model.ts";
import { formatAdapterKey, partOf } from "../../formats/peft/keys.ts";
import type { OpenRuntime } from "../runtimes.ts";
import { assertNear, type GoldenCase } from "./golden_case.ts";
import { batchOf, checkBatches } from "./model_cases.ts";

/** Whether a node of a tree is a tensor that was read. */
export const isHost = (x: unknown) => (x as HostTensor | null)?.data !== undefined;

/** How many numbers a tree of tensors holds. */
export const countOf = (tree: unknown) => flatten<Tensor>(tree).leaves.reduce((n, leaf) => n + leaf.size, 0);

/** B·A, each number rounded once. */
export function productOf(B: HostTensor, A: HostTensor): HostTensor {
  const [out, r] = B.shape, inputs = A.shape[1];
  const data = Float32Array.from({ length: out * inputs }, (_, i) => {
    let sum = 0;
    for (let k = 0; k < r; k++) sum += B.data[Math.floor(i / inputs) * r + k] * A.data[k * inputs + i % inputs];
    return sum;
  });
  return { shape: [out, inputs], dtype: "f32", data };
}

/** A model with an adapter as PEFT saved it. */
export function adapted(model: Model<any, any, any> & { hubName(path: string): string }, folder: string) {
  // A golden says itself which weights a PiSSA adapter belongs to.
  const tuned = loadAdapter(folder, model, { residual: true });
  const [{ method }] = tuned.plan.adapted;
  const kinds = new Map(tuned.matched.map((m) => [m.path, m.kind]));
  /** PEFT's key of one leaf of a module. */
  const keyOf = (path: string, leaf: string) => {
    const traits = { embedding: kinds.get(path) === "embedding", adapted: kinds.has(path) };
    return formatAdapterKey(model.hubName(path), partOf(method, leaf, traits));
  };
  return { tuned, trainable: tuned.trainable as any, keyOf };
}

/** Leaves of an adapter, by PEFT's keys. */
export function byKey(tree: any, keyOf: (path: string, leaf: string) => string): Map<string, HostTensor> {
  return new Map(
    Object.entries<any>(tree).flatMap(([path, entry]) =>
      Object.entries<any>(entry).map(([leaf, tensor]) => [keyOf(path, leaf), tensor] as const)
    ),
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

/** Logits and gradients of a model with the case's adapter, beside PEFT's; the adapter. */
export async function checkAdapted(
  golden: GoldenCase,
  model: Parameters<typeof adapted>[0],
  runtime: OpenRuntime,
): Promise<{ tuned: any; trainable: any }> {
  const { tuned, trainable, keyOf } = adapted(model, `${golden.folder}/adapter`);
  const io = golden.tensors("io.safetensors");
  const apply = ({ trainable, frozen }: any, inputs: any) => tuned.apply(trainable, frozen, inputs);
  await checkBatches(golden, io, apply, { trainable, frozen: tuned.frozen }, runtime);

  const batch = batchOf(io, "a", runtime)!;
  const loss = (trainable: any, frozen: any) => causalLoss(tuned.apply(trainable, frozen, batch.inputs), batch.labels);
  const [, grads] = await runtime.read(runtime.jit(valueAndGrad(loss))(trainable, tuned.frozen));
  const [found, expected] = [byKey(grads, keyOf), golden.tensors("grads.safetensors")];
  assertEquals([...found.keys()].sort(), [...expected.keys()].sort());
  assertAllNear("the gradient of", found, expected, golden.rtol.long);
  return { tuned, trainable };
}

/** `gpt2-lora-basic`, `llama-lora-qv` and their like. */
export async function runAdapterCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using model = await loadModel(golden.base!, { device: runtime.home });
  const { tuned, trainable } = await checkAdapted(golden, model, runtime);

  await checkMerged(golden, model, tuned, trainable, runtime);
  checkCounts(golden, model, tuned, trainable);
}

/** `llama-alora`: an adapter that acts at some places only, which is not merged. */
export async function runInvokedCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using model = await loadModel(golden.base!, { device: runtime.home });
  const { tuned, trainable } = await checkAdapted(golden, model, runtime);
  assertThrows(() => tuned.merge(trainable, tuned.frozen), OptionError, "can't be merged");
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
  const { trainable_params, all_params, scaling } = golden.info;
  assertEquals(countOf(trainable), trainable_params);
  // PEFT trains biases in their place; all else stands beside the model.
  const inPlace = tuned.saved.filter((s: Saved) => s.by === "bias").reduce(
    (n: number, s: Saved) => n + sizeOf(s.shape),
    0,
  );
  assertEquals(countOf(trainable) + countOf(model.params) - inPlace, all_params);
  if (scaling === undefined) return; // a method without one
  const found = tuned.matched.map((m: any) => [`base_model.model.${model.hubName(m.path)}`, m.scaling]);
  assertEquals(found.sort(), scaling.toSorted());
}
