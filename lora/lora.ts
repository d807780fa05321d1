import { OptionError } from "../core/errors.ts";
import type { LanguageModel, Leaf, Model, StepInputs } from "../core/model.ts";
import { asValue } from "../core/ops/constant.ts";
import { foldIn } from "../core/ops/random.ts";
import type { Operand } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { applyActive, frontCache } from "./follow/active.ts";
import { analyse } from "./follow/analyse.ts";
import { attentionsOf, type FrontCache } from "./follow/front.ts";
import { sublayersOfModel } from "./follow/sublayers.ts";
import { type MergeError, mergeError } from "./bound.ts";
import { checkMethodOptions } from "./check_options.ts";
import { checkTrainable } from "./check_trainable.ts";
import { editTree, leafOf, type Plan } from "./follow/edit.ts";
import { firstValues } from "./first_values.ts";
import { mergeInto, type Overwritten, overwrittenBy, unmergeFrom } from "./merge.ts";
import type { Adapted, Edit, Method, Outline, Site } from "./methods/method.ts";
import { besidesOf, chosenBy, familyOf, methods } from "./methods/mod.ts";
import type { LoraOptions, Match, OptionsFor, Saved, Trainable } from "./options.ts";
import { checkMembers, checkOptions } from "../core/options.ts";

/** A model with low-rank adapters beside some of its weights. */
export interface Tuned<P, I, O> {
  /** The first adapter: the function it gives is the model's own. */
  readonly trainable: Trainable;
  /** The model's parameters, the same objects; of {@link pissa} what is left of them. */
  readonly frozen: P;
  /** What was adapted, in the order of the parameters. */
  readonly matched: readonly Match[];
  /** What is trained of the model itself beside the adapters: whole modules, biases, rows of tokens. */
  readonly saved: readonly Saved[];
  /** Names that `merge` gives a weight of their own, because only one use of a tied weight is adapted. */
  readonly unties: readonly { readonly module: string; readonly from: string }[];
  /** The model that was adapted. */
  readonly model: Model<P, I, O>;
  /** @ignore Everything settled about the adapter, for what combines several. */
  readonly plan: Plan;
  /**
   * Refuses what is not of this adapter.
   *
   * @throws {OptionError} when an adapter is not one of this model and these options
   */
  check(trainable: Trainable): void;
  /**
   * The adapted function. Without a key nothing is dropped. Embeddings in front of the model's own have outputs too: with
   * `whole` they are given with the others, as PEFT does, [B, inFront + T, …].
   */
  apply(
    trainable: Trainable,
    frozen: P,
    inputs: I,
    options?: { readonly key?: Operand; readonly whole?: boolean },
  ): O;
  /** The adapted step of a language model, which decodes token by token; absent where the model has none. */
  step?(
    trainable: Trainable,
    frozen: P,
    inputs: StepInputs,
    options?: { readonly front?: FrontCache },
  ): ReturnType<LanguageModel<P>["step"]>;
  /**
   * Keys and values of the tokens that the adapter puts in front of the model's own, for all steps of a text to be given; null
   * where there are none.
   */
  front(trainable: Trainable, frozen: P): FrontCache | null;
  /** Why it can't be merged, if it can't. */
  readonly unmergeable: string | null;
  /** How many tokens it puts in front of the model's own: so many places of the context are taken. */
  readonly inFront: number;
  /** The adapted function as a model of the same parameters, with these values for good: to be adapted by another `lora`. */
  with(trainable: Trainable): Model<P, I, O>;
  /**
   * Parameters with which the model's own `apply` is the same function: W + s·B·A, added in f32 and rounded once. A tied
   * weight of which one use is adapted is split (see `unties`), or with `tied: "peft"` changed for both uses, as PEFT does.
   */
  merge(trainable: Trainable, frozen: P, options?: { readonly tied?: "split" | "peft" }): P;
  /** What merging writes over and can't be had from merged weights: DoRA's norms, and leaves and rows that are replaced. */
  overwritten(trainable: Trainable, frozen: P): Overwritten;
  /**
   * Takes the same adapter out of merged parameters again, up to rounding. Keep the base where it must be exact.
   *
   * @param lost what {@link Tuned.overwritten} gave before merging, where the adapter has more than A and B
   * @throws {OptionError} when it is needed and missing
   */
  unmerge(trainable: Trainable, merged: P, lost?: Overwritten): P;
  /**
   * How well merged weights keep the adapted function, by module: |adapted - merged| over random inputs beside the bound that
   * rounding allows; the ratio is at most 1 for what {@link merge} gives.
   *
   * @param key u32[2], what the inputs are drawn from
   */
  mergeErrors(trainable: Trainable, frozen: P, merged: P, key: Operand): Record<string, MergeError>;
}

/**
 * Adapts some weights of a model: y = x·W becomes y + s·(x·A)·B with W untouched and A, B trainable. The model is traced
 * once, and each target's weight is followed to its uses; nothing of it is computed here.
 *
 * Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models".
 *
 * @throws {OptionError} for an r, alpha or dropout that can't be used, a target that matches nothing, or a weight that goes
 * into an operation without a low-rank form
 *
 * @example
 * ```ts
 * import { evaluate, lora, matmul, newInput, openDevice, type Operand, tanh, tensor } from "@lowrank/lowrank";
 *
 * using device = await openDevice("cpu");
 * const params = { up: { weight: tensor(device, [[1, 2, 3], [4, 5, 6]]) }, down: { weight: tensor(device, [[1], [2], [3]]) } };
 * const tuned = lora({
 *   params,
 *   sample: newInput({ shape: [1, 2], dtype: "f32" }),
 *   apply: (p, x: Operand) => matmul(tanh(matmul(x, p.up.weight)), p.down.weight),
 * }, { r: 1, alpha: 2, targets: ["up"] });
 * console.log(tuned.matched); // [{ path: "up", r: 1, alpha: 2, scaling: 2, shape: [2, 3], layout: "in,out", trainable: 5, … }]
 * const x = tensor(device, [[0.5, -0.5]]);
 * console.log(await evaluate(tuned.apply(tuned.trainable, tuned.frozen, x))); // what the model gives: B is still zero
 * ```
 */
export function lora<P, I, O>(model: Model<P, I, O>, options: LoraOptions<P>): Tuned<P, I, O> {
  return tune(model, chosenBy(familyOf(methods.lora), options), options);
}

/**
 * Adapts a model by any method: {@link lora} for those that train a pair of matrices.
 *
 * @param anyRank a rank may exceed the sides of its matrix: for adapters that are there already
 * @param shared what the file of one that is there already has beside its modules
 * @throws {OptionError} for options that the method, or this model, can't take
 */
export function tune<P, I, O, S extends object>(
  model: Model<P, I, O>,
  method: Method<Adapted, S>,
  options: OptionsFor<P, S>,
  { anyRank = false, shared }: Partial<Pick<Outline, "anyRank" | "shared">> = {},
): Tuned<P, I, O> {
  checkMembers("tune", "a method, such as methods.lora", method, ["name", "options", "sites"]);
  checkMethodOptions(options, method);
  checkModel(method.name, model);
  const { dropout = 0 } = options as { readonly dropout?: number };
  if (!(dropout >= 0 && dropout < 1)) {
    throw new OptionError(`dropout is a fraction from 0 to less than 1, not ${dropout}`);
  }
  const outline = {
    params: flatten<Leaf>(model.params),
    modules: analyse(model),
    sublayers: () => sublayersOfModel(model),
    attentions: model.positions && (() => attentionsOf(model)),
    anyRank,
    shared,
    hubName: (path: string) => model.hubName?.(path) ?? path,
  };
  const adapted = method.sites({ ...outline, taken: [] }, options);
  const edits = besidesOf(method).reduce<readonly Edit[]>(
    (taken, beside) => [...taken, ...beside.sites({ ...outline, taken: [...adapted, ...taken] }, options as any)],
    [],
  );
  const plan = { adapted, edits, dropout };
  return tunedOf(
    model,
    plan,
    firstValues(outline.params, plan, options, encoderOf(model)),
  );
}

/** What cuts a text into the ids of its tokens, of a model that was loaded with its tokenizer. */
function encoderOf(model: object): ((text: string) => readonly number[]) | undefined {
  const loaded = model as { tokenizer?(): { encode(text: string): readonly number[] } };
  return loaded.tokenizer && ((text) => loaded.tokenizer!().encode(text));
}

/** Refuses what is no model: of an adapted one with what to give instead. */
function checkModel(who: string, model: unknown): void {
  if (typeof model === "object" && model !== null && "frozen" in model) {
    throw new OptionError(
      `${who} takes a model, and this is one that is adapted already: give tuned.model, or tuned.with(tuned.trainable) to ` +
        `adapt that once more`,
    );
  }
  checkMembers(who, "a model, an object of params, sample and apply", model, ["params", "sample", "apply"]);
}

/** A model with an adapter that is already settled, over its own parameters or others. */
export function tunedOf<P, I, O>(
  model: Model<P, I, O>,
  plan: Plan,
  trainable: Trainable,
  frozen: P = model.params,
): Tuned<P, I, O> {
  const { adapted, edits } = plan;
  const check = (given: Trainable) => checkTrainable(given, trainable);
  const active = (given: Trainable) => {
    check(given);
    return { plan, trainable: given };
  };
  const apply: Tuned<P, I, O>["apply"] = (given, frozen, inputs, options = {}) => {
    checkOptions("apply", options, { key: true, whole: true });
    return applyActive<P, I, O>(model, [active(given)], { frozen, inputs, ...options });
  };
  const steps = model as Partial<LanguageModel<P>>;
  const run = { apply: steps.step!, positions: (inputs: StepInputs) => asValue(inputs.positionIds) };
  const step: Tuned<P, I, O>["step"] = steps.step &&
    ((given, frozen, inputs, { front } = {}) => applyActive(model, [active(given)], { frozen, inputs, run, front }));
  return {
    trainable,
    frozen,
    matched: adapted.map((m) => m.match),
    saved: edits.map((site) => site.saved),
    unties: untiedBy(plan),
    model,
    plan,
    check,
    apply,
    ...(step && { step }),
    front: (given, frozen) => frontCache(model, active(given), frozen),
    unmergeable: adapted.map(({ method, acts }) => method.unmergeable ?? acts?.why).find((why) => why) ?? null,
    inFront: adapted.reduce((sum, { front }) => sum + (front?.count ?? 0), 0),
    with: (given) => ({
      ...model,
      params: frozen,
      apply: (params, inputs) => apply(given, params, inputs),
      ...(step && { step: (params: P, inputs: StepInputs) => step(given, params, inputs) }),
    }),
    merge: (given, frozen, options = {}) => {
      checkOptions("merge", options, { tied: true });
      return mergeInto(frozen, [active(given)], options.tied !== "peft");
    },
    overwritten: (given, frozen) => overwrittenBy(active(given), frozen),
    unmerge: (given, merged, lost = {}) => unmergeFrom(merged, active(given), lost),
    mergeErrors: (given, frozen, merged, key) => {
      // Rows that are trained themselves are part of what the adapter stands beside.
      const [before, after] = [editTree(frozen, [active(given)], "stored"), merged].map((p) => flatten<Leaf>(p));
      const followed = adapted.filter((m) => m.method.effect !== undefined);
      return Object.fromEntries(followed.map((m, i) => {
        const [from, to] = [before.leaves[leafOf(before.paths, m)], after.leaves[leafOf(after.paths, m)]];
        return [m.path, mergeError(m, given[m.path], from, to, foldIn(key, i), 8)];
      }));
    },
  };
}

/** Names that get a leaf of their own, and what they were tied to. */
function untiedBy({ adapted, edits }: Plan): Tuned<unknown, unknown, unknown>["unties"] {
  const sites: Site[] = [...adapted, ...edits];
  const names = new Map(sites.flatMap(({ split, leafPath }) => split === null ? [] : [[split, leafPath] as const]));
  const module = (path: string) => path.replace(/\.weight$/, "");
  return [...names].map(([name, from]) => ({ module: module(name), from: module(from) }));
}
