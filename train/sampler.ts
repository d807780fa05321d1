/** What a model in training makes of some prompts, to be read beside each other. */
import type { LanguageModel } from "../core/model.ts";
import { ignoredLabel } from "../core/nn/loss.ts";
import { Tensor } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import type { Tokenizer } from "../models/load/tokenizer.ts";
import { answerer } from "./answers.ts";
import { type Example } from "./data.ts";
import type { Sample } from "./metrics.ts";

/** What samples are made of. */
export interface SamplerOptions<P> {
  readonly model: LanguageModel;
  readonly tokenizer: Tokenizer;
  /** Rows whose prompts are continued; of a row that is learned whole, its first third. */
  readonly rows: readonly Example[];
  /** The model's parameters with the trained ones in them: tensors that are not the model's own are freed after use. */
  readonly merge: (params: P) => unknown;
  /** The most tokens of a continuation. Default 48. */
  readonly maxNewTokens?: number;
}

/** Makes a function that continues the prompts, greedily, with the parameters that it is given. */
export function sampler<P>(
  { model, tokenizer, rows, merge, maxNewTokens = 48 }: SamplerOptions<P>,
): (params: P) => Promise<Sample[]> {
  const prompts = rows.map(promptOf);
  const texts = prompts.map((ids) => tokenizer.decode(ids));
  const answer = answerer(model, tokenizer, { maxNewTokens });
  const own = new Set(flatten<unknown>(model.params).leaves);
  return async (params) => {
    const trained = new Set(flatten<unknown>(params).leaves);
    const merged = merge(params);
    try {
      const answers = await answer(merged, prompts);
      return answers.map((text, i) => ({ prompt: texts[i], text }));
    } finally {
      for (const leaf of flatten<unknown>(merged).leaves) {
        if (leaf instanceof Tensor && !own.has(leaf) && !trained.has(leaf)) leaf.dispose();
      }
    }
  };
}

/** The tokens before the first one that is learned. */
function promptOf({ ids, labels }: Example): readonly number[] {
  const masked = labels.findIndex((label) => label !== ignoredLabel);
  return masked > 0 ? ids.slice(0, masked) : ids.slice(0, Math.max(1, Math.floor(ids.length / 3)));
}
