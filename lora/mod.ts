export { combine, pissaToLora, type Weighted, wholeModules } from "./combine.ts";
export { lora, type Tuned } from "./lora.ts";
export type { Overwritten } from "./merge.ts";
export type { AdapterEntry, LoraOptions, Match, Modules, Saved, Trainable } from "./options.ts";
export { pissa, type PissaOptions } from "./pissa.ts";
export { applyByRow, stackAdapters } from "./rows.ts";
export { together, type Trainables, type TunedTogether, type Weights } from "./several.ts";
export type { HolderName, ModuleName, Target } from "./target_types.ts";
