/** The golden of counts: trainable parameters of single layers and of GPT-2 small, without computing anything. */
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { sizeOf } from "../../core/aval.ts";
import { newInput } from "../../core/ir/graph.ts";
import type { Model } from "../../core/model.ts";
import { matmul } from "../../core/ops/contract.ts";
import { flatten, mapTree } from "../../core/tree.ts";
import { lora } from "../../lora/lora.ts";
import { gpt2, type Gpt2Params } from "../../models/families/gpt2.ts";
import { parseConfig } from "../../models/load/config.ts";
import type { GoldenCase } from "./golden_case.ts";

const placeholder = (shape: readonly number[]) => newInput({ shape, dtype: "f32" });
const isShape = (x: unknown) => Array.isArray(x) && typeof x[0] === "number";

/** `numbers`. */
export function runNumbersCase(golden: GoldenCase): void {
  const { single_layers, gpt2_small } = golden.json("numbers.json");
  for (const layer of single_layers) checkLayer(layer);
  for (const model of gpt2_small) checkGpt2(model);
}

function checkLayer(
  { out, in: into, r, full_params, lora_params, ratio_lora_to_full, one_in }: Record<string, number>,
) {
  const model: Model = {
    architecture: "linear",
    params: { layer: { weight: placeholder([out, into]) } },
    apply: (params: any, x: any) => matmul(x, params.layer.weight, { transposeB: true }),
    sample: placeholder([1, into]),
    tied: {},
    hubName: (path) => path,
  };
  const { matched } = lora(model, { r, alpha: r, targets: ["layer"] });
  assertEquals([sizeOf(matched[0].shape), matched[0].trainable], [full_params, lora_params]);
  assertAlmostEquals(lora_params / full_params, ratio_lora_to_full);
  assertAlmostEquals(full_params / lora_params, one_in);
}

function checkGpt2({ gpt2_config_overrides, lora: options, base_params, trainable_params, all_params }: any) {
  const defaults = { vocab_size: 50257, n_positions: 1024, n_embd: 768, n_layer: 12, n_head: 12 };
  const config = gpt2.sizes(parseConfig({ model_type: "gpt2", ...defaults, ...gpt2_config_overrides }, "gpt2"));
  const params = mapTree(gpt2.shapes(config), placeholder, isShape) as Gpt2Params;
  const model = gpt2.over(config, params);
  assertEquals(flatten<any>(params).leaves.reduce((n, leaf) => n + sizeOf(leaf.shape), 0), base_params);
  const { r, lora_alpha: alpha, target_modules: targets, use_dora: dora } = options;
  const trainable = lora(model as Model, { r, alpha, targets, dora }).matched.reduce((n, m) => n + m.trainable, 0);
  assertEquals(trainable, trainable_params);
  assertEquals(base_params + trainable, all_params);
}
