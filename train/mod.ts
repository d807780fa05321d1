/**
 * Training: optimisers, schedules and the loop; data; adapters as PEFT keeps them; what a command prints.
 *
 * @module
 */
export { loadAdapter, saveAdapter, type SaveOptions } from "./adapter.ts";
export { type AdapterConfig, makeAdapterConfig } from "./adapter_config.ts";
export { type AdapterFiles, type AdapterPair, readAdapter, writeAdapter } from "./adapter_files.ts";
export * from "./data.ts";
export { train, type TrainOptions, type TrainResult } from "./loop.ts";
export * from "./optimiser.ts";
export * from "./progress.ts";
export * from "./report_errors.ts";
export * from "./schedule.ts";
export * from "./step.ts";
