/** Golden cases of training: the losses, norms, rates and parameters of a run by PyTorch and PEFT, step by step. */
import { causalLoss } from "../../core/nn/loss.ts";
import { mul } from "../../core/ops/elementwise.ts";
import { type HostTensor, upload } from "../../core/tensor.ts";
import { loadModel } from "../../models/load/load_model.ts";
import type { LoadedModel } from "../../models/load/loader.ts";
import { loraFa } from "../../train/lora_fa.ts";
import { adamw, type AdamWState, loraPlus, type Optimiser } from "../../train/optimiser.ts";
import { makeSchedule } from "../../train/options/schedule.ts";
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
  readonly steps: readonly {
    step: number;
    loss: number;
    grad_norm: number;
    lr: number | number[];
    micro_losses?: number[];
  }[];
}

/** How far a run is followed, and how near it must stay. */
export interface TraceOptions {
  readonly rounds: number;
  readonly rtol: { readonly loss: number; readonly norm: number; readonly gradient: number; readonly end: number };
}

/** `gpt2-train-basic`, `llama-train-qv` and their like: every step on a device, ten of them on the oracle. */
export async function runTrainCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using model = await loadModel(golden.base!, { device: runtime.home });
  const { values, long } = golden.rtol;
  await followTrace(golden, model, runtime, {
    rounds: runtime.slow ? 10 : Infinity,
    rtol: { loss: values, norm: long, gradient: long, end: long },
  });
}

/** Trains a model along a golden trace: losses, norms, rates, first gradients, snapshots, and the end where it is reached. */
export async function followTrace(
  golden: GoldenCase,
  model: LoadedModel,
  runtime: OpenRuntime,
  { rounds, rtol }: TraceOptions,
): Promise<void> {
  const { tuned, trainable, keyOf } = adapted(model, `${golden.folder}/adapter_init`);
  const { hyperparameters: h, steps } = golden.json("trace.json") as Trace;
  const { first, more, finish, lrAt, init } = await programsOf(tuned, h, steps.length, runtime);
  const optional = (file: string) => golden.has(file) ? golden.tensors(file) : new Map<string, HostTensor>();
  const paramsNow = async () => byKey((await runtime.read(state)).params, keyOf);

  const batch = batchesOf(golden);
  const count = h.gradient_accumulation_steps as number ?? 1;
  let state = init(trainable);
  for (const [i, expected] of steps.slice(0, rounds).entries()) {
    const ids = Array.from({ length: count }, (_, k) => upload(runtime.home, batch(i * count + k)));
    let sum = first(state.params, tuned.frozen, ids[0]);
    for (const next of ids.slice(1)) sum = more(sum, state.params, tuned.frozen, next);
    if (i === 0) {
      const started = under(optional("step1.safetensors"), "grad.");
      const found = byKey((await runtime.read(sum)).grads, keyOf);
      assertAllNear("the gradient of", found, optional("grads_step1.safetensors"), rtol.gradient);
      assertAllNear("the gradient of", found, started, rtol.gradient);
    }
    // With LoRA+ there are two rates, of A and of B.
    for (const [k, rate] of [expected.lr].flat().entries()) {
      assertNear(`the rate of step ${i + 1}`, lrAt(i) * (k === 0 ? 1 : h.loraplus_lr_ratio), rate, 1e-12);
    }
    let report;
    ({ state, report } = finish(state, sum, lrAt(i)));
    const { loss, gradNorm } = await runtime.read(report);
    assertNear(`the loss of step ${i + 1}`, loss, expected.loss, rtol.loss);
    if (expected.grad_norm !== undefined) {
      assertNear(`the norm of step ${i + 1}`, gradNorm, expected.grad_norm, rtol.norm);
    }
    for (const file of ["snapshots.safetensors", "step1.safetensors"]) {
      const kept = under(optional(file), `step${i + 1}.`);
      if (kept.size > 0) assertAllNear(`after step ${i + 1},`, await paramsNow(), kept, rtol.end);
    }
  }
  if (rounds < steps.length) return;
  assertAllNear("at the end,", await paramsNow(), optional("adapter_final/adapter_model.safetensors"), rtol.end);
}

/** The tensors whose names begin so, without that. */
function under(tensors: ReadonlyMap<string, HostTensor>, prefix: string): Map<string, HostTensor> {
  const own = [...tensors].filter(([key]) => key.startsWith(prefix));
  return new Map(own.map(([key, tensor]) => [key.slice(prefix.length), tensor]));
}

/** The optimiser that hyperparameters ask for. */
export async function optimiserOf(tuned: any, h: Record<string, any>): Promise<Optimiser<AdamWState>> {
  const options = { betas: h.betas, eps: h.eps, weightDecay: h.weight_decay };
  if (h.optimizer === "peft.optimizers.LoraFAOptimizer") return await loraFa(tuned, options);
  const ratio = h.loraplus_lr_ratio ?? null;
  return adamw({ ...options, groups: ratio === null ? undefined : loraPlus(tuned.matched, { ratio }) });
}

/** The compiled parts of a step, and the schedule, that hyperparameters ask for. */
async function programsOf(tuned: any, h: Record<string, any>, steps: number, runtime: OpenRuntime) {
  const optimiser = await optimiserOf(tuned, h);
  const count = h.gradient_accumulation_steps ?? 1;
  const loss = (trainable: any, frozen: any, ids: any) =>
    mul(causalLoss(tuned.apply(trainable, frozen, { inputIds: ids }), ids), 1 / count);
  const accumulate = makeAccumulation(loss);
  return {
    first: runtime.jit(accumulate.first),
    more: runtime.jit(accumulate.more, { donate: [0] }),
    finish: runtime.jit(
      (state, sum, lr) => guardedUpdate(state, sum.loss, sum.grads, lr, { optimiser, clip: h.max_grad_norm ?? null }),
      { donate: [0, 1] },
    ),
    init: runtime.jit((params) => ({ params, optimiser: optimiser.init(params) })),
    lrAt: makeSchedule({
      schedule: h.schedule ?? "constant",
      lr: h.lr,
      steps: h.total_steps ?? steps,
      warmup: h.warmup_steps ?? 0,
    }),
  };
}
