/**
 * Prompt tuning: trained embeddings in front of those of the text's own tokens.
 * Source: Lester, Al-Rfou and Constant 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning".
 */
import { OptionError } from "../../core/errors.ts";
import { reshape } from "../../core/ops/broadcast.ts";
import { asValue, constant } from "../../core/ops/constant.ts";
import { gather } from "../../core/ops/indexing.ts";
import { concat } from "../../core/ops/structure.ts";
import { randomKey, threefry2x32 } from "../../core/random.ts";
import type { Leaf } from "../../core/model.ts";
import { widened } from "../follow/effect.ts";
import type { Method } from "./method.ts";
import { firstDraws, normal } from "./first_draws.ts";
import {
  embeddingSizes,
  promptKeys,
  sizeConfig,
  type VirtualSite,
  virtualSite,
  virtualTokenKeys,
  type VirtualTokenOptions,
} from "./virtual_tokens.ts";

const starts = ["RANDOM", "SAMPLE_VOCAB", "TEXT"] as const;

/** Options of prompt tuning. */
export interface PromptOptions extends VirtualTokenOptions {
  /** What they are at first: normal numbers (the default), rows of the vocabulary that are drawn, or those of a text's tokens. */
  readonly promptTuningInit?: typeof starts[number] | null;
  /** The text of `TEXT`: cut or repeated until it has as many tokens as stand in front. */
  readonly promptTuningInitText?: string | null;
}

/** The rows of the vocabulary that they start as; null where they are drawn. */
function startIds(
  { front: { count }, aval: { shape: [rows] } }: VirtualSite,
  { promptTuningInit: start, promptTuningInitText: text, seed = 0 }: PromptOptions,
  encode?: (text: string) => readonly number[],
): readonly number[] | null {
  if (start === "SAMPLE_VOCAB") {
    const [high, low] = randomKey(seed).data;
    return Array.from({ length: count }, (_, i) => threefry2x32([high, low], [1, i])[0] % rows);
  }
  if (start !== "TEXT") return null;
  if (encode === undefined) {
    throw new OptionError(
      `promptTuningInit "TEXT" needs the model's tokenizer, and this model has none: load one from files`,
    );
  }
  const ids = encode(text!);
  if (ids.length > 0) return Array.from({ length: count }, (_, i) => ids[i % ids.length]);
  throw new OptionError(`promptTuningInitText ${JSON.stringify(text)} has no token: give a text with some`);
}

export const method: Method<VirtualSite, PromptOptions> = {
  name: "prompt",
  peftType: "PROMPT_TUNING",
  whole: true,
  options: {
    ...virtualTokenKeys,
    promptTuningInit: { peft: "prompt_tuning_init" },
    promptTuningInitText: { peft: "prompt_tuning_init_text" },
  },
  keys: promptKeys(),
  // How it started.
  silent: ["prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"],
  unmergeable: "embeddings in front of a text are no change of a weight",
  startsElsewhere: true,
  sites: (outline, options) => {
    const { promptTuningInit: start = "RANDOM", promptTuningInitText: text } = options;
    if (start !== null && !starts.includes(start)) {
      throw new OptionError(`promptTuningInit is ${JSON.stringify(start)}; supported: ${starts.join(", ")}`);
    }
    if ((start === "TEXT") !== (typeof text === "string")) {
      throw new OptionError('promptTuningInitText is the text of promptTuningInit "TEXT": give both or neither');
    }
    return [virtualSite(method, outline, options, (attentions, embedding) => {
      const sizes = embeddingSizes(attentions, embedding);
      return { sizes, trained: { prompt: [options.numVirtualTokens, sizes.width] } };
    })];
  },
  first: (site, weight, { index, options, encode }): Record<string, Leaf> => {
    const ids = startIds(site, options, encode);
    if (ids === null) return firstDraws(site, weight, { index, seed: options.seed, fills: { prompt: normal } });
    const rows = concat(ids.map((id) => reshape(constant(id, "i32"), [1])), 0);
    return { prompt: widened(gather(weight, rows)) };
  },
  front: (_site, { prompt }) => ({ embeddings: asValue(prompt!) }),
  config: ([site]) => ({
    ...sizeConfig(site, embeddingSizes(site.front.attentions, site)),
    prompt_tuning_init: "RANDOM",
  }),
};
