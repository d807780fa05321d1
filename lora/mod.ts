export { lora, type LoraOptions, type Match, type Trainable, type Tuned } from "./lora.ts";
export type { LoraPair } from "./init.ts";
export type { Target } from "./target_types.ts";
