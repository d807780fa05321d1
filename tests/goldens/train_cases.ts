/** Golden cases of training: the losses, norms, rates and parameters of a run by PyTorch and PEFT, step by step. */
import { assertEquals } from "@std/assert";
import { causalLoss } from "../../core/nn/loss.ts";
import { mul } from "../../core/ops/elementwise.ts";
import { type HostTensor, upload } from "../../core/tensor.ts";
import { loadModel } from "../../models/load_model.ts";
import { adamw } from "../../train/optimiser.ts";
import { makeSchedule } from "../../train/schedule.ts";
import { guardedUpdate, makeAccumulation } from "../../train/step.ts";
import type { OpenRuntime } from "../runtimes.ts";
import { adapted, assertAllNear, byKey } from "./adapter_cases.ts";
import { assertNear, type GoldenCase } from "./golden_case.ts";

/** The micro-batches of a case: i32[count, B, T] taken in turn. */
function batchesOf(golden: GoldenCase): (k: number) => HostTensor {
  const ids = golden.tensors("batches.safetensors").get("input_ids")!;
  const [count, ...shape] = ids.shape;
  const size = ids.data.length / count;
  return (k) => ({ shape, dtype: "i32", data: ids.data.slice((k % count) * size, (k % count + 1) * size) });
}

/** What a trace.json says of the run. */
interface Trace {
  readonly hyperparameters: Record<string, any>;
  readonly steps: readonly { step: number; loss: number; grad_norm: number; lr: number; micro_losses?: number[] }[];
}

/** `gpt2-train-basic`, `llama-train-qv` and their like: every step on a device, ten of them on the oracle. */
export async function runTrainCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using model = await loadModel(`${golden.root}/${golden.info.base}`, { device: runtime.home });
  const { tuned, trainable, keyOf } = adapted(model, `${golden.folder}/adapter_init`, runtime);
  const { hyperparameters: h, steps } = golden.json("trace.json") as Trace;
  const accumulation = h.gradient_accumulation_steps as number;
  const optimiser = adamw({ betas: h.betas, eps: h.eps, weightDecay: h.weight_decay });
  const lrAt = makeSchedule({ schedule: h.schedule, lr: h.lr, steps: h.total_steps, warmup: h.warmup_steps });

  const loss = (trainable: any, frozen: any, ids: any) =>
    mul(causalLoss(tuned.apply(trainable, frozen, { inputIds: ids }), ids), 1 / accumulation);
  const { first, more } = makeAccumulation(loss);
  const start = runtime.jit(first);
  const add = runtime.jit(more, { donate: [0] });
  const finish = runtime.jit(
    (state, sum, lr) => guardedUpdate(state, sum.loss, sum.grads, lr, { optimiser, clip: h.max_grad_norm }),
    { donate: [0, 1] },
  );

  let state: any = runtime.jit((params) => ({ params, optimiser: optimiser.init(params) }))(trainable);
  const batch = batchesOf(golden);
  const snapshots = golden.has("snapshots.safetensors") ? golden.tensors("snapshots.safetensors") : new Map();
  const rounds = runtime.slow ? steps.slice(0, 10) : steps;
  for (const [i, expected] of rounds.entries()) {
    const ids = Array.from({ length: accumulation }, (_, k) => upload(runtime.home, batch(i * accumulation + k)));
    let sum = start(state.params, tuned.frozen, ids[0]);
    for (const more of ids.slice(1)) sum = add(sum, state.params, tuned.frozen, more);
    if (i === 0 && golden.has("grads_step1.safetensors")) {
      const found = byKey((await runtime.read(sum)).grads, keyOf);
      assertAllNear("the gradient of", found, golden.tensors("grads_step1.safetensors"), golden.rtol.long);
    }
    const lr = lrAt(i);
    assertNear(`the rate of step ${i + 1}`, lr, expected.lr, 1e-12);
    let report;
    ({ state, report } = finish(state, sum, lr));
    const { loss, gradNorm } = await runtime.read(report);
    assertNear(`the loss of step ${i + 1}`, loss, expected.loss, golden.rtol.values);
    assertNear(`the norm of step ${i + 1}`, gradNorm, expected.grad_norm, golden.rtol.long);
    const prefix = `step${i + 1}.`;
    const snapshot = new Map(
      [...snapshots].flatMap(([k, v]) => k.startsWith(prefix) ? [[k.slice(prefix.length), v]] : []),
    );
    if (snapshot.size > 0) {
      const params = byKey((await runtime.read(state)).params, keyOf);
      assertAllNear(`after step ${i + 1},`, params, snapshot, golden.rtol.long);
    }
  }
  if (rounds.length < steps.length) return;
  const final = golden.tensors("adapter_final/adapter_model.safetensors");
  assertAllNear("at the end,", byKey((await runtime.read(state)).params, keyOf), final, golden.rtol.long);
  assertEquals(steps.length, h.total_steps);
}
