/** Types are tested by compiling: a line under @ts-expect-error must not. */
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf, Model } from "../../core/model.ts";
import type { BertClassifierParams } from "../../models/families/bert.ts";
import type { DistilBertParams } from "../../models/families/distilbert.ts";
import type { Gpt2Params } from "../../models/families/gpt2.ts";
import type { LlamaParams } from "../../models/families/llama.ts";
import type { ModernBertParams } from "../../models/families/modernbert.ts";
import { lora, type LoraOptions, pissa, together } from "../../lora/mod.ts";
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
    "c_attn[q,v]",
    "h.0.attn.c_attn[k]",
  ];
  // @ts-expect-error parts of a module that does not exist
  const part: Target<Gpt2Params> = "c_atn[q]";
  // @ts-expect-error no module of GPT-2 is called so
  const bad: Target<Gpt2Params> = "c_atn";
  // @ts-expect-error a weight is not a module
  const weight: Target<Gpt2Params> = "h.0.attn.c_attn.weight";
  // @ts-expect-error c_fc is in mlp
  const wrong: Target<Gpt2Params> = "attn.c_fc";
  const llama: Target<LlamaParams>[] = ["q_proj", "layers.3.self_attn.v_proj", "embed_tokens"];
  const bert: Target<BertClassifierParams>[] = ["query", "encoder.layer.*.attention.self.value", "classifier"];
  const distil: Target<DistilBertParams>[] = ["q_lin", "ffn.lin1", "transformer.layer.*.attention.out_lin"];
  const modern: Target<ModernBertParams>[] = ["Wqkv", "mlp.Wo", "layers.0.attn.Wqkv[q,v]", "tok_embeddings"];
  // @ts-expect-error BERT's name
  const distilled: Target<DistilBertParams> = "query";
  // @ts-expect-error GPT-2's name
  const other: Target<LlamaParams> = "c_attn";
  void [good, part, bad, weight, wrong, llama, bert, distil, modern, distilled, other];
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
  const compiles = (
    model: Model<Gpt2Params, unknown, Value>,
    any: Model<unknown, unknown, Value>,
    inputs: unknown,
  ) => {
    lora(model, options);
    lora(model, { r: 8, alpha: 16, targets: "all-linear" });
    lora(model, { r: 8, alpha: 16, targets: /.*\.c_attn/ });
    // @ts-expect-error the targets complete in the editor, and a wrong one does not compile
    lora(model, { r: 8, alpha: 16, targets: ["c_atn"] });
    // @ts-expect-error r has no default
    lora(model, { alpha: 16, targets: ["c_attn"] });
    const plain = { r: 8, alpha: 16, targets: ["c_attn"] } as const;
    lora(model, { ...plain, exclude: ["h.0.attn.c_attn"], layers: [1], layersPattern: "h" });
    lora(model, { ...plain, exclude: /h\.0\..*/, layersPattern: ["h", "layers"], bias: "lora", loraBias: true });
    lora(model, { ...plain, dora: true, init: "gaussian", modulesToSave: ["lm_head", "ln_f", "h.0.mlp"] });
    lora(model, { ...plain, trainableTokens: { wte: [1, 2] }, tie: "all", init: false });
    lora(model, { ...plain, trainableTokens: [1, 2] });
    // @ts-expect-error what is excluded completes too
    lora(model, { ...plain, exclude: ["c_atn"] });
    // @ts-expect-error and what is trained in full
    lora(model, { ...plain, modulesToSave: ["lm_haed"] });
    // @ts-expect-error and whose tokens
    lora(model, { ...plain, trainableTokens: { wtee: [1] } });
    // @ts-expect-error PEFT's value of the option bias is called "lora" here
    lora(model, { ...plain, bias: "lora_only" });
    // @ts-expect-error a way to start that would have to be computed
    lora(model, { ...plain, init: "eva" });
    // @ts-expect-error PEFT's name of the option
    lora(model, { ...plain, use_dora: true });
    // @ts-expect-error layers are numbers
    lora(model, { ...plain, layers: ["h.0"] });
    pissa(model, { ...plain, niter: 4, dora: true });
    // @ts-expect-error how PiSSA starts is not to be chosen
    pissa(model, { ...plain, init: "gaussian" });
    const both = together({ formal: lora(model, plain), brief: lora(model, plain) });
    both.apply(both.trainable, both.frozen, inputs, { weights: { formal: 0.5 } });
    both.apply({ brief: both.trainable.brief }, both.frozen, inputs);
    // @ts-expect-error no adapter is called so
    both.apply(both.trainable, both.frozen, inputs, { weights: { formel: 0.5 } });
    lora(any, { r: 8, alpha: 16, targets: ["whatever"], modulesToSave: ["any"], trainableTokens: { of: [1] } });
    lora(any, { r: 8, alpha: 16, targets: ".*c_attn" });
  };
  void compiles;
});
