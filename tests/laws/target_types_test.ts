/** Types are tested by compiling: a line under @ts-expect-error must not. */
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf, Model } from "../../core/model.ts";
import type { Gpt2Params } from "../../models/gpt2.ts";
import type { LlamaParams } from "../../models/llama.ts";
import { lora, type LoraOptions } from "../../lora/mod.ts";
import type { Target } from "../../lora/target_types.ts";

type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false;
const yes = <T extends true>(): T | void => {};

Deno.test("targets are typed by the tree of parameters", () => {
  const good: Target<Gpt2Params>[] = [
    "c_attn",
    "attn.c_attn",
    "h.0.mlp.c_fc",
    "h.*.mlp.c_fc",
    "wte",
    "lm_head",
    "c_proj",
  ];
  // @ts-expect-error no module of GPT-2 is called so
  const bad: Target<Gpt2Params> = "c_atn";
  // @ts-expect-error a weight is not a module
  const weight: Target<Gpt2Params> = "h.0.attn.c_attn.weight";
  // @ts-expect-error c_fc is in mlp
  const wrong: Target<Gpt2Params> = "attn.c_fc";
  const llama: Target<LlamaParams>[] = ["q_proj", "layers.3.self_attn.v_proj", "embed_tokens"];
  // @ts-expect-error GPT-2's name
  const other: Target<LlamaParams> = "c_attn";
  void [good, bad, weight, wrong, llama, other];
});

Deno.test("a tree of unknown type takes any name", () => {
  yes<Same<Target<unknown>, string>>();
  yes<Same<Target<Record<string, Leaf>>, string>>();
  type Own = { encoder: { w1: Leaf; blocks: { weight: Leaf; bias?: Leaf }[] } };
  const own: Target<Own>[] = ["w1", "encoder.w1", "blocks.0", "encoder.blocks.*"];
  void own;
});

Deno.test("the options are typed through lora itself", () => {
  const options: LoraOptions<Gpt2Params> = { r: 8, alpha: 16, targets: ["c_attn"] };
  const compiles = (model: Model<Gpt2Params, unknown, Value>, any: Model<unknown, unknown, Value>) => {
    lora(model, options);
    lora(model, { r: 8, alpha: 16, targets: "all-linear" });
    lora(model, { r: 8, alpha: 16, targets: /.*\.c_attn/ });
    // @ts-expect-error the targets complete in the editor, and a wrong one does not compile
    lora(model, { r: 8, alpha: 16, targets: ["c_atn"] });
    // @ts-expect-error r has no default
    lora(model, { alpha: 16, targets: ["c_attn"] });
    lora(any, { r: 8, alpha: 16, targets: ["whatever"] });
    lora(any, { r: 8, alpha: 16, targets: ".*c_attn" });
  };
  void compiles;
});
