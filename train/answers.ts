/** Answers of a model to prompts, for measuring it. */
import { generator, type Steps } from "../models/generate/generate.ts";
import { samplingNames, type SamplingOptions } from "../models/generate/sampling.ts";
import type { Tokenizer } from "../models/load/tokenizer.ts";
import { checkOptions } from "../core/options.ts";

/** How answers are made. */
export interface AnswerOptions extends SamplingOptions {
  /** The most tokens of an answer. */
  readonly maxNewTokens: number;
  /** Prompts that are answered at once. Default 50. */
  readonly batch?: number;
}

/**
 * Makes a function that continues prompts (token ids) with any parameters of the model, to the text before an end token;
 * greedily, unless a temperature is given. The programs are compiled once for all calls.
 */
export function answerer(
  model: Steps,
  tokenizer: Tokenizer,
  options: AnswerOptions,
): (params: unknown, prompts: readonly (readonly number[])[]) => Promise<string[]> {
  checkOptions("answerer", options, { ...samplingNames, maxNewTokens: true, batch: true });
  const { maxNewTokens, batch = 50, ...sampling } = options;
  const generate = generator(model);
  return async (params, prompts) => {
    const texts: string[] = [];
    for (let at = 0; at < prompts.length; at += batch) {
      const some = prompts.slice(at, at + batch);
      const made = await generate(params, some, { ...sampling, maxNewTokens, stopIds: tokenizer.endIds });
      texts.push(...made.map(({ ids }, i) => tokenizer.decode(ids, { after: some[i] })));
    }
    return texts;
  };
}
