/** `train()` itself along the golden runs of PyTorch and PEFT: losses, norms and rates of every step, and the end. */
import { assertEquals } from "@std/assert";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import { read } from "../../kernels/runtime/read.ts";
import { loadModel } from "../../models/load/load_model.ts";
import type { Examples } from "../../data/data_set.ts";
import { train } from "../../train/loop.ts";
import { causalLM } from "../../train/objectives/causal_lm.ts";
import type { StepLine } from "../../train/watch/watch.ts";
import { adapted, assertAllNear, byKey } from "./adapter_cases.ts";
import { assertNear, casesUnder, type GoldenCase } from "./golden_case.ts";
import { kindOf, reasonToSkip } from "./kinds.ts";
import { optimiserOf } from "./train_cases.ts";

const folder = Deno.args[0] ?? `${import.meta.dirname}/cases`;

/** `length` rows of a case in the order in which its batches take them; the loop's own order is passed over. */
function rowsInOrder(golden: GoldenCase, length: number): Examples {
  const { shape: [count, height, seq], data } = golden.tensors("batches.safetensors").get("input_ids")!;
  const rows = Array.from({ length: count * height }, (_, i) => {
    const ids = [...data.slice(i * seq, (i + 1) * seq)];
    return { ids, labels: ids };
  });
  let next = 0;
  // Each is asked for once, when its turn has come.
  return { length, streamed: true, at: () => rows[next++ % rows.length] };
}

for (const golden of casesUnder(folder)) {
  if (reasonToSkip(golden) !== null || kindOf(golden)?.name !== "training runs") continue;
  Deno.test(`train() follows the golden run ${golden.id}`, async () => {
    const { hyperparameters: h, steps } = golden.json("trace.json");
    using device = await openCpu({ threads: 1 });
    using model = await loadModel(golden.base!, { device });
    const { tuned, keyOf } = adapted(model, `${golden.folder}/adapter_init`);
    const { shape: [, batch, seq] } = golden.tensors("batches.safetensors").get("input_ids")!;
    const accumulate = h.gradient_accumulation_steps ?? 1;
    const lines: StepLine[] = [];
    const run = await train(tuned, {
      objective: causalLM,
      data: rowsInOrder(golden, steps.length * batch * accumulate),
      ...{ steps: steps.length, batch, seq, accumulate, lr: h.lr, schedule: h.schedule ?? "constant" },
      ...{ warmup: h.warmup_steps ?? 0, clip: h.max_grad_norm ?? null },
      optimiser: await optimiserOf(tuned, h),
      onStep: (line) => lines.push(line),
    });
    assertEquals(run.end, "done");
    const { values, long } = golden.rtol;
    for (const [i, { loss, grad_norm, lr }] of steps.entries()) {
      assertNear(`the loss of step ${i + 1}`, lines[i].loss, loss, values);
      if (grad_norm !== undefined) assertNear(`the norm of step ${i + 1}`, lines[i].gradNorm, grad_norm, long);
      assertNear(`the rate of step ${i + 1}`, lines[i].lr, [lr].flat()[0], 1e-12);
    }
    const end = byKey(await read(run.trainable), keyOf);
    assertAllNear("at the end,", end, golden.tensors("adapter_final/adapter_model.safetensors"), long);
  });
}
