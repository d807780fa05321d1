/** Trained tokens in front of a model's own: what prefix tuning, prompt tuning and p-tuning have in common. */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf } from "../../core/model.ts";
import { add } from "../../core/ops/elementwise.ts";
import { dot } from "../../core/ops/contract.ts";
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
 * @param settle the sizes that PEFT's file names, and what is trained
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
  const { numVirtualTokens: count } = options;
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
          : attentions
          ? "has no attention that could see them"
          : "does not say where they stand (`positions`)"
      }`,
    );
  }
  const { sizes, trained } = settle(found, embedding);
  const own = {
    ...{ numLayers: sizes.layers, numAttentionHeads: sizes.heads, tokenDim: sizes.width },
    numTransformerSubmodules: 1,
  };
  for (const [name, want] of Object.entries(own)) {
    const value = options[name as keyof typeof own];
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

/** The inner width of a network that is asked for; that of what it makes where none is. @throws {OptionError} */
export function hiddenSize(
  { encoderHiddenSize }: { readonly encoderHiddenSize?: number | null },
  width: number,
): number {
  const hidden = encoderHiddenSize ?? width;
  if (Number.isInteger(hidden) && hidden > 0) return hidden;
  throw new OptionError(`encoderHiddenSize is ${hidden}: it takes a whole number of at least 1`);
}

/** x·Wᵀ + b, as PyTorch's linear layers keep W [out, in]. */
export function linear(x: Leaf, weight: Leaf, bias: Leaf): Value {
  return add(dot(x, weight, { contract: [[1], [1]], batch: [[], []] }), bias);
}
