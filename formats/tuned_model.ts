/** An adapted model with all that belongs to it: its files, and for a language model text. */
import type { Value } from "../core/ir/graph.ts";
import type { Model, TokenInputs } from "../core/model.ts";
import {
  isStarted,
  lora as adapt,
  type LoraOptions,
  type OptionsFor,
  pissa as startFromWeights,
  type PissaOptions,
  startLora,
  type StartOptions,
  type Trainable,
  tune as adaptBy,
  type Tuned,
} from "../lora/mod.ts";
import type { Adapted, Method } from "../lora/methods/method.ts";
import { type TextGenerator, textGenerator } from "../models/generate/text_generator.ts";
import type { LoadedModel } from "../models/load/loader.ts";
import {
  type LoadAdapterOptions,
  type LoadedAdapter,
  saveAdapter,
  saveNames,
  type SaveOptions,
  uploadAdapter,
} from "./adapter.ts";
import { isAdapterHub, loadAdapterHub } from "./adapterhub.ts";
import { readAdapter } from "./peft/files.ts";
import { mergeParams } from "./merge.ts";
import { unmergedSteps } from "./unmerged.ts";
import { checkOptions } from "../core/options.ts";

/** What {@link lora} gives: the adapted function, and the adapter's own files and merged weights. */
export interface TunedModel<P, I, O> extends Tuned<P, I, O> {
  /**
   * Without arguments, this adapter merged: tensors, new ones where a weight changed and the base's own everywhere else. With
   * arguments, the pure function of {@link Tuned.merge}, for use within `jit`.
   */
  merge(): P;
  /** {@link Tuned.merge} */
  merge(trainable: Trainable, frozen: P, options?: { readonly tied?: "split" | "peft" }): P;
  /**
   * Writes the adapter as PEFT does, with the name of its base where that was loaded: {@link saveAdapter}.
   *
   * @throws {FileError} when the folder can't be written, or a value is not finite (nothing is written then)
   */
  save(folder: string, options?: Omit<SaveOptions, "trainable">): Promise<void>;
}

/** An adapted language model that was loaded: it generates with the adapter beside the base's weights. */
export interface TunedLanguageModel<P> extends TunedModel<P, TokenInputs, Value>, TextGenerator {
  /** The model that was adapted. */
  readonly model: LoadedModel<P>;
  /** The adapted step, which decodes token by token. */
  step: NonNullable<Tuned<P, TokenInputs, Value>["step"]>;
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
 * import { lora, loadModel, openDevice } from "@lowrank/lowrank";
 *
 * using device = await openDevice("cpu");
 * using model = await loadModel("assets/letters-base", { device });
 * const tuned = lora(model, { r: 8, alpha: 16, targets: ["c_attn"] });
 * console.log(tuned.matched[0]); // { path: "h.0.attn.c_attn", r: 8, alpha: 16, scaling: 2, … }
 * for await (const piece of tuned.generate("Dear", { maxNewTokens: 8 })) console.log(piece); // what the model writes: B is zero
 * await tuned.save("out/untrained");
 * ```
 */
export function lora<P>(model: LoadedModel<P>, options: LoraOptions<P>): TunedLanguageModel<P>;
/** {@link lora} with a start that is computed from the weights, or from data. */
export function lora<P>(
  model: LoadedModel<P>,
  options: StartOptions<P, TokenInputs>,
): Promise<TunedLanguageModel<P>>;
/** {@link lora} of any other model. */
export function lora<P, I, O>(model: Model<P, I, O>, options: LoraOptions<P>): TunedModel<P, I, O>;
/** {@link lora} of any other model with a start that is computed from the weights, or from data. */
export function lora<P, I, O>(model: Model<P, I, O>, options: StartOptions<P, I>): Promise<TunedModel<P, I, O>>;
export function lora<P, I, O>(
  model: Model<P, I, O>,
  options: LoraOptions<P> | StartOptions<P, I>,
): TunedModel<P, I, O> | Promise<TunedModel<P, I, O>> {
  if (!isStarted(options)) return tunedModel(adapt(model, options as LoraOptions<P>));
  return startLora(model, options as StartOptions<P, I>).then((tuned) => tunedModel(tuned));
}

/**
 * Adapts a model by any method: {@link lora} for those that train no pair of matrices.
 *
 * @throws {OptionError} for options that the method, or this model, can't take
 */
export function tune<P, S extends object>(
  model: LoadedModel<P>,
  method: Method<Adapted, S>,
  options: OptionsFor<P, S>,
): TunedLanguageModel<P>;
/** {@link tune} of any other model. */
export function tune<P, I, O, S extends object>(
  model: Model<P, I, O>,
  method: Method<Adapted, S>,
  options: OptionsFor<P, S>,
): TunedModel<P, I, O>;
export function tune<P, I, O, S extends object>(
  model: Model<P, I, O>,
  method: Method<Adapted, S>,
  options: OptionsFor<P, S>,
): TunedModel<P, I, O> {
  return tunedModel(adaptBy(model, method, options));
}

/** {@link lora} that starts from the principal singular values of the weights, which it waits for. */
export async function pissa<P>(model: LoadedModel<P>, options: PissaOptions<P>): Promise<TunedLanguageModel<P>>;
/** {@link pissa} of any other model. */
export async function pissa<P, I, O>(model: Model<P, I, O>, options: PissaOptions<P>): Promise<TunedModel<P, I, O>>;
export async function pissa<P, I, O>(model: Model<P, I, O>, options: PissaOptions<P>): Promise<TunedModel<P, I, O>> {
  return tunedModel(await startFromWeights(model, options));
}

/**
 * Reads an adapter that PEFT or {@link saveAdapter} wrote and puts it on the model: what {@link lora} returns, with the adapter's
 * values as `trainable`, on the device that holds the model; placeholders for a model of placeholders.
 *
 * @throws {FileError} when the folder holds no whole adapter, one that does not fit the model, or one that says that it was
 * trained on another
 */
export function loadAdapter<P>(
  folder: string,
  model: LoadedModel<P>,
  options?: LoadAdapterOptions,
): LoadedAdapter<P, TokenInputs, Value> & TunedLanguageModel<P>;
/** {@link loadAdapter} on any other model. */
export function loadAdapter<P, I, O>(
  folder: string,
  model: Model<P, I, O>,
  options?: LoadAdapterOptions,
): LoadedAdapter<P, I, O> & TunedModel<P, I, O>;
export function loadAdapter<P, I, O>(
  folder: string,
  model: Model<P, I, O>,
  options: LoadAdapterOptions = {},
): LoadedAdapter<P, I, O> & TunedModel<P, I, O> {
  checkOptions("loadAdapter", options, { anyBase: true, residual: true });
  if (isAdapterHub(folder)) {
    return tunedModel<P, I, O, LoadedAdapter<P, I, O>>({ ...loadAdapterHub(folder, model), notes: [] } as never);
  }
  return tunedModel<P, I, O, LoadedAdapter<P, I, O>>(uploadAdapter(readAdapter(folder), model, options));
}

/** An adapted model with its files; of a loaded language model with its text. */
function tunedModel<P, I, O, T extends Tuned<P, I, O>>(tuned: T & Tuned<P, I, O>): T & TunedModel<P, I, O> {
  const { merge, model, plan } = tuned;
  const loaded = model as Partial<LoadedModel<P>>;
  return {
    ...tuned,
    merge(
      this: TunedModel<P, I, O>,
      trainable?: Trainable,
      frozen?: P,
      options?: { readonly tied?: "split" | "peft" },
    ) {
      return trainable === undefined
        ? mergeParams(this, this.trainable)
        : merge(trainable, frozen ?? this.frozen, options);
    },
    save(this: TunedModel<P, I, O>, folder, options = {}) {
      checkOptions("save", options, saveNames);
      return saveAdapter(folder, this, {
        trainable: this.trainable,
        // One that was loaded keeps the name that it came with.
        baseModel: "origin" in this ? undefined : loaded.name,
        dropout: plan.dropout,
        ...options,
      });
    },
    ...(isLoadedLanguageModel(model) && textGenerator(generatorOf(model, tuned))),
  };
}

/** What generates of an adapted model, whatever its adapter's values are by now. */
function generatorOf<P>(model: LoadedModel<P>, tuned: Pick<Tuned<P, TokenInputs, Value>, "step" | "plan">) {
  const steps = unmergedSteps(model, tuned);
  return ({ trainable, frozen }: Tuned<P, TokenInputs, Value>) => ({
    ...steps,
    params: { trainable, frozen },
    tokenizer: () => model.tokenizer(),
  });
}

function isLoadedLanguageModel<P>(model: object): model is LoadedModel<P> {
  return "step" in model && "tokenizer" in model;
}
