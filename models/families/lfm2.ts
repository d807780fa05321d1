/** LFM2: Liquid AI 2025. Most layers mix a token with a few before it, by short convolutions; the others attend. */
import { FileError } from "../../core/errors.ts";
import type { Leaf } from "../../core/model.ts";
import type { Value } from "../../core/ir/graph.ts";
import { swiglu } from "../../core/nn/activation.ts";
import { rmsNorm } from "../../core/nn/norm.ts";
import { rope } from "../../core/nn/rope.ts";
import { broadcastTo, reshape } from "../../core/ops/broadcast.ts";
import { add, convert, mul } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { slice, split } from "../../core/ops/structure.ts";
import type { ModelConfig } from "../load/config.ts";
import type { Scale } from "./block.ts";
import { usualKeys } from "./family.ts";
import { decoder, type DecoderFamily, type DecoderSizes, type Layers } from "./language_model.ts";
import { full, layerTypes } from "./layer_types.ts";
import { type Linear, linear, linearShapes } from "./layers.ts";
import { readRotary, type Rotary, rotaryAngles } from "./rotary.ts";

/** One block: with `conv`, or with `self_attn`. D is the width, F the feed-forward width. */
export interface Lfm2Layer {
  /** [D], before either. */
  readonly operator_norm: Scale;
  /** `in_proj` [3D, D] (two gates and what is mixed), `conv` [D, 1, taps], `out_proj` [D, D]. */
  readonly conv?: {
    readonly in_proj: Linear;
    readonly conv: { readonly weight: Leaf; readonly bias?: Leaf };
    readonly out_proj: Linear;
  };
  /** `q_proj` [D, D], `k_proj` and `v_proj` [K, D], `out_proj` [D, D]; norms [headDim]. */
  readonly self_attn?: {
    readonly q_proj: Linear;
    readonly k_proj: Linear;
    readonly v_proj: Linear;
    readonly out_proj: Linear;
    readonly q_layernorm: Scale;
    readonly k_layernorm: Scale;
  };
  /** [D], before the feed-forward part. */
  readonly ffn_norm: Scale;
  /** `w1` (gates) and `w3` [F, D], `w2` [D, F]. */
  readonly feed_forward: { readonly w1: Linear; readonly w2: Linear; readonly w3: Linear };
}

type Attention = NonNullable<Lfm2Layer["self_attn"]>;
type Convolution = NonNullable<Lfm2Layer["conv"]>;

/** The weights of an LFM2, named as in its files (without `model.`). V is the vocabulary. */
export interface Lfm2Params {
  /** [V, D]; the head too, unless there is an `lm_head`. */
  readonly embed_tokens: { readonly weight: Leaf };
  /** The blocks. */
  readonly layers: readonly Lfm2Layer[];
  /** [D], after the last block. */
  readonly embedding_norm: Scale;
  /** [V, D], where the head is not tied. */
  readonly lm_head?: { readonly weight: Leaf };
}

/** The sizes of one LFM2. */
export interface Lfm2Config extends DecoderSizes {
  readonly rotary: Rotary;
  /** How many tokens each layer mixes, itself among them; null where it attends. */
  readonly taps: readonly (number | null)[];
  readonly convBias: boolean;
}

function shapes(sizes: Lfm2Config): Record<string, unknown> {
  const { vocabSize, width, innerWidth, taps, convBias, kvHeads, headDim } = sizes;
  const norm = (size = width) => ({ weight: [size] });
  const keys = () => linearShapes(width, kvHeads * headDim, false);
  return {
    embed_tokens: { weight: [vocabSize, width] },
    layers: taps.map((count) => ({
      operator_norm: norm(),
      ...(count === null
        ? {
          self_attn: {
            q_proj: linearShapes(width, width, false),
            k_proj: keys(),
            v_proj: keys(),
            out_proj: linearShapes(width, width, false),
            q_layernorm: norm(headDim),
            k_layernorm: norm(headDim),
          },
        }
        : {
          conv: {
            in_proj: linearShapes(width, 3 * width, convBias),
            conv: { weight: [width, 1, count], ...(convBias && { bias: [width] }) },
            out_proj: linearShapes(width, width, convBias),
          },
        }),
      ffn_norm: norm(),
      feed_forward: {
        w1: linearShapes(width, innerWidth, false),
        w2: linearShapes(innerWidth, width, false),
        w3: linearShapes(width, innerWidth, false),
      },
    })),
    embedding_norm: norm(),
  };
}

/** Σ over the taps of each channel's weight times the token that many places back: `shifted` from the token itself on. */
function convolve(shifted: readonly Value[], { weight, bias }: Convolution["conv"]): Value {
  const [{ shape }] = shifted, [, , taps] = weight.shape;
  const kernel = convert(weight, "f32");
  const parts = shifted.map((x, back) => {
    const tap = slice(kernel, 2, taps - 1 - back, taps - back);
    return mul(x, broadcastTo(reshape(tap, [1, 1, shape[2]]), shape));
  });
  const sum = parts.reduce((a, b) => add(a, b));
  return bias === undefined ? sum : add(sum, convert(bias, "f32"));
}

function layers({ width, heads, kvHeads, headDim, eps, rotary, taps }: Lfm2Config): Layers<Lfm2Params> {
  const norm = (x: Value, { weight }: Scale) => rmsNorm(x, weight, eps);
  return {
    start: (params, inputIds, positions, length) => {
      const angles = rotaryAngles(rotary, positions, length);
      return {
        embedded: convert(gather(params.embed_tokens.weight, inputIds), "f32"),
        layer: (i, x, attend, recall) => {
          const { operator_norm, conv, self_attn, ffn_norm, feed_forward } = params.layers[i];
          const [b, t] = x.shape;
          const seen = norm(x, operator_norm);
          const attended = ({ q_proj, k_proj, v_proj, out_proj, q_layernorm, k_layernorm }: Attention) => {
            const project = (to: Linear, count: number) => reshape(linear(seen, to), [b, t, count, headDim]);
            const q = rope(norm(project(q_proj, heads), q_layernorm), angles);
            const k = rope(norm(project(k_proj, kvHeads), k_layernorm), angles);
            return linear(reshape(attend(q, k, project(v_proj, kvHeads)), [b, t, width]), out_proj);
          };
          const convolved = ({ in_proj, conv, out_proj }: Convolution) => {
            const [into, outOf, value] = split(linear(seen, in_proj), -1, 3);
            return linear(mul(outOf, convolve(recall(mul(into, value), taps[i]! - 1), conv)), out_proj);
          };
          const mixed = add(x, self_attn === undefined ? convolved(conv!) : attended(self_attn));
          const inner = norm(mixed, ffn_norm), { w1, w2, w3 } = feed_forward;
          return add(mixed, linear(swiglu(linear(inner, w1), linear(inner, w3)), w2));
        },
      };
    },
    norm: (params, x) => norm(x, params.embedding_norm),
  };
}

const kinds = ["conv", full];

/** LFM2. */
export const lfm2: DecoderFamily<Lfm2Params, Lfm2Config> = decoder({
  modelType: "lfm2",
  models: "LFM2 of 350M to 2.6B (not the mixture-of-experts models)",
  own: "short convolutions in most layers, whose last inputs are what is kept of earlier tokens",
  className: "Lfm2ForCausalLM",
  prefix: "model.",
  tables: ["embed_tokens"],
  keys: { ...usualKeys, kvHeads: "num_key_value_heads", eps: "norm_eps" },
  // Where a file does not say its inner width so, it says it as `block_ff_dim`.
  defaults: { context: 128_000, kvHeads: 8, inner: 1, eps: 1e-5 },
  tiedHead: true,
  mlx: "model.",
  example: { layer_types: ["conv", "full_attention"], block_multiple_of: 4 },
  sizes: (config, sizes) => {
    const types = layerTypes(config, sizes.layers, kinds) ?? typesByIndex(config, sizes.layers);
    const taps = config.integer("conv_L_cache", 3);
    return {
      ...sizes,
      innerWidth: innerWidth(config, sizes.innerWidth),
      rotary: readRotary(config, sizes.headDim, { theta: 1_000_000 }),
      taps: types.map((type) => type === full ? null : taps),
      convBias: config.flag("conv_bias", false),
      recalled: types.map((type) => type === full ? null : taps - 1),
    };
  },
  shapes,
  layers,
});

/** Older files list the layers that attend. */
function typesByIndex({ raw: { full_attn_idxs: list }, path }: ModelConfig, layers: number): readonly string[] {
  const all = Array.from({ length: layers }, (_, i) => i);
  if (list === undefined || list === null) return all.map(() => full);
  if (!Array.isArray(list) || !list.every((i) => all.includes(i))) {
    throw new FileError(
      `${path} says full_attn_idxs is ${JSON.stringify(list)}, where layers below ${layers} are expected.`,
    );
  }
  return all.map((i) => list.includes(i) ? full : "conv");
}

/** Two thirds of what the file says, times a factor and up to a multiple, unless it says that this is done. */
function innerWidth(config: ModelConfig, said: number): number {
  const whole = config.integer("block_ff_dim", said);
  if (!config.flag("block_auto_adjust_ff_dim", true)) return whole;
  const less = Math.trunc(2 * whole / 3);
  if (config.raw.block_ffn_dim_multiplier === null) return less;
  const multiple = config.integer("block_multiple_of", 256);
  return multiple * Math.ceil(Math.trunc(config.number("block_ffn_dim_multiplier", 1) * less) / multiple);
}
