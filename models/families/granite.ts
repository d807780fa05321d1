/** Granite 3: IBM 2024, "Granite 3.0 Language Models". Llama's blocks, with a factor at every sum. */
import { biasesOf, type BlockSizes } from "./block.ts";
import { decoder, type DecoderFamily } from "./language_model.ts";
import { block, common, ggufOfLlama, type LlamaParams, rotaryEverywhere } from "./llama.ts";

/** Granite 3. */
export const granite: DecoderFamily<LlamaParams, BlockSizes> = decoder({
  ...common,
  ...block,
  modelType: "granite",
  models: "Granite 3 (not the mixture-of-experts models)",
  own: "factors on the embedding, on what each part adds, on scores and logits",
  className: "GraniteForCausalLM",
  defaults: { context: 2048, eps: 1e-6 },
  gguf: {
    ...ggufOfLlama,
    name: "granite",
    keys: {
      "attention.scale": { meaning: "scale of scores", config: "attention_multiplier", type: "f32" },
      embedding_scale: { meaning: "a factor on the embedding", config: "embedding_multiplier", type: "f32", absent: 1 },
      residual_scale: { meaning: "a factor on what layers add", config: "residual_multiplier", type: "f32", absent: 1 },
      logit_scale: { meaning: "what logits are divided by", config: "logits_scaling", type: "f32" },
    },
  },
  example: {
    ...{ embedding_multiplier: 3, residual_multiplier: 0.5, attention_multiplier: 0.25, logits_scaling: 2 },
    ...{ attention_bias: true, mlp_bias: true },
  },
  sizes: (config, sizes) => ({
    ...sizes,
    rotary: rotaryEverywhere(config, sizes),
    biases: biasesOf(config),
    scores: { scale: config.number("attention_multiplier", 1) },
    factors: {
      embedding: config.number("embedding_multiplier", 1),
      residual: config.number("residual_multiplier", 1),
      logits: 1 / config.number("logits_scaling", 1),
    },
  }),
});
