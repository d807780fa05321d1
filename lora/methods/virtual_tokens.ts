/** Trained tokens in front of a model's own: what prefix tuning, prompt tuning and p-tuning have in common. */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf } from "../../core/model.ts";
import { add } from "../../core/ops/elementwise.ts";
import { dot } from "../../core/ops/contract.ts";
import { normalAt, randomKey, threefry2x32, uniformAt } from "../../core/random.ts";
import { type Tensor, upload } from "../../core/tensor.ts";
import type { Module } from "../follow/analyse.ts";
import type { AttentionOutline } from "../follow/front.ts";
import { counted } from "../follow/plan.ts";
import type { WholeOptions } from "../options.ts";
import type { Adapted, Method, OptionKey, Outline, PartKey } from "./method.ts";

/** What they all are told. */
export interface VirtualTokenOptions extends WholeOptions {
  /** How many tokens stand in front. */
  readonly numVirtualTokens: number;
  /** What the first values are drawn from. 0 by default. */
  readonly seed?: number;
  /** The model's own sizes, which a file names: refused where they are others. */
  readonly numLayers?: number | null;
  /** Heads of keys and values. */
  readonly numAttentionHeads?: number | null;
  /** The width of what is trained for each token. */
  readonly tokenDim?: number | null;
  /** 1: a decoder or an encoder, not both. */
  readonly numTransformerSubmodules?: number | null;
}

/** The one place where they are trained. */
export interface VirtualSite extends Adapted {
  readonly front: { readonly count: number; readonly attentions: readonly AttentionOutline[] };
}

/** Its path in `trainable`. */
export const promptPath = "prompt";

const size = { is: "a positive integer or null", default: null } as const;

/** Their options. */
export const virtualTokenKeys = {
  numVirtualTokens: { peft: "num_virtual_tokens", file: { is: "a positive integer", default: null } },
  numLayers: { peft: "num_layers", file: size },
  numAttentionHeads: { peft: "num_attention_heads", file: size },
  tokenDim: { peft: "token_dim", file: size },
  numTransformerSubmodules: { peft: "num_transformer_submodules", file: size },
  seed: { peft: null },
} as const satisfies Readonly<Record<string, OptionKey>>;

/** PEFT's file has what they come to, and nothing of a network that made it, whose parameters are called so in PEFT. */
export const promptKeys = (network: Readonly<Record<string, string>> = {}): readonly PartKey[] => [
  { leaf: "prompt", ending: "prompt_embeddings", of: promptPath },
  ...Object.entries(network).map(([leaf, name]) => ({
    ...{ leaf, ending: `prompt_encoder.${name}`, of: promptPath },
    optional: true as const,
  })),
];

/** What such a model is, in PEFT's words. */
export interface PromptSizes {
  readonly layers: number;
  readonly heads: number;
  readonly width: number;
}

/** Those of embeddings: the model's own. */
export function embeddingSizes(attentions: readonly AttentionOutline[], { aval }: Module): PromptSizes {
  return { layers: attentions.length, heads: attentions[0].heads, width: aval.shape[1] };
}

/**
 * The site of a method, anchored where the model looks up its tokens.
 *
 * @param method it
 * @param sizesOf the sizes that PEFT's file names
 * @param trained what is trained, given these
 * @throws {OptionError} for a model that no tokens can be put in front of, or other sizes
 */
export function virtualSite(
  method: Method<any, any>,
  { modules, attentions }: Outline,
  options: VirtualTokenOptions,
  settle: (attentions: readonly AttentionOutline[], embedding: Module) => {
    readonly sizes: PromptSizes;
    readonly trained: Adapted["trained"];
  },
): VirtualSite {
  const { numVirtualTokens: count, numTransformerSubmodules: submodules } = options;
  if (!Number.isInteger(count) || count < 1) {
    throw new OptionError(`numVirtualTokens is ${count}: it takes a whole number of at least 1`);
  }
  const [embedding] = modules.filter((m) => m.byInput && m.part === null);
  const found = attentions?.() ?? [];
  if (embedding === undefined || found.length === 0) {
    throw new OptionError(
      `${method.name} puts tokens in front of a model's own, and this model ${
        embedding === undefined
          ? "looks none up"
          : found.length === 0 && attentions
          ? "has no attention that could see them"
          : "does not say where they stand (`positions`)"
      }`,
    );
  }
  const { sizes, trained } = settle(found, embedding);
  const given = {
    numLayers: options.numLayers,
    numAttentionHeads: options.numAttentionHeads,
    tokenDim: options.tokenDim,
  };
  const own = { numLayers: sizes.layers, numAttentionHeads: sizes.heads, tokenDim: sizes.width };
  for (const [name, value] of [...Object.entries(given), ["numTransformerSubmodules", submodules] as const]) {
    const want = name in own ? own[name as keyof typeof own] : 1;
    if (value === undefined || value === null || value === want) continue;
    throw new OptionError(`${name} is ${value}, but it is ${want} of this model: leave it out`);
  }
  return {
    ...embedding,
    method,
    path: promptPath,
    hub: promptPath,
    only: null,
    split: null,
    into: embedding.leafPath,
    trained,
    front: { count, attentions: found },
    match: {
      path: promptPath,
      method: method.name,
      kind: "embedding",
      ...{ r: 0, alpha: 0, scaling: 1 },
      shape: [count, sizes.width],
      layout: "in,out",
      trainable: counted(trained),
    },
  };
}

/** What PEFT's configuration says of the sizes. */
export function sizeConfig({ front: { count } }: VirtualSite, { layers, heads, width }: PromptSizes) {
  return {
    num_virtual_tokens: count,
    num_layers: layers,
    num_attention_heads: heads,
    token_dim: width,
    num_transformer_submodules: 1,
  };
}

/** A site, of which files have what its network gives. */
export function keptPrompt(site: VirtualSite, prompt: Value): { site: VirtualSite; entry: { prompt: Value } } {
  const trained = { prompt: prompt.shape };
  return { site: { ...site, trained, match: { ...site.match, trainable: counted(trained) } }, entry: { prompt } };
}

/** How a tensor starts: normal numbers, numbers from -bound to bound, or zeros. */
export type Draw = "normal" | "zero" | { readonly bound: number };

/** First values, each drawn under a key of its own. */
export function drawn(
  { trained }: VirtualSite,
  weight: Leaf,
  seed: number,
  how: (leaf: string) => Draw,
): Record<string, Leaf> {
  const [high, low] = randomKey(seed).data;
  return Object.fromEntries(
    Object.entries(trained).map(([leaf, shape], which) => {
      const key = threefry2x32([high, low], [0, 1 + which]), draw = how(leaf);
      const number = (i: number) =>
        draw === "normal" ? normalAt(key, i) : draw === "zero" ? 0 : draw.bound * (2 * uniformAt(key, i) - 1);
      const data = Float32Array.from({ length: shape.reduce((n, d) => n * d, 1) }, (_, i) => number(i));
      return [leaf, upload((weight as Tensor).home, { shape, dtype: "f32", data })];
    }),
  );
}

/** x·Wᵀ + b, as PyTorch's linear layers keep W [out, in]. */
export function linear(x: Leaf, weight: Leaf, bias: Leaf): Value {
  return add(dot(x, weight, { contract: [[1], [1]], batch: [[], []] }), bias);
}

/** The bound of PyTorch's first values of a linear layer with so many inputs. */
export const linearBound = (inputs: number): Draw => ({ bound: 1 / Math.sqrt(inputs) });
