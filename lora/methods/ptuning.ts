/**
 * P-tuning: embeddings in front of a text's own, made by a small network that is trained with them.
 * Source: Liu et al. 2021, "GPT Understands, Too".
 */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import { asValue } from "../../core/ops/constant.ts";
import { max } from "../../core/ops/elementwise.ts";
import type { AdapterEntry } from "../options.ts";
import type { Method } from "./method.ts";
import { firstDraws, kaiming, normal } from "./first_draws.ts";
import {
  embeddingSizes,
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

/** Options of p-tuning. */
export interface PTuningOptions extends VirtualTokenOptions {
  /** The network: three linear layers. PEFT's LSTM is refused. */
  readonly encoderReparameterizationType?: "MLP" | null;
  /** The width of its inner layers. By default the model's. */
  readonly encoderHiddenSize?: number | null;
}

/** Through linear layers with what is positive between them. */
function promptOf(entry: AdapterEntry): Value {
  const { prompt, embedding, first, firstBias, second, secondBias, third, thirdBias } = entry;
  if (prompt !== undefined) return asValue(prompt);
  const positive = (x: Value) => max(x, 0);
  const inner = positive(linear(positive(linear(embedding!, first!, firstBias!)), second!, secondBias!));
  return linear(inner, third!, thirdBias!);
}

export const method: Method<VirtualSite, PTuningOptions> = {
  name: "ptuning",
  peftType: "P_TUNING",
  whole: true,
  options: {
    ...virtualTokenKeys,
    encoderReparameterizationType: { peft: "encoder_reparameterization_type" },
    encoderHiddenSize: { peft: "encoder_hidden_size" },
  },
  keys: promptKeys({
    embedding: "embedding.weight",
    ...{ first: "mlp_head.0.weight", firstBias: "mlp_head.0.bias" },
    ...{ second: "mlp_head.2.weight", secondBias: "mlp_head.2.bias" },
    ...{ third: "mlp_head.4.weight", thirdBias: "mlp_head.4.bias" },
  }),
  // Of the network that made what a file holds.
  silent: [
    ...["encoder_reparameterization_type", "encoder_hidden_size"],
    ...["encoder_num_layers", "encoder_dropout"], // an LSTM's
  ],
  unmergeable: "embeddings in front of a text are no change of a weight",
  startsElsewhere: true,
  // A file has no network to go on from.
  kept: (site, entry) => keptPrompt(site, promptOf(entry)),
  sites: (outline, options) => {
    const { numVirtualTokens: count, encoderReparameterizationType: type } = options;
    if ((type ?? "MLP") !== "MLP") {
      throw new OptionError(
        `encoderReparameterizationType is ${JSON.stringify(type)}, and only "MLP" is computed here`,
      );
    }
    return [virtualSite(method, outline, options, (attentions, embedding) => {
      const sizes = embeddingSizes(attentions, embedding), { width } = sizes;
      const hidden = hiddenSize(options, width);
      const trained = {
        embedding: [count, width],
        ...{ first: [hidden, width], firstBias: [hidden] },
        ...{ second: [hidden, hidden], secondBias: [hidden] },
        ...{ third: [width, hidden], thirdBias: [width] },
      };
      return { sizes, trained };
    })];
  },
  first: (site, weight, { index, options: { seed } }) => {
    const { trained } = site;
    const fillOf = (leaf: string) => leaf === "embedding" ? normal : kaiming(trained[leaf.replace("Bias", "")][1]);
    const fills = Object.fromEntries(Object.keys(trained).map((leaf) => [leaf, fillOf(leaf)]));
    return firstDraws(site, weight, { index, seed, fills });
  },
  front: (_site, entry) => ({ embeddings: promptOf(entry) }),
  config: ([site]) => {
    const sizes = embeddingSizes(site.front.attentions, site);
    return {
      ...sizeConfig(site, sizes),
      encoder_reparameterization_type: "MLP",
      encoder_hidden_size: site.trained.first?.[0] ?? sizes.width,
    };
  },
};
