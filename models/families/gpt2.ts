/** GPT-2: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", in Hugging Face's layout. */
import type { Leaf } from "../../core/model.ts";
import type { Value } from "../../core/ir/graph.ts";
import { layerNorm } from "../../core/nn/norm.ts";
import { reshape } from "../../core/ops/broadcast.ts";
import { matmul } from "../../core/ops/contract.ts";
import { add, convert } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { split } from "../../core/ops/structure.ts";
import { decoder, type DecoderFamily, type DecoderSizes, type Layers } from "./language_model.ts";
import { type ActivationName, activationOf, type LayerNormParams, readActivation } from "./layers.ts";

/** A linear layer as GPT-2 stores it: weight [in, out] (Hugging Face's Conv1D), bias [out]. */
export interface Conv1D {
  /** [in, out]. */
  readonly weight: Leaf;
  /** [out]. */
  readonly bias: Leaf;
}

/** One block. D is the width, F the feed-forward width. */
export interface Gpt2Layer {
  /** Before attention. */
  readonly ln_1: LayerNormParams;
  /** `c_attn` [D, 3D] (queries, keys, values), `c_proj` [D, D]. */
  readonly attn: { readonly c_attn: Conv1D; readonly c_proj: Conv1D };
  /** Before the feed-forward part. */
  readonly ln_2: LayerNormParams;
  /** `c_fc` [D, F], `c_proj` [F, D]. */
  readonly mlp: { readonly c_fc: Conv1D; readonly c_proj: Conv1D };
}

/** The weights of GPT-2, named as in its files. V is the vocabulary, P the context. */
export interface Gpt2Params {
  /** [V, D]; the head too, unless there is an `lm_head`. */
  readonly wte: { readonly weight: Leaf };
  /** [P, D]. */
  readonly wpe: { readonly weight: Leaf };
  /** The blocks. */
  readonly h: readonly Gpt2Layer[];
  /** After the last block. */
  readonly ln_f: LayerNormParams;
  /** [V, D], where the head is not tied. */
  readonly lm_head?: { readonly weight: Leaf };
}

/** The sizes of one GPT-2. */
export interface Gpt2Config extends DecoderSizes {
  readonly activation: ActivationName;
}

function shapes({ vocabSize, contextLength, width, innerWidth, layers }: Gpt2Config): Record<string, unknown> {
  const linear = (from: number, to: number) => ({ weight: [from, to], bias: [to] });
  const norm = () => ({ weight: [width], bias: [width] });
  return {
    wte: { weight: [vocabSize, width] },
    wpe: { weight: [contextLength, width] },
    h: Array.from({ length: layers }, () => ({
      ln_1: norm(),
      attn: { c_attn: linear(width, 3 * width), c_proj: linear(width, width) },
      ln_2: norm(),
      mlp: { c_fc: linear(width, innerWidth), c_proj: linear(innerWidth, width) },
    })),
    ln_f: norm(),
  };
}

const linear = (x: Value, { weight, bias }: Conv1D) => add(matmul(x, weight), convert(bias, "f32"));

function layers({ width, heads, headDim, eps, activation }: Gpt2Config): Layers<Gpt2Params> {
  const activate = activationOf(activation);
  return {
    start: (params, inputIds, positions) => {
      const tokens = convert(gather(params.wte.weight, inputIds), "f32");
      const places = convert(gather(params.wpe.weight, positions), "f32");
      return {
        embedded: add(tokens, places),
        layer: (i, x, attend) => {
          const { ln_1, attn, ln_2, mlp } = params.h[i];
          const [b, t] = x.shape;
          const qkv = linear(layerNorm(x, ln_1.weight, ln_1.bias, eps), attn.c_attn);
          const [q, k, v] = split(qkv, -1, 3).map((part) => reshape(part, [b, t, heads, headDim]));
          const mixed = add(x, linear(reshape(attend(q, k, v), [b, t, width]), attn.c_proj));
          const inner = activate(linear(layerNorm(mixed, ln_2.weight, ln_2.bias, eps), mlp.c_fc));
          return add(mixed, linear(inner, mlp.c_proj));
        },
      };
    },
    norm: (params, x) => layerNorm(x, params.ln_f.weight, params.ln_f.bias, eps),
  };
}

/** GPT-2. */
export const gpt2: DecoderFamily<Gpt2Params, Gpt2Config> = decoder({
  modelType: "gpt2",
  models: "GPT-2 of every size, DistilGPT-2",
  own: "weights of linear layers are [in, out]; tied head",
  className: "GPT2LMHeadModel",
  prefix: "transformer.",
  tables: ["wte", "wpe"],
  keys: {
    width: "n_embd",
    layers: "n_layer",
    heads: "n_head",
    inner: "n_inner",
    context: "n_positions",
    eps: "layer_norm_epsilon",
  },
  defaults: { inner: 4, eps: 1e-5 },
  only: { scale_attn_weights: [true], scale_attn_by_inverse_layer_idx: [false], add_cross_attention: [false] },
  tiedHead: true,
  fanInFanOut: true,
  parts: { c_attn: ["q", "k", "v"] },
  mlx: "model.",
  gguf: {
    name: "gpt2",
    norm: "layer",
    rotary: false,
    outside: { token_embd: "wte", position_embd: "wpe", output_norm: "ln_f", output: "lm_head" },
    layers: "h",
    inside: {
      attn_norm: "ln_1",
      attn_qkv: ["attn.c_attn", "transposed"],
      attn_output: ["attn.c_proj", "transposed"],
      ffn_norm: "ln_2",
      ffn_up: ["mlp.c_fc", "transposed"],
      ffn_down: ["mlp.c_proj", "transposed"],
    },
    config: () => ({ activation_function: "gelu_new" }),
  },
  ignore: [/\.attn\.(masked_)?bias$/], // the buffers of causal masks, which old files carry
  sizes: (config, sizes) => ({
    ...sizes,
    activation: readActivation(config, "activation_function", "gelu_new"),
  }),
  shapes,
  layers,
});
