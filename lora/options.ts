import type { Leaf } from "../core/model.ts";
import type { HolderName, ModuleName, Target } from "./target_types.ts";

/** Module names and paths with `*` for any one segment, or a RegExp that matches whole paths. */
export type Modules<P> = readonly Target<P>[] | RegExp;

/** What every method takes: what is trained of the model itself beside it. */
export interface WholeOptions<P = unknown> {
  /** Modules that are trained in full, as PEFT's modules_to_save: names as in `targets`, also of what holds modules. */
  readonly modulesToSave?: readonly HolderName<P>[];
}

/** What methods take that adapt modules: which, and what is trained of the model itself beside them. */
export interface TuneOptions<P = unknown> extends WholeOptions<P> {
  /**
   * Module names as in PEFT (`["c_attn"]`), paths with `*` for any one segment (`["h.*.mlp.c_fc"]`), parts of a fused
   * projection (`["c_attn[q,v]"]`), a RegExp that matches whole paths, or `"all-linear"`: every linear layer but the output
   * head.
   */
  readonly targets: Modules<P> | (unknown extends P ? string : never) | "all-linear";
  /** Modules that are not adapted though `targets` names them, by the same rules. */
  readonly exclude?: Modules<P>;
  /** Only the modules of these layers, counted from 0: of `h.3.attn.c_attn` the layer is 3. */
  readonly layers?: readonly number[];
  /** The name before the layer's number (`"h"`), where the first number of a path is not the layer's. */
  readonly layersPattern?: string | readonly string[];
  /** Which biases of the model are trained as well: none (the default), all, or those of the adapted modules. */
  readonly bias?: "none" | "all" | "lora";
  /**
   * Rows of an embedding that are trained, and nothing else of it: the tokens of the one embedding that is looked up by
   * input ids, or of the embeddings that are named.
   */
  readonly trainableTokens?: readonly number[] | { readonly [K in ModuleName<P>]?: readonly number[] };
  /**
   * A weight that is used under two names (an embedding that is also the head): `"use"`, the default, adapts, saves or
   * trains the use that is named, as PEFT does; `"all"` does so for every use at once (PEFT's ensure_weight_tying).
   */
  readonly tie?: "use" | "all";
}

/** A method's options S for a model of parameters P: names of modules are those that it has. */
export type OptionsFor<P, S> = S extends { readonly targets: unknown } ? S & TuneOptions<P> : S & WholeOptions<P>;

/** What to adapt, and how. `r`, `alpha` and `targets` have no default. */
export interface LoraOptions<P = unknown> extends TuneOptions<P> {
  /** The rank: a whole number from 1 to the smaller side of each adapted matrix. */
  readonly r: number;
  /** The change is scaled by alpha / r, or by alpha / √r with `rslora`. */
  readonly alpha: number;
  /** The fraction of the low-rank branch's inputs that is dropped where `apply` is given a key. 0 by default. */
  readonly dropout?: number;
  /** Scale by alpha / √r. Source: Kalajdzievski 2023, "A rank stabilization scaling factor for fine-tuning with LoRA". */
  readonly rslora?: boolean;
  /** Train the magnitude of each output's weights separately from their direction (DoRA). Source: Liu et al. 2024, "DoRA", section 4. */
  readonly dora?: boolean;
  /** Other ranks for some modules: regular expressions for the end of the path, the first that matches counts. */
  readonly rankPattern?: Readonly<Record<string, number>>;
  /** Other alphas, likewise. */
  readonly alphaPattern?: Readonly<Record<string, number>>;
  /** Whether each low-rank branch has a bias of its own, scaled as the branch is. Only modules with a bias can be merged. */
  readonly loraBias?: boolean;
  /**
   * Act only from the last occurrence of these tokens on, them included, and not at all in texts without it (aLoRA): the keys
   * and values of what stands before are the base's. Such an adapter is not merged. Source: Greenewald et al. 2025.
   */
  readonly aloraInvocationTokens?: readonly number[];
  /**
   * The first values: `true` (A uniform in ±1/√in, B zero), `"gaussian"` (A normal with deviation 1/r, B zero),
   * `"orthogonal"` (both drawn, of an even rank, such that B·A is zero), or `false` (both uniform: the adapter changes the
   * function from the first, for tests). Those that are computed from weights or data are waited for: {@link StartOptions}.
   */
  readonly init?: boolean | "gaussian" | "orthogonal";
  /** What the first values are drawn from. 0 by default. */
  readonly seed?: number;
}

/** One adapted module, for a program to print or to name tensors by. */
export interface Match {
  /** The module's path in the parameters: `h.0.attn.c_attn`. For a part of a fused projection `h.0.attn.c_attn[q]`. The key in `trainable`. */
  readonly path: string;
  /** The method that adapts it: `lora`, `dora`. */
  readonly method: string;
  /** A product with the weight, or rows looked up in it. */
  readonly kind: "linear" | "embedding";
  /** Its rank; 0 of a method that has none. */
  readonly r: number;
  /** Its alpha; 0 of a method that has none. */
  readonly alpha: number;
  /** What the low-rank branch is multiplied by; 1 where there is none. */
  readonly scaling: number;
  /** The weight's shape, and where its input axis is: `in,out` or `out,in`. */
  readonly shape: readonly number[];
  /** Which axis of the weight is the input's. */
  readonly layout: "in,out" | "out,in";
  /** How many numbers are trained here. */
  readonly trainable: number;
  /** Present where the scaling is alpha / √r. */
  readonly rslora?: true;
  /** Present where the adapter acts only from the last occurrence of these tokens on. */
  readonly invocation?: readonly number[];
  /** Present where only outputs `start` to `end` of the module `of` are adapted. */
  readonly part?: { readonly of: string; readonly name: string; readonly start: number; readonly end: number };
}

/** A leaf of the model that is trained itself, or rows of it. */
export interface Saved {
  /** The key in `trainable` and the name there. */
  readonly path: string;
  /** What is trained of it. */
  readonly part: "weight" | "bias" | "tokens";
  /** Which option asked for it. */
  readonly by: "modulesToSave" | "bias" | "trainableTokens";
  /** Its shape in `trainable`. */
  readonly shape: readonly number[];
  /** The rows, where `part` is `tokens`. */
  readonly tokens?: readonly number[];
}

/**
 * What is trained of one module. Which parts it has follows from the options; all of one tree are decided when `lora` is
 * called, so that a key that is there is there for good:
 *
 * | part        | shape                        | where                              | PEFT's key ends in                     |
 * | ----------- | ---------------------------- | ---------------------------------- | -------------------------------------- |
 * | `A`         | [r, in]                      | adapted modules (`matched`)        | lora_A.weight, lora_embedding_A        |
 * | `B`         | [out, r]                     | adapted modules                    | lora_B.weight, lora_embedding_B        |
 * | `magnitude` | [out]                        | adapted modules, `dora`            | lora_magnitude_vector                  |
 * | `biasB`     | [out]                        | adapted modules, `loraBias`        | lora_B.bias                            |
 * | `weight`    | as the model's               | `modulesToSave` (`saved`)          | weight                                 |
 * | `bias`      | as the model's               | `modulesToSave`, `bias` (`saved`)  | base_layer.bias if adapted, else bias  |
 * | `tokens`    | [rows, width], the new rows  | `trainableTokens` (`saved`)        | token_adapter.trainable_tokens_delta   |
 *
 * All are f32. A path may be adapted and saved at once: then one entry has the parts of both. For `c_attn[q,v]` there are
 * two entries, `….c_attn[q]` and `….c_attn[v]`, whose `out` is that of the part; `wholeModules` turns them into one entry of
 * the module, padded with zeros, as files need it. Leaves that start as something of the base (magnitudes, weights, biases,
 * tokens) are values made of the base's tensors: `jit` and `read` compute such arguments by themselves, `jit((t) => t)` once
 * and for all.
 */
export interface AdapterEntry {
  /** What other methods train. */
  readonly [name: string]: Leaf | undefined;
  /** [r, in]. */
  readonly A?: Leaf;
  /** [out, r]. */
  readonly B?: Leaf;
  /** [out], with DoRA. */
  readonly magnitude?: Leaf;
  /** [out], with `loraBias`. */
  readonly biasB?: Leaf;
  /** The whole weight. */
  readonly weight?: Leaf;
  /** The whole bias. */
  readonly bias?: Leaf;
  /** [rows, width], the trained rows. */
  readonly tokens?: Leaf;
}

/** The trainable leaves, by the path of their module. */
export type Trainable = Readonly<Record<string, AdapterEntry>>;
