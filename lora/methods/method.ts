/** What a parameter-efficient method is: a value that the engine in `follow/`, merging and the readers of files ask. */
import type { Leaf } from "../../core/model.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { HostTensor, Operand } from "../../core/tensor.ts";
import type { FlatTree } from "../../core/tree.ts";
import type { Matrix } from "ml-matrix";
import type { Module } from "../follow/analyse.ts";
import type { Form } from "../follow/forms.ts";
import type { AttentionOutline, Front } from "../follow/front.ts";
import type { Sublayer } from "../follow/sublayers.ts";
import type { AdapterEntry, Match, Saved } from "../options.ts";

/** A place of a model where a method trains something. A method may keep more in its own sites. */
export interface Site {
  /** The method that it is of. */
  readonly method: Method;
  /** Its key in `trainable`. */
  readonly path: string;
  /** The module's path in Hugging Face's class. */
  readonly hub: string;
  /** The leaf of the parameters that is meant. */
  readonly leafPath: string;
  /** Where what becomes of it goes: another path where one use of a tied weight is meant. */
  readonly into: string;
  /** Where only one use of a tied weight is meant: the path at which the other name gets a leaf of its own. */
  readonly split: string | null;
  /** What is trained here, f32: its names and their shapes. */
  readonly trained: Readonly<Record<string, readonly number[]>>;
}

/** A place whose weight is followed to its uses. */
export interface WeightSite extends Site, Module {}

/** That an adapter acts at some places of its inputs only. */
export interface Acts {
  /** Why it can't be merged, as a clause. */
  readonly why: string;
  /** The index of a prompt's first token at which it acts, in the prompt and in what follows it; null for none. */
  from(ids: readonly number[]): number | null;
  /** What multiplies its changes, f32[B,T]. */
  at(inputs: unknown): Value;
}

/** A module that `targets` names, or the one place of a method that is of the whole model. */
export interface Adapted extends WeightSite {
  /** Of a method that puts tokens in front of the model's own: how many, and what sees them. */
  readonly front?: { readonly count: number; readonly attentions: readonly AttentionOutline[] };
  /** Its public description. */
  readonly match: Match;
  /** Where it acts, if not everywhere. Sites of one adapter share it. */
  readonly acts?: Acts;
}

/** A leaf, or rows of one, that is trained itself. */
export interface Edit extends Site {
  /** Its public description. */
  readonly saved: Saved;
}

/**
 * What becomes of a weight W that is followed: gain ⊙ (W + s·B·A). Nothing of the weight's size is made for it until it is
 * merged.
 */
export interface Effect {
  /** A f32[r, in], B f32[out, r]. */
  readonly pair?: { readonly A: Value; readonly B: Value; readonly scaling: Operand };
  /** One factor for each output of the weight, or each input: f32[out], f32[in]. */
  readonly gain?: { readonly of: "out" | "in"; readonly value: Value };
  /** What else it may be, without a pair or a gain. */
  readonly form?: Form;
}

/** What becomes of a module's bias b: scale ⊙ b + add, both f32[out]. Without a bias `add` is added to what the module gives. */
export interface BiasEffect {
  /** f32[out]; 1 where it is left out. */
  readonly scale?: Value;
  /** f32[out]; 0 where it is left out. */
  readonly add?: Value;
}

/** What merging wrote over at a site, by name. @throws {OptionError} where it was not kept */
export type Lost = (name: string) => Leaf;

/** In what circumstances an effect is asked for. */
export interface EffectContext {
  /** f32[]: how strongly the adapter acts. */
  readonly adapterWeight?: Operand;
  /** Where the weight is a merged one. */
  readonly lost?: Lost;
}

/** A model as the methods see it when they choose their sites. */
export interface Outline {
  /** Its parameters. */
  readonly params: FlatTree<Leaf>;
  /** The uses of its weights. */
  readonly modules: readonly Module[];
  /** Its attentions, where it says where its tokens stand. */
  readonly attentions?: () => readonly AttentionOutline[];
  /** The places where it adds to its stream, by the paths of the weights before them. */
  sublayers(): ReadonlyMap<string, Sublayer>;
  /** The sites of the methods that were asked before. */
  readonly taken: readonly Site[];
  /** A rank may exceed the sides of its matrix. */
  readonly anyRank: boolean;
  /** Of an adapter that is read: what its file has under the method's {@link SharedTensors.keys}. */
  readonly shared?: Readonly<Record<string, HostTensor>>;
  /** The path of a module in Hugging Face's class. */
  hubName(path: string): string;
}

/** What a value of PEFT's configuration must be, as its error says it; or the values that it may be. */
export type ValueKind =
  | "a positive integer"
  | "a positive integer or null"
  | "a text or null"
  | "a whole number"
  | "a whole number or null"
  | "-1 or a positive integer"
  | "a number"
  | "a number from 0 to less than 1"
  | "true or false"
  | "a list of names or null"
  | "a list of token ids"
  | "a list of names or one pattern"
  | "a name or a list of names"
  | "a layer or a list of layers"
  | "a list of token ids, or lists by the embedding's name"
  | "patterns with positive integers"
  | "patterns with numbers"
  | readonly (string | boolean)[];

/** An option beside PEFT's key for the same. */
export interface OptionKey {
  /** PEFT's name, or null where it has none. */
  readonly peft: string | null;
  /** What PEFT's value must be, where it is read, and the one that a file means by leaving it out. */
  readonly file?: { readonly is: ValueKind; readonly default: unknown };
  /** PEFT's key for what a pattern (`rank_pattern`) is the exception of. */
  readonly patternOf?: string;
  /** Whether older versions of PEFT don't know the key: it is written only where it says something. */
  readonly recent?: true;
}

/** How the key of something trained ends in PEFT's file of tensors. */
export interface PartKey {
  /** The name in `trainable`. */
  readonly leaf: string;
  /** What follows the module's name in its key. */
  readonly ending: string;
  /** Where this ending is used in place of the plain one: on tables that are looked up, or on modules that are also adapted. */
  readonly on?: "embedding" | "adapted";
  /** Only there where an option asks for it. */
  readonly optional?: true;
  /** The path in `trainable` that it is of, where its key is the ending alone. */
  readonly of?: string;
  /** What precedes the module's name, where that is not as of modules that are adapted. */
  readonly wrapper?: string;
}

/** What the sites of an adapter have in common, is not trained, and stands in its file beside what the modules have. */
export interface SharedTensors<S extends Site> {
  /** Its keys, whole; `*` stands for whatever they begin with. */
  readonly keys: readonly string[];
  /** What a file of these sites has of it. */
  of(sites: readonly S[]): Readonly<Record<string, Leaf>>;
}

/** What else a configuration says. */
export interface ConfigContext {
  /** The modules that are adapted. */
  readonly adapted: readonly Adapted[];
  /** A module as `target_modules` names it. */
  spell(path: string): string;
}

/** What first values are made from. */
export interface Draw<O> {
  /** Which of the sites it is. */
  readonly index: number;
  /** How the method was asked for. */
  readonly options: O;
  /** The model's tokenizer, where it has one. */
  readonly encode?: (text: string) => readonly number[];
}

/** How one weight's values are taken apart into what is trained and what is left, on the host. */
export interface Start {
  /** As PEFT's init_lora_weights has it. */
  readonly name: string;
  /**
   * First values, such that W = rest + their change.
   *
   * @ignore The matrix is a package's.
   *
   * @param weight [out, in]; becomes the rest
   * @param key what may be drawn from
   */
  take(weight: Matrix, site: Adapted, key: readonly [number, number]): Readonly<Record<string, HostTensor>>;
}

/**
 * One method. A weight that it changes is either followed to its uses (`effect`) or replaced by another leaf (`replace`); a
 * method that has both is followed while it is trained and put in place when it is merged.
 */
export interface Method<S extends Site = Site, O extends object = object> {
  /** As the literature calls it: `lora`, `dora`. */
  readonly name: string;
  /** The option that chooses it among the methods of the same `peftType`: `dora`. */
  readonly switch?: string;
  /** Its options, in PEFT's words. */
  readonly options: Readonly<Record<string, OptionKey>>;
  /** PEFT's peft_type, of a method with files of its own; others are trained beside one. */
  readonly peftType?: string;
  /** The keys of what it trains. */
  readonly keys: readonly PartKey[];
  /** What its file has that is of no module. */
  readonly shared?: SharedTensors<S>;
  /** Options that the laws try besides the likely ones, where those leave a part of it out. */
  readonly samples?: readonly Readonly<Record<string, unknown>>[];
  /** Whether it is of the model as a whole: there are no targets, and its keys in files have no module's name. */
  readonly whole?: true;
  /** Keys of PEFT's configuration of it that say nothing of what is computed. */
  readonly silent?: readonly string[];

  /** Where it trains what. @throws {OptionError} for options that these modules can't take */
  sites(outline: Outline, options: O): readonly S[];
  /** The values of a site before the first step, which leave the function as it is (unless the options say otherwise). */
  first(site: S, weight: Leaf, draw: Draw<O>): Readonly<Record<string, Leaf>>;
  /** First values that follow from the others and the weight. */
  derived?(site: S, entry: AdapterEntry, weight: Leaf): Readonly<Record<string, Leaf>>;
  /** How values may start otherwise, where that takes a part out of the weights. */
  readonly start?: Start;

  /** What it adds to what a module gives, out of that or of the stream that it is added to. It finds its places: no targets. */
  branch?(site: S, entry: AdapterEntry): { readonly of: "output" | "sum"; branch(x: Value): Value };
  /** What it puts in front of the model's own tokens, for all of those to see. */
  front?(site: S, entry: AdapterEntry): Front;
  /** The same by what files keep of it, where that is less than what is trained. */
  kept?(site: S, entry: AdapterEntry): { readonly site: S; readonly entry: AdapterEntry };
  /** Why it can't be merged, where it can't. */
  readonly unmergeable?: string;
  /** Whether its first values change the function. */
  readonly startsElsewhere?: true;

  /** Whether its effect is made of the weight's values, so that the change of one weight is not that of another. */
  readonly readsWeight?: true;
  /** What becomes of the weight at its uses. */
  effect?(site: S, entry: AdapterEntry, weight: Value, context: EffectContext): Effect;
  /** What becomes of the module's bias. */
  bias?(site: S, entry: AdapterEntry, context: EffectContext): BiasEffect | null;
  /** By how much of itself a gain may differ between two computations, f32[out]; nothing where it is data. */
  gainError?(site: S, entry: AdapterEntry, weight: Value): Value;
  /** The leaf that stands in place of the base's, f32. */
  replace?(site: S, entry: AdapterEntry, leaf: Leaf): Value;
  /** What merging writes over and `effect` or `restore` needs again. */
  lost?(site: S, entry: AdapterEntry, leaf: Leaf, context: EffectContext): Readonly<Record<string, Leaf>>;
  /** The base's leaf out of one that was replaced. */
  restore?(site: S, leaf: Leaf, lost: Lost): Leaf;

  /** What PEFT's configuration says of these sites, beside modules that are adapted: the keys of its own options. */
  config(sites: readonly S[], beside: ConfigContext): Readonly<Record<string, unknown>>;
}
