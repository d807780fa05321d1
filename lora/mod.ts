export type { MergeError } from "./bound.ts";
export { combine, type Weighted } from "./compose/combine.ts";
export type { SumOptions, Way } from "./compose/sums.ts";
export { asKept, pissaToLora, wholeModules } from "./compose/convert.ts";
export { type Approximation, type RankError, toLora } from "./compose/to_lora.ts";
export type { Module } from "./follow/analyse.ts";
export type { Form, Product, Sparse } from "./follow/forms.ts";
export type { AttentionOutline, Front, FrontCache } from "./follow/front.ts";
export type { Sublayer } from "./follow/sublayers.ts";
export type { UseKind } from "./follow/rules.ts";
export type { Plan } from "./follow/edit.ts";
export { lora, tune, type Tuned } from "./lora.ts";
export type { Overwritten } from "./merge.ts";
export type { CordaMode } from "./methods/corda.ts";
export type { EvaOptions } from "./methods/eva.ts";
export type * from "./methods/method.ts";
export { methods } from "./methods/mod.ts";
export type {
  AdapterEntry,
  LoraOptions,
  Match,
  Modules,
  OptionsFor,
  Saved,
  Trainable,
  TuneOptions,
  WholeOptions,
} from "./options.ts";
export { pissa, type PissaOptions } from "./start.ts";
export { isStarted, startLora, type StartOptions } from "./started.ts";
export { applyPerExample, type PerExampleOptions, stackAdapters } from "./per_example.ts";
export { together, type Trainables, type TunedTogether, type Weights } from "./compose/several.ts";
export type { NamePair } from "./targets.ts";
export type { Below, Holder, HolderName, HolderPath, ModuleName, ModulePath, Suffix, Target } from "./target_types.ts";
