export { lora, type Tuned } from "./lora.ts";
export type { Overwritten } from "./merge.ts";
export type { AdapterEntry, LoraOptions, Match, Saved, Trainable } from "./options.ts";
export type { ModuleName, Target } from "./target_types.ts";
