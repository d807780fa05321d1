/** Generating with an adapter that is not merged: one base in memory, and a task is changed by giving another adapter. */
import type { LanguageModel } from "../core/model.ts";
import type { Plan, Trainable } from "../lora/mod.ts";
import { tunedOf } from "../lora/lora.ts";
import type { Steps } from "../models/generate/generate.ts";

/** The parameters of a model with an adapter beside its weights. */
export interface Unmerged<P> {
  /** The adapter. */
  readonly trainable: Trainable;
  /** The base. */
  readonly frozen: P;
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
  model: LanguageModel<P>,
  { plan, trainable }: { readonly plan: Plan; readonly trainable: Trainable },
): Steps<Unmerged<P>> {
  const { sizes, cacheAvals, step } = model;
  const stepping = tunedOf(
    { ...model, apply: (params: P, inputs: any) => step(params, inputs) as any },
    plan,
    trainable,
  );
  return {
    sizes,
    cacheAvals,
    step: ({ trainable, frozen }, inputs) => stepping.apply(trainable, frozen, inputs) as never,
  };
}
