/** The block that most decoders share: attention, then a gated feed-forward part. What differs between them is data. */
import type { Leaf } from "../../core/model.ts";
import type { Value } from "../../core/ir/graph.ts";
import { geluTanh, swiglu } from "../../core/nn/activation.ts";
import { rmsNorm } from "../../core/nn/norm.ts";
import { rope } from "../../core/nn/rope.ts";
import { reshape } from "../../core/ops/broadcast.ts";
import { add, convert, div, mul, tanh } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { slice } from "../../core/ops/structure.ts";
import type { ModelConfig } from "../load/config.ts";
import type { DecoderLiteral, DecoderSizes, Layers } from "./language_model.ts";
import { type Linear, linear, linearShapes } from "./layers.ts";
import { type Angles, type Rotary, rotaryAngles } from "./rotary.ts";

/** A norm's scale, [D] or as wide as what it norms. */
export interface Scale {
  /** The scale. */
  readonly weight: Leaf;
}

/** The weights of such a decoder, named as in its files (without `model.`). V is the vocabulary, D the width. */
export interface BlockParams<L> {
  /** [V, D]; the head too, unless there is an `lm_head`. */
  readonly embed_tokens: { readonly weight: Leaf };
  /** The blocks. */
  readonly layers: readonly L[];
  /** [D], after the last block. */
  readonly norm: Scale;
  /** [V, D], where the head is not tied. */
  readonly lm_head?: { readonly weight: Leaf };
}

/** What Hugging Face calls the norms of a block. */
type NormName =
  | "input_layernorm"
  | "post_attention_layernorm"
  | "pre_feedforward_layernorm"
  | "post_feedforward_layernorm";

/** How the blocks of an architecture are built, whatever their sizes. */
export interface BlockTraits {
  /** The norm at each place that has one: before a part, and after it, before what it gives is added to the stream. */
  readonly norms: {
    readonly beforeAttention?: NormName;
    readonly afterAttention?: NormName;
    readonly beforeMlp?: NormName;
    readonly afterMlp?: NormName;
  };
  /** Whether all norms multiply by 1 + their weight. */
  readonly normsFromOne?: boolean;
  /** Whether queries and keys are normed before they are turned: head by head, or the whole projection at once. */
  readonly queryNorms?: "heads" | "whole";
  /** Whether `qkv_proj` and `gate_up_proj` hold what others keep apart. */
  readonly fused?: boolean;
  /** What the feed-forward gate goes through. */
  readonly gate: "silu" | "gelu_pytorch_tanh";
}

/** The sizes of a decoder of such blocks, and what its configuration says of their numbers. */
export interface BlockSizes extends DecoderSizes {
  /** How positions turn the queries and keys of each layer; null where they do not. */
  readonly rotary: readonly (Rotary | null)[];
  /** Whether there are biases in: queries, keys and values; what attention gives; the feed-forward layers. */
  readonly biases: { readonly qkv: boolean; readonly out: boolean; readonly mlp: boolean };
  /** What multiplies the embedding, what each part adds to the stream, and the logits, where that is not 1. */
  readonly factors?: { readonly embedding?: number; readonly residual?: number; readonly logits?: number };
  /** The bound c of the logits, which become c·tanh(x/c). */
  readonly logitCap?: number;
}

/** No biases anywhere. */
export const noBiases: BlockSizes["biases"] = { qkv: false, out: false, mlp: false };

/** Biases in attention where the configuration says so. */
export function attentionBiases(config: ModelConfig): BlockSizes["biases"] {
  const attention = config.flag("attention_bias", false);
  return { ...noBiases, qkv: attention, out: attention };
}

/** The same, and in the feed-forward layers. */
export const biasesOf = (config: ModelConfig): BlockSizes["biases"] => ({
  ...attentionBiases(config),
  mlp: config.flag("mlp_bias", false),
});

/** The same for each layer. */
export const everywhere = <T>(layers: number, value: T): readonly T[] => Array.from({ length: layers }, () => value);

/** A layer of any of them. */
type Layer = { readonly [name in NormName]?: Scale } & {
  readonly self_attn: { readonly [name: string]: Linear };
  readonly mlp: { readonly [name: string]: Linear };
};

/** The part of a literal that computes. */
export function blocks(traits: BlockTraits): Pick<DecoderLiteral<any, any>, "shapes" | "layers"> {
  return { shapes: (sizes: BlockSizes) => shapes(traits, sizes), layers: (sizes: BlockSizes) => layers(traits, sizes) };
}

function shapes({ norms, queryNorms, fused }: BlockTraits, sizes: BlockSizes): Record<string, unknown> {
  const { vocabSize, width, innerWidth, biases, headDim } = sizes;
  const [queries, keys] = [sizes.heads * headDim, sizes.kvHeads * headDim];
  const norm = (name?: NormName) => name === undefined ? {} : { [name]: { weight: [width] } };
  const to = (to: number, bias: boolean) => linearShapes(width, to, bias);
  const normed = (whole: number) => ({ weight: [queryNorms === "whole" ? whole : headDim] });
  return {
    embed_tokens: { weight: [vocabSize, width] },
    layers: Array.from({ length: sizes.layers }, () => ({
      ...norm(norms.beforeAttention),
      self_attn: {
        ...(fused ? { qkv_proj: to(queries + 2 * keys, biases.qkv) } : {
          q_proj: to(queries, biases.qkv),
          k_proj: to(keys, biases.qkv),
          v_proj: to(keys, biases.qkv),
        }),
        o_proj: linearShapes(queries, width, biases.out),
        ...(queryNorms && { q_norm: normed(queries), k_norm: normed(keys) }),
      },
      ...norm(norms.afterAttention),
      ...norm(norms.beforeMlp),
      mlp: {
        ...(fused ? { gate_up_proj: to(2 * innerWidth, biases.mlp) } : {
          gate_proj: to(innerWidth, biases.mlp),
          up_proj: to(innerWidth, biases.mlp),
        }),
        down_proj: linearShapes(innerWidth, width, biases.mlp),
      },
      ...norm(norms.afterMlp),
    })),
    norm: { weight: [width] },
  };
}

const times = (x: Value, factor = 1) => factor === 1 ? x : mul(x, factor);

const gates = {
  silu: swiglu,
  gelu_pytorch_tanh: (gate: Value, up: Value) => mul(geluTanh(gate), up),
};

function layers(traits: BlockTraits, sizes: BlockSizes): Layers<BlockParams<Layer>> {
  const { heads, kvHeads, headDim, innerWidth, eps, rotary, factors, logitCap } = sizes;
  const { norms, queryNorms, fused } = traits;
  const norm = (x: Value, { weight }: Scale) =>
    rmsNorm(x, traits.normsFromOne ? add(convert(weight, "f32"), 1) : weight, eps);

  /** The rows of a projection that keeps several below each other. */
  const cut = (y: Value, ...sizes: readonly number[]) =>
    sizes.map((size, i) => {
      const from = sizes.slice(0, i).reduce((a, b) => a + b, 0);
      return slice(y, 2, from, from + size);
    });
  const project = (x: Value, { qkv_proj, q_proj, k_proj, v_proj }: Layer["self_attn"]) =>
    fused
      ? cut(linear(x, qkv_proj), heads * headDim, kvHeads * headDim, kvHeads * headDim)
      : [q_proj, k_proj, v_proj].map((to) => linear(x, to));
  const feedForward = (x: Value, { gate_up_proj, gate_proj, up_proj, down_proj }: Layer["mlp"]) => {
    const [gate, up] = fused
      ? cut(linear(x, gate_up_proj), innerWidth, innerWidth)
      : [gate_proj, up_proj].map((to) => linear(x, to));
    return linear(gates[traits.gate](gate, up), down_proj);
  };

  return {
    start: (params, inputIds, positions, length) => {
      // Layers share what turns them alike.
      const angles = new Map<Rotary, Angles>();
      for (const kind of rotary) {
        if (kind !== null && !angles.has(kind)) angles.set(kind, rotaryAngles(kind, positions, length));
      }
      const embedded = convert(gather(params.embed_tokens.weight, inputIds), "f32");
      return {
        embedded: times(embedded, factors?.embedding),
        layer: (i, x, attend) => {
          const layer = params.layers[i], { self_attn, mlp } = layer, kind = rotary[i];
          const [b, t] = x.shape;
          const normed = (y: Value, name?: NormName) => name === undefined ? y : norm(y, layer[name]!);
          const joined = (to: Value, part: Value) => add(to, times(part, factors?.residual));
          const turned = (y: Value) => kind === null ? y : rope(y, angles.get(kind)!);
          const byHead = (y: Value, count: number) => reshape(y, [b, t, count, headDim]);

          const [q, k, v] = project(normed(x, norms.beforeAttention), self_attn);
          const [query, key] = ([[q, heads, self_attn.q_norm], [k, kvHeads, self_attn.k_norm]] as const)
            .map(([y, count, scale]) =>
              queryNorms === "heads"
                ? norm(byHead(y, count), scale)
                : byHead(queryNorms === "whole" ? norm(y, scale) : y, count)
            ).map(turned);
          const seen = reshape(attend(query, key, byHead(v, kvHeads)), [b, t, heads * headDim]);
          const mixed = joined(x, normed(linear(seen, self_attn.o_proj), norms.afterAttention));
          const inner = feedForward(normed(mixed, norms.beforeMlp), mlp);
          return joined(mixed, normed(inner, norms.afterMlp));
        },
      };
    },
    norm: (params, x) => norm(x, params.norm),
    logits: (x) => {
      const scaled = times(x, factors?.logits);
      return logitCap === undefined ? scaled : mul(tanh(div(scaled, logitCap)), logitCap);
    },
  };
}
