/** Golden cases of ways for LoRA to start: what PEFT computes there, and our own start beside it. */
import { assert, assertEquals } from "@std/assert";
import type { HostTensor } from "../../core/tensor.ts";
import { Tensor, upload } from "../../core/tensor.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { causalLoss } from "../../core/nn/loss.ts";
import { flatten } from "../../core/tree.ts";
import { lora, type TunedLanguageModel } from "../../formats/tuned_model.ts";
import { loadModel } from "../../models/load/load_model.ts";
import type { LoadedModel } from "../../models/load/loader.ts";
import type { OpenRuntime } from "../runtimes.ts";
import { adapted, assertAllNear, byKey, isHost, productOf } from "./adapter_cases.ts";
import { assertNear, type GoldenCase } from "./golden_case.ts";
import { batchOf, checkBatches } from "./model_cases.ts";

/** The model's parameters with what the start left of some weights. */
function withResidual(golden: GoldenCase, model: LoadedModel, runtime: OpenRuntime): unknown {
  if (!golden.has("residual.safetensors")) return model.params;
  const left = golden.tensors("residual.safetensors");
  const { leaves, paths, unflatten } = flatten<Tensor>(model.params);
  return unflatten(leaves.map((leaf, i) => {
    const rest = left.get(model.hubName(paths[i]));
    return rest === undefined ? leaf : upload(runtime.home, rest);
  }));
}

/** `llama-init-olora` and its like. */
export async function runStartCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using model = await loadModel(golden.base!, { device: runtime.home });
  const { tuned, trainable, keyOf } = adapted(model, `${golden.folder}/adapter_init`);
  const io = golden.tensors("io.safetensors"), frozen = withResidual(golden, model, runtime);
  const apply = ({ trainable, frozen }: any, inputs: any) => tuned.apply(trainable, frozen, inputs) as any;
  await checkBatches(golden, io, apply, { trainable, frozen }, runtime);
  const batch = batchOf(io, "a", runtime)!;
  const loss = (trainable: any, frozen: any) =>
    causalLoss(tuned.apply(trainable, frozen, batch.inputs) as any, batch.labels);
  const [, grads] = await runtime.read(runtime.jit(valueAndGrad(loss))(trainable, frozen));
  assertAllNear("the gradient of", byKey(grads, keyOf), golden.tensors("grads_init.safetensors"), golden.rtol.long);
  await checkOwn(golden, model, runtime);
}

/** The start that we compute, of the same options and data. */
async function checkOwn(golden: GoldenCase, model: LoadedModel, runtime: OpenRuntime): Promise<void> {
  const { init_lora_weights: init, rank_pattern, alpha_pattern } = golden.info;
  const config = golden.json("adapter_init/adapter_config.json"), io = golden.tensors("io.safetensors");
  const ids = io.get("data.input_ids");
  const rows = (from: number, to: number) => {
    const width = ids!.shape[1];
    return {
      inputIds: upload(runtime.home, {
        ...ids!,
        shape: [to - from, width],
        data: ids!.data.slice(from * width, to * width),
      }),
    };
  };
  // PEFT looks at two rows at a time for EVA, at one for CorDA.
  const each = init === "eva" ? 2 : 1;
  const data = ids && Array.from({ length: ids.shape[0] / each }, (_, i) => rows(i * each, (i + 1) * each));
  const eva = config.eva_config ?? {};
  const own = await lora(model as any, {
    ...{ r: config.r, alpha: config.lora_alpha, rslora: config.use_rslora, init },
    targets: lastNames(config.target_modules),
    ...(data && { data }),
    ...(init === "eva" && { rho: eva.rho, tau: eva.tau }),
    ...(init === "corda" && { mode: config.corda_config?.corda_method ?? "ipm" }),
  } as any) as TunedLanguageModel<any>;
  const [trainable, frozen] = await runtime.read([own.trainable, own.frozen] as any) as any[];
  const left = golden.has("residual.safetensors")
    ? golden.tensors("residual.safetensors")
    : new Map<string, HostTensor>();
  const flat = flatten<HostTensor>(frozen, isHost);
  for (const [name, tensor] of left) {
    assertNear(
      `what is left of ${name}`,
      flat.leaves[flat.paths.findIndex((p) => model.hubName(p) === name)],
      tensor,
      golden.rtol.values,
    );
  }
  const products = golden.tensors("init_ba.safetensors");
  assertEquals(own.matched.map(({ path }) => `${model.hubName(path)}.weight`).sort(), [...products.keys()].sort());
  for (const { path, r, alpha } of own.matched) {
    const hub = model.hubName(path), { A, B } = trainable[path], product = productOf(B, A);
    const sizes = norm(A) * norm(B);
    if (init === "orthogonal") {
      assert(norm(product) <= 2 ** -20 * sizes, `B·A of ${hub} is ${norm(product)} of ${sizes}`);
    } else assertNear(`B·A of ${hub}`, product, products.get(`${hub}.weight`)!, golden.rtol.values);
    if (init !== "eva") continue;
    assertEquals([hub, r, alpha], [hub, rank_pattern[hub] ?? config.r, alpha_pattern[hub] ?? config.lora_alpha]);
    const theirs = golden.tensors("adapter_init/adapter_model.safetensors").get(
      `base_model.model.${hub}.lora_A.weight`,
    )!;
    assertEquals(A.shape, theirs.shape);
    for (let k = 0; k < r; k++) {
      // Both end where a turn of the data changes little; PEFT's own way is from the true direction as far as the case says.
      const theirOwn = golden.info.cosine_of_A_rows_with_principal_directions?.[hub]?.centred[k] ?? 1;
      const apart = Math.acos(Math.min(1, theirOwn)) + Math.acos(eva.tau ?? 0.99);
      const cosine = Math.abs(cosineOf(A, theirs, k));
      assert(
        cosine >= Math.cos(apart),
        `row ${k} of ${hub} has the cosine ${cosine}, and ${Math.cos(apart)} is the least`,
      );
    }
  }
}

const lastNames = (names: string | readonly string[]) =>
  typeof names === "string" ? new RegExp(names) : names.map((name) => name.slice(name.lastIndexOf(".") + 1));
const norm = ({ data }: { data: ArrayLike<number> }) => Math.sqrt(Array.from(data).reduce((sum, x) => sum + x * x, 0));

function cosineOf(a: HostTensor, b: HostTensor, row: number): number {
  const width = a.shape[1];
  const [x, y] = [a, b].map(({ data }) => Float64Array.from(data.slice(row * width, (row + 1) * width)));
  return x.reduce((sum, v, i) => sum + v * y[i], 0) / (norm({ data: x }) * norm({ data: y }));
}
