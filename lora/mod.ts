export { lora, type Tuned } from "./lora.ts";
export type { LoraPair } from "./init.ts";
export type { LoraOptions, Match, Trainable } from "./options.ts";
export type { Target } from "./target_types.ts";
