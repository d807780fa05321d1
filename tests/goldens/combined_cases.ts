/** Golden cases of adapters made of others: several at once, weighted sums, PiSSA and its conversion. */
import { assertEquals } from "@std/assert";
import { causalLoss } from "../../core/nn/loss.ts";
import { type HostTensor, upload } from "../../core/tensor.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { flatten } from "../../core/tree.ts";
import { combine, pissa, pissaToLora, together } from "../../lora/mod.ts";
import { loadModel } from "../../models/load_model.ts";
import type { OpenRuntime } from "../runtimes.ts";
import { adapted, assertAllNear, byKey } from "./adapter_cases.ts";
import { assertNear, type GoldenCase } from "./golden_case.ts";
import { batchOf } from "./model_cases.ts";

/** `gpt2-lora-multi`, `gpt2-lora-linear`: each adapter alone, both active, and a weighted combination. */
export async function runSeveralCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using model = await loadModel(`${golden.root}/${golden.info.base}`, { device: runtime.home });
  const io = golden.tensors("io.safetensors");
  const { inputs } = batchOf(io, "a", runtime)!;
  const way = golden.has("adapters/linear") ? "linear" : "cat";
  const [w1, w2]: number[] = golden.info.weights ?? [0.7, 0.4];
  const [one, two, whole] = ["one", "two", way].map((name) => adapted(model, `${golden.folder}/adapters/${name}`));
  const both = together({ one: one.tuned, two: two.tuned });
  const logits = (t: any) => runtime.read(runtime.jit((t, f, x) => both.apply(t, f, x))(t, both.frozen, inputs));
  const { values } = golden.rtol;
  const [t1, t2] = [one.trainable, two.trainable];
  assertNear("one alone", await logits({ one: t1 }), io.get("one.a.logits")!, values);
  assertNear("two alone", await logits({ two: t2 }), io.get("two.a.logits")!, values);
  assertNear("both at once", await logits({ one: t1, two: t2 }), io.get("both_active.a.logits")!, values);

  const expected = (io.get("linear.a.logits") ?? io.get("cat_0.7_0.4.a.logits"))!;
  const made = combine([
    { tuned: one.tuned, trainable: t1, weight: w1 },
    { tuned: two.tuned, trainable: t2, weight: w2 },
  ], way);
  const found = byKey(await runtime.read(made.trainable), whole.keyOf);
  assertAllNear(way, found, golden.tensors(`adapters/${way}/adapter_model.safetensors`), values);
  const run = runtime.jit((t, f, x) => made.apply(t, f, x));
  assertNear("the combination", await runtime.read(run(made.trainable, made.frozen, inputs)), expected, values);
  // Of "linear" the change is another than the sum of the changes.
  if (way === "linear") return;
  const weigh = runtime.jit((t, f, x, one, two) => both.apply(t, f, x, { weights: { one, two } }));
  const weighted = await runtime.read(weigh({ one: t1, two: t2 }, both.frozen, inputs, w1, w2));
  assertNear("the same by weights", weighted, expected, values);
}

/** `gpt2-lora-pissa`: the start, what is left of the base, a trained adapter over that, and its conversion. */
export async function runPissaCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using model = await loadModel(`${golden.root}/${golden.info.base}`, { device: runtime.home });
  const { values, long } = golden.rtol;
  const io = golden.tensors("io.safetensors");
  const [a, b] = ["a", "b"].map((name) => batchOf(io, name, runtime)!);
  const logits = (tuned: any, t: any, { inputs }: any): Promise<HostTensor> =>
    runtime.read(runtime.jit((t, f, x) => tuned.apply(t, f, x))(t, tuned.frozen, inputs));

  const tuned = await pissa(model as any, runtime, { r: 8, alpha: 16, targets: ["c_attn"] });
  const start: Record<string, { A: HostTensor; B: HostTensor }> = await runtime.read(tuned.trainable);
  const residual = golden.tensors("residual.safetensors");
  const frozen = flatten<HostTensor>(await runtime.read(tuned.frozen), (x) => (x as HostTensor)?.data !== undefined);
  const left = new Map(frozen.paths.map((path, i) => [model.hubName(path), frozen.leaves[i]]));
  assertAllNear("what is left of", left, residual, values);
  for (const [path, { A, B }] of Object.entries(start)) {
    const expected = golden.tensors("init_ba.safetensors").get(model.hubName(`${path}.weight`))!;
    assertNear(`B·A of ${path}`, multiply(B, A), expected, values);
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

function multiply(a: HostTensor, b: HostTensor): HostTensor {
  const [[rows, inner], [, columns]] = [a.shape, b.shape];
  const data = new Float32Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let k = 0; k < inner; k++) {
      for (let j = 0; j < columns; j++) data[i * columns + j] += a.data[i * inner + k] * b.data[k * columns + j];
    }
  }
  return { shape: [rows, columns], dtype: "f32", data };
}
