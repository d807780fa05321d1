export { lora, type Tuned } from "./lora.ts";
export type { LoraPair } from "./init.ts";
export type { AdapterEntry, LoraOptions, Match, Saved, Trainable } from "./options.ts";
export type { ModuleName, Target } from "./target_types.ts";
