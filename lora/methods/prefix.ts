/**
 * Prefix tuning: trained keys and values in front of those of every attention, given as they are or made by a small network.
 * Source: Li and Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation".
 */
import { OptionError } from "../../core/errors.ts";
import { reshape } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { tanh } from "../../core/ops/elementwise.ts";
import { slice } from "../../core/ops/structure.ts";
import type { AttentionOutline, Front } from "../follow/front.ts";
import type { AdapterEntry } from "../options.ts";
import type { Method } from "./method.ts";
import { firstDraws, kaiming, normal } from "./first_draws.ts";
import {
  hiddenSize,
  keptPrompt,
  linear,
  promptKeys,
  sizeConfig,
  type VirtualSite,
  virtualSite,
  virtualTokenKeys,
  type VirtualTokenOptions,
} from "./virtual_tokens.ts";

/** Options of prefix tuning. */
export interface PrefixOptions extends VirtualTokenOptions {
  /** Whether keys and values are made of embeddings by a small network, which is what is trained. */
  readonly prefixProjection?: boolean;
  /** The inner width of that network. By default that of a layer's keys. */
  readonly encoderHiddenSize?: number | null;
  /** `"zero"`: keys and values that are all zero at first. Drawn where it is left out. */
  readonly initWeights?: "zero" | null;
}

/** Sizes in PEFT's words; keys of all layers are alike. */
function sizesOf(attentions: readonly AttentionOutline[]) {
  const [{ kvHeads: heads, headDim }] = attentions;
  if (attentions.some((a) => a.kvHeads !== heads || a.headDim !== headDim)) {
    throw new OptionError(
      "prefix tuning takes keys of one size, and those of this model's layers differ: use prompt tuning",
    );
  }
  if (attentions.some(({ windowed }) => windowed) && attentions.some(({ causal }) => !causal)) {
    throw new OptionError("a prefix has no place in windows to both sides, as this model's: use prompt tuning");
  }
  return { layers: attentions.length, heads, width: heads * headDim };
}

/** What is trained, or with a network what files keep: [tokens, 2 · layers · width]. */
function promptOf({ prompt, embedding, inner, innerBias, outer, outerBias }: AdapterEntry) {
  if (prompt !== undefined) return asValue(prompt);
  return linear(tanh(linear(embedding!, inner!, innerBias!)), outer!, outerBias!);
}

export const method: Method<VirtualSite, PrefixOptions> = {
  name: "prefix",
  peftType: "PREFIX_TUNING",
  whole: true,
  options: {
    ...virtualTokenKeys,
    // A file holds what the network gave.
    prefixProjection: { peft: "prefix_projection" },
    encoderHiddenSize: { peft: "encoder_hidden_size" },
    initWeights: { peft: "init_weights" },
  },
  keys: promptKeys({
    embedding: "embedding.weight",
    ...{ inner: "transform.0.weight", innerBias: "transform.0.bias" },
    ...{ outer: "transform.2.weight", outerBias: "transform.2.bias" },
  }),
  silent: ["prefix_projection", "encoder_hidden_size", "init_weights"],
  unmergeable: "keys and values in front of every attention are no change of a weight",
  startsElsewhere: true,
  sites: (outline, options) => {
    const { numVirtualTokens: count, prefixProjection = false } = options;
    const site = virtualSite(method, outline, options, (attentions) => {
      const sizes = sizesOf(attentions), { layers, width } = sizes;
      const outputs = 2 * layers * width;
      if (!prefixProjection) return { sizes, trained: { prompt: [count, outputs] } as VirtualSite["trained"] };
      const hidden = hiddenSize(options, width);
      return {
        sizes,
        trained: {
          embedding: [count, width],
          ...{ inner: [hidden, width], innerBias: [hidden], outer: [outputs, hidden], outerBias: [outputs] },
        },
      };
    });
    return [site];
  },
  first: (site, weight, { index, options: { seed, initWeights } }) => {
    const { inner, outer } = site.trained, [innerFill, outerFill] = [inner, outer].map((w) => w && kaiming(w[1]));
    const made = initWeights === "zero" ? {} : { prompt: normal, outer: outerFill, outerBias: outerFill };
    const fills = { embedding: normal, inner: innerFill, innerBias: innerFill, ...made };
    return firstDraws(site, weight, { index, seed, fills });
  },
  front: ({ front: { count, attentions } }, entry): Front => {
    const all = promptOf(entry), { width } = sizesOf(attentions);
    const at = (place: number, { kvHeads, headDim }: AttentionOutline) =>
      reshape(slice(all, 1, place * width, (place + 1) * width), [count, kvHeads, headDim]);
    return { cache: attentions.map((a, layer) => ({ k: at(2 * layer, a), v: at(2 * layer + 1, a) })) };
  },
  kept: (site, entry) => keptPrompt(site, promptOf(entry)),
  config: ([site]) => {
    const sizes = sizesOf(site.front.attentions), { inner } = site.trained;
    return {
      ...sizeConfig(site, sizes),
      prefix_projection: inner !== undefined,
      encoder_hidden_size: inner?.[0] ?? sizes.width,
    };
  },
};
