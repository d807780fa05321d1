/** What a model in training makes of some prompts, to be read beside each other. */
import { LowrankError } from "../../core/errors.ts";
import { cacheBytes, type Steps } from "../../models/generate/generate.ts";
import type { Tokenizer } from "../../models/load/tokenizer.ts";
import { answerer } from "../answers.ts";
import type { Sample } from "./metrics.ts";

/** What samples are made of. */
export interface SamplerOptions<P> {
  /** The model in training: with an adapter beside its weights ({@link unmergedSteps}), so that nothing is held twice. */
  readonly model: Steps;
  readonly tokenizer: Tokenizer;
  /** Token ids that are continued. */
  readonly prompts: readonly (readonly number[])[];
  /** What `model` takes as its parameters, of the trained ones. */
  readonly params: (trained: P) => unknown;
  /** The most tokens of a continuation. Default 48. */
  readonly maxNewTokens?: number;
}

const usualLength = 48;

/** The bytes that continuing prompts takes beside the model: a cache. */
export function sampleBytes(model: Steps, prompts: SamplerOptions<unknown>["prompts"]): number {
  return prompts.length === 0 ? 0 : cacheBytes(model, prompts, usualLength);
}

/**
 * Makes a function that continues the prompts, greedily, with the parameters that it is given. Where that fails, the texts say
 * why: a run is not ended by what is only looked at.
 */
export function sampler<P>(
  { model, tokenizer, prompts, params, maxNewTokens = usualLength }: SamplerOptions<P>,
): (trained: P) => Promise<Sample[]> {
  const texts = prompts.map((ids) => tokenizer.decode(ids));
  const answer = answerer(model, tokenizer, { maxNewTokens });
  return async (trained) => {
    const answers = await answer(params(trained), prompts).catch((error) => {
      if (!(error instanceof LowrankError)) throw error;
      return prompts.map(() => error.message);
    });
    return answers.map((text, i) => ({ prompt: texts[i], text }));
  };
}
