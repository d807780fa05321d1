/** Generating with an adapter that is not merged: one base in memory, and a task is changed by giving another adapter. */
import type { LanguageModel, TokenInputs } from "../core/model.ts";
import type { Value } from "../core/ir/graph.ts";
import type { FrontCache, Trainable, Tuned } from "../lora/mod.ts";
import type { Steps } from "../models/generate/generate.ts";
import { checkMembers } from "../core/options.ts";

/** The parameters of a model with an adapter beside its weights. */
export interface Unmerged<P> {
  /** The adapter. */
  readonly trainable: Trainable;
  /** The base. */
  readonly frozen: P;
  /** What stands in front of the text, once it was computed. */
  readonly front?: FrontCache;
}

/**
 * The step of a language model through the rewrite of an adapter: what `tokenStream` and `generator` take, whose parameters
 * are then `{ trainable, frozen }`. Adapters of one plan share the programs.
 *
 * @example
 * ```ts ignore
 * const generate = generator(unmergedSteps(model, tuned));
 * await generate({ trainable: tuned.trainable, frozen: tuned.frozen }, [prompt], { maxNewTokens: 32 });
 * ```
 */
export function unmergedSteps<P>(
  model: Pick<LanguageModel<P>, "sizes" | "cacheAvals">,
  tuned:
    & Pick<Tuned<P, TokenInputs, Value>, "step" | "plan">
    & Partial<Pick<Tuned<P, TokenInputs, Value>, "front" | "inFront">>,
): Steps<Unmerged<P>> {
  checkMembers("unmergedSteps", "a language model", model, ["sizes", "cacheAvals"]);
  checkMembers("unmergedSteps", "a language model that is adapted", tuned, ["step", "plan"]);
  const { sizes, cacheAvals } = model, { step, plan, front, inFront = 0 } = tuned;
  const acts = plan.adapted.find((m) => m.acts !== undefined)?.acts;
  return {
    // What stands in front takes places of the context, though none of the cache.
    sizes: {
      ...sizes,
      contextLength: sizes.contextLength - inFront,
      ...(sizes.cacheLength !== undefined && { cacheLength: sizes.cacheLength - inFront }),
    },
    cacheAvals,
    ...(inFront > 0 && {
      prepare: ({ trainable, frozen }: Unmerged<P>) => ({ front: front!(trainable, frozen)! }),
    }),
    step: ({ trainable, frozen, front }, inputs) => step!(trainable, frozen, inputs, { front }),
    ...(acts && { actsFrom: (prompt: readonly number[]) => acts.from(prompt) }),
  };
}
