/** Golden cases of bottleneck layers, in AdapterHub's files. */
import { assertEquals } from "@std/assert";
import { causalLoss } from "../../core/nn/loss.ts";
import type { HostTensor } from "../../core/tensor.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { keyOf } from "../../formats/adapterhub.ts";
import { loadAdapter } from "../../formats/tuned_model.ts";
import { loadModel } from "../../models/load/load_model.ts";
import type { OpenRuntime } from "../runtimes.ts";
import { countOf } from "./adapter_cases.ts";
import { assertNear, type GoldenCase } from "./golden_case.ts";
import { batchOf, checkBatches } from "./model_cases.ts";

/** `gpt2-bottleneck-houlsby` and its like: logits, losses, gradients. */
export async function runBottleneckCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using model = await loadModel(golden.base!, { device: runtime.home });
  const tuned = loadAdapter<any, any, any>(golden.folder, model as any);
  const io = golden.tensors("io.safetensors");
  const apply = ({ t, f }: any, inputs: any) => tuned.apply(t, f, inputs);
  await checkBatches(golden, io, apply, { t: tuned.trainable, f: tuned.frozen }, runtime);

  const { inputs, labels } = batchOf(io, "a", runtime)!;
  const loss = (t: any, f: any) => causalLoss(tuned.apply(t, f, inputs), labels);
  const [, grads] = await runtime.read(runtime.jit(valueAndGrad(loss))(tuned.trainable, tuned.frozen)) as any;
  const expected = golden.tensors("grads.safetensors");
  const found = tuned.plan.adapted.flatMap((site) =>
    Object.entries<HostTensor>(grads[site.path]).map(([leaf, grad]) => [keyOf(site, leaf), grad] as const)
  );
  assertEquals(found.map(([key]) => key).sort(), [...expected.keys()].sort());
  for (const [key, grad] of found) assertNear(`the gradient of ${key}`, grad, expected.get(key)!, golden.rtol.long);
  assertEquals(countOf(tuned.trainable), golden.info.trainable_params);
}
