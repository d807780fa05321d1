/** GPT-NeoX: Black et al. 2022, "GPT-NeoX-20B"; Biderman et al. 2023, "Pythia". Both parts of a block may read the same. */
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf } from "../../core/model.ts";
import { layerNorm } from "../../core/nn/norm.ts";
import { rope } from "../../core/nn/rope.ts";
import { reshape } from "../../core/ops/broadcast.ts";
import { add, convert } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { slice } from "../../core/ops/structure.ts";
import { isObject, type ModelConfig } from "../load/config.ts";
import { usualKeys } from "./family.ts";
import { decoder, type DecoderFamily, type DecoderSizes, type Layers } from "./language_model.ts";
import {
  type ActivationName,
  activationOf,
  type LayerNormParams,
  type Linear,
  linear,
  linearShapes,
  readActivation,
} from "./layers.ts";
import { readRotary, type Rotary, rotaryAngles } from "./rotary.ts";

/** One block. D is the width, F the feed-forward width. */
export interface GptNeoxLayer {
  /** Before attention. */
  readonly input_layernorm: LayerNormParams;
  /** `query_key_value` [3D, D] (of each head its queries, keys and values), `dense` [D, D]. */
  readonly attention: { readonly query_key_value: Linear; readonly dense: Linear };
  /** Before the feed-forward part. */
  readonly post_attention_layernorm: LayerNormParams;
  /** `dense_h_to_4h` [F, D], `dense_4h_to_h` [D, F]. */
  readonly mlp: { readonly dense_h_to_4h: Linear; readonly dense_4h_to_h: Linear };
}

/** The weights of a GPT-NeoX, named as in its files (without `gpt_neox.`). V is the vocabulary. */
export interface GptNeoxParams {
  /** [V, D]. */
  readonly embed_in: { readonly weight: Leaf };
  /** The blocks. */
  readonly layers: readonly GptNeoxLayer[];
  /** After the last block. */
  readonly final_layer_norm: LayerNormParams;
  /** [V, D], where the head is not tied. */
  readonly embed_out?: { readonly weight: Leaf };
}

/** The sizes of one GPT-NeoX. */
export interface GptNeoxConfig extends DecoderSizes {
  readonly rotary: readonly Rotary[];
  readonly activation: ActivationName;
  readonly attentionBias: boolean;
  /** Whether the feed-forward part reads what attention reads, not what it gives. */
  readonly parallel: boolean;
}

function shapes({ vocabSize, width, innerWidth, layers, attentionBias }: GptNeoxConfig): Record<string, unknown> {
  const norm = () => ({ weight: [width], bias: [width] });
  return {
    embed_in: { weight: [vocabSize, width] },
    layers: Array.from({ length: layers }, () => ({
      input_layernorm: norm(),
      attention: {
        query_key_value: linearShapes(width, 3 * width, attentionBias),
        dense: linearShapes(width, width, attentionBias),
      },
      post_attention_layernorm: norm(),
      mlp: {
        dense_h_to_4h: linearShapes(width, innerWidth, true),
        dense_4h_to_h: linearShapes(innerWidth, width, true),
      },
    })),
    final_layer_norm: norm(),
  };
}

function layers({ width, heads, headDim, eps, activation, rotary, parallel }: GptNeoxConfig): Layers<GptNeoxParams> {
  const activate = activationOf(activation);
  const norm = (x: Value, { weight, bias }: LayerNormParams) => layerNorm(x, weight, bias, eps);
  return {
    start: (params, inputIds, positions, length) => {
      const angles = rotaryAngles(rotary[0], positions, length);
      return {
        embedded: convert(gather(params.embed_in.weight, inputIds), "f32"),
        layer: (i, x, attend) => {
          const { input_layernorm, attention, post_attention_layernorm, mlp } = params.layers[i];
          const [b, t] = x.shape;
          const fused = reshape(linear(norm(x, input_layernorm), attention.query_key_value), [
            b,
            t,
            heads,
            3 * headDim,
          ]);
          const [q, k, v] = [0, 1, 2].map((n) => slice(fused, 3, n * headDim, (n + 1) * headDim));
          const seen = reshape(attend(rope(q, angles), rope(k, angles), v), [b, t, width]);
          const mixed = add(x, linear(seen, attention.dense));
          const read = norm(parallel ? x : mixed, post_attention_layernorm);
          return add(mixed, linear(activate(linear(read, mlp.dense_h_to_4h)), mlp.dense_4h_to_h));
        },
      };
    },
    norm: (params, x) => norm(x, params.final_layer_norm),
  };
}

/** GPT-NeoX. */
export const gptNeox: DecoderFamily<GptNeoxParams, GptNeoxConfig> = decoder({
  modelType: "gpt_neox",
  models: "GPT-NeoX, Pythia, StableLM-alpha, Dolly v2",
  own:
    "both parts of a layer read the same stream; a part of each head is rotated; query, key and value rows head by head",
  className: "GPTNeoXForCausalLM",
  prefix: "gpt_neox.",
  head: "embed_out",
  tables: ["embed_in"],
  keys: { ...usualKeys, eps: "layer_norm_eps" },
  defaults: { context: 2048, eps: 1e-5 },
  tiedHead: false,
  ignore: [/\.attention\.(masked_)?bias$/, /rotary_emb\.inv_freq$/], // buffers of old files
  example: { rotary_pct: 0.5 },
  sizes: (config, sizes) => ({
    ...sizes,
    rotary: [rotaryOf(config, sizes.headDim)],
    activation: readActivation(config, "hidden_act", "gelu"),
    attentionBias: config.flag("attention_bias", true),
    parallel: config.flag("use_parallel_residual", true),
  }),
  shapes,
  layers,
});

/** Older files say θ and the share of a head by names of their own. */
function rotaryOf(config: ModelConfig, headDim: number): Rotary {
  const { rope_parameters: given } = config.raw;
  return readRotary(config, headDim, {
    parameters: {
      rope_theta: config.number("rotary_emb_base", 10_000),
      partial_rotary_factor: config.number("rotary_pct", 0.25),
      ...(isObject(given) ? given : {}),
    },
    share: 1,
  });
}
