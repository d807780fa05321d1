/** Golden cases of adapters made of others: several at once, weighted sums, PiSSA and its conversion. */
import { assertEquals } from "@std/assert";
import { causalLoss } from "../../core/nn/loss.ts";
import { type HostTensor, upload } from "../../core/tensor.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { flatten } from "../../core/tree.ts";
import { combine, pissa, type PissaOptions, pissaToLora, together } from "../../lora/mod.ts";
import { loadModel } from "../../models/load/load_model.ts";
import { moduleNames } from "../../formats/peft/describe.ts";
import { readAdapter } from "../../formats/peft/files.ts";
import { adapterOptions, fitAdapter } from "../../formats/adapter_fit.ts";
import type { OpenRuntime } from "../runtimes.ts";
import { adapted, assertAllNear, byKey, productOf } from "./adapter_cases.ts";
import { assertNear, type GoldenCase } from "./golden_case.ts";
import { batchOf } from "./model_cases.ts";

/** `gpt2-lora-multi`, `gpt2-lora-linear`: each adapter alone, all active, and a weighted combination. */
export async function runSeveralCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using model = await loadModel(golden.base!, { device: runtime.home });
  const io = golden.tensors("io.safetensors");
  const { inputs } = batchOf(io, "a", runtime)!;
  const way = golden.has("adapters/linear") ? "linear" : "cat";
  const names = [...Deno.readDirSync(`${golden.folder}/adapters`)].map(({ name }) => name).filter((name) =>
    name !== way
  )
    .sort();
  const key = [...io.keys()].find((name) => new RegExp(`^${way}(_[-\\d.]+)*\\.a\\.logits$`).test(name))!;
  // The weights stand in case.json, or in the name of the logits: cat_0.7_0.4.a.logits.
  const weights: number[] = golden.info.weights ?? key.split(".a.logits")[0].split("_").slice(1).map(Number);
  assertEquals(weights.length, names.length);
  const each = names.map((name) => adapted(model, `${golden.folder}/adapters/${name}`));
  const by = (list: readonly unknown[]): any => Object.fromEntries(names.map((name, i) => [name, list[i]]));
  const all = together(by(each.map(({ tuned }) => tuned)));
  const logits = (t: any) => runtime.read(runtime.jit((t, f, x) => all.apply(t, f, x))(t, all.frozen, inputs));
  const { values } = golden.rtol;
  for (const [i, name] of names.entries()) {
    assertNear(`${name} alone`, await logits({ [name]: each[i].trainable }), io.get(`${name}.a.logits`)!, values);
  }
  const trainables = by(each.map(({ trainable }) => trainable));
  assertNear("all at once", await logits(trainables), io.get("both_active.a.logits")!, values);

  const made = combine(each.map(({ tuned, trainable }, i) => ({ tuned, trainable, weight: weights[i] })), way);
  const { keyOf } = adapted(model, `${golden.folder}/adapters/${way}`);
  const found = byKey(await runtime.read(made.trainable), keyOf);
  assertAllNear(way, found, golden.tensors(`adapters/${way}/adapter_model.safetensors`), values);
  const run = runtime.jit((t, f, x) => made.apply(t, f, x));
  assertNear("the combination", await runtime.read(run(made.trainable, made.frozen, inputs)), io.get(key)!, values);
  // Of "linear" the change is another than the sum of the changes.
  if (way === "linear") return;
  const weigh = runtime.jit((t, f, x, weights) => all.apply(t, f, x, { weights }));
  const weighted = await runtime.read(weigh(trainables, all.frozen, inputs, by(weights)));
  assertNear("the same by weights", weighted, io.get(key)!, values);
}

/** `gpt2-combine`: adapters combined by entries, beside what PEFT made: its files, or where signs are free its changes. */
export async function runCombinationsCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using model = await loadModel(golden.base!, { device: runtime.home });
  const io = golden.tensors("io.safetensors");
  const { inputs } = batchOf(io, "a", runtime)!;
  const changes = golden.has("delta.safetensors") ? golden.tensors("delta.safetensors") : new Map();
  // The directions of singular values that are nearly equal are free.
  const svdRtol = Number(/svd entries[^:]*: ([\d.e-]+) /.exec(golden.info.tolerance)?.[1] ?? 1e-3);
  for (const entry of golden.info.entries) {
    const { name, adapters, weights, combination_type: way } = entry;
    const parts = adapters.map((adapter: string, i: number) => {
      const { tuned, trainable } = adapted(model, `${golden.folder}/adapters/${adapter}`);
      return { tuned, trainable, weight: weights[i] };
    });
    const options = {
      ...{ density: entry.density, majoritySignMethod: entry.majority_sign_method },
      ...{ svdRank: entry.svd_rank, svdClamp: entry.svd_clamp },
    };
    const made = await combine(parts, way, options);
    const found: Record<string, { A: HostTensor; B: HostTensor }> = await runtime.read(made.trainable);
    if (!way.endsWith("svd")) {
      const { keyOf } = adapted(model, `${golden.folder}/adapters/${name}`);
      const expected = golden.tensors(`adapters/${name}/adapter_model.safetensors`);
      assertAllNear(name, byKey(found, keyOf), expected, golden.rtol.values);
    }
    for (const [key, change] of changes) {
      if (!key.startsWith(`${name}.`)) continue;
      const [, { A, B }] = Object.entries(found).find(([path]) => key === `${name}.${model.hubName(path)}.weight`)!;
      assertNear(`the change ${key}`, productOf(B, A), change, svdRtol);
    }
    const logits = await runtime.read(
      runtime.jit((t, f, x) => made.apply(t, f, x))(made.trainable, made.frozen, inputs),
    );
    assertNear(name, logits, io.get(`${name}.a.logits`)!, way.endsWith("svd") ? svdRtol : golden.rtol.values);
  }
}

/** `gpt2-lora-pissa`: the start, what is left of the base, a trained adapter over that, and its conversion. */
export async function runPissaCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using model = await loadModel(golden.base!, { device: runtime.home });
  const { values, long } = golden.rtol;
  const io = golden.tensors("io.safetensors");
  const [a, b] = ["a", "b"].map((name) => batchOf(io, name, runtime)!);
  const logits = (tuned: any, t: any, { inputs }: any): Promise<HostTensor> =>
    runtime.read(runtime.jit((t, f, x) => tuned.apply(t, f, x))(t, tuned.frozen, inputs));

  const files = readAdapter(`${golden.folder}/pissa_init`);
  // The start is saved as a plain one, so that PEFT does not start over; the trained adapter says what it was.
  const { init_lora_weights: way } = readAdapter(`${golden.folder}/pissa_trained`).config;
  const niter = /^pissa_niter_(\d+)$/.exec(String(way))?.[1];
  const options = {
    ...adapterOptions(files, fitAdapter(files, moduleNames(model))),
    ...(niter && { niter: Number(niter) }),
  };
  const tuned = await pissa<any, any, any>(model, options as unknown as PissaOptions<any>);
  const start: Record<string, { A: HostTensor; B: HostTensor }> = await runtime.read(tuned.trainable);
  const residual = golden.tensors("residual.safetensors");
  const frozen = flatten<HostTensor>(await runtime.read(tuned.frozen), (x) => (x as HostTensor)?.data !== undefined);
  const left = new Map(frozen.paths.map((path, i) => [model.hubName(path), frozen.leaves[i]]));
  // With niter the singular vectors are drawn, and only what is computed is the same.
  if (niter === undefined) assertAllNear("what is left of", left, residual, values);
  for (const [path, { A, B }] of niter === undefined ? Object.entries(start) : []) {
    const expected = golden.tensors("init_ba.safetensors").get(model.hubName(`${path}.weight`))!;
    assertNear(`B·A of ${path}`, productOf(B, A), expected, values);
  }
  assertNear("init.a.logits", await logits(tuned, tuned.trainable, a), io.get("init.a.logits")!, values);
  assertNear("init.b.logits", await logits(tuned, tuned.trainable, b), io.get("init.b.logits")!, values);

  // From here on the golden's own start, whose signs are as free as ours.
  const place = (name: string) => adapted(model, `${golden.folder}/${name}`);
  const [init, trained, converted] = ["pissa_init", "pissa_trained", "converted"].map(place);
  const params = flatten<any>(model.params);
  const kept = params.leaves.map((leaf, i) => {
    const found = residual.get(model.hubName(params.paths[i]));
    return found === undefined ? leaf : upload(runtime.home, found);
  });
  const over = { ...init.tuned, frozen: params.unflatten(kept) as any };
  const loss = (t: any, f: any) => causalLoss(over.apply(t, f, a.inputs), a.labels);
  const [value, grads] = await runtime.read(runtime.jit(valueAndGrad(loss))(init.trainable, over.frozen));
  assertNear("the loss", value, golden.info.losses_init.a, values);
  assertAllNear("the gradient of", byKey(grads, init.keyOf), golden.tensors("grads_init.safetensors"), long);
  assertNear("trained.a.logits", await logits(over, trained.trainable, a), io.get("trained.a.logits")!, values);
  assertNear("trained.b.logits", await logits(over, trained.trainable, b), io.get("trained.b.logits")!, values);

  const plain = pissaToLora(over, trained.trainable);
  const { config } = converted.tuned.origin;
  assertEquals(plain.matched.map((m) => [m.r, m.alpha]), plain.matched.map(() => [config.r, config.lora_alpha]));
  const found = byKey(await runtime.read(plain.trainable), converted.keyOf);
  assertAllNear("converted", found, golden.tensors("converted/adapter_model.safetensors"), values);
  assertNear("plain on the base", await logits(plain, plain.trainable, a), io.get("trained.a.logits")!, values);
}
