/**
 * Training: optimisers, schedules and the loop; data; adapters as PEFT keeps them; what a program prints.
 *
 * @module
 */
export { checkWritable, loadAdapter, saveAdapter, type SaveOptions } from "./adapter.ts";
export { type AdapterConfig, makeAdapterConfig } from "./adapter_config.ts";
export { type AdapterFiles, type AdapterPair, readAdapter, writeAdapter } from "./adapter_files.ts";
export * from "./answers.ts";
export * from "./data.ts";
export * from "./early_stopping.ts";
export * from "./evaluate.ts";
export { systemPrompt as letterInstruction } from "./letters_real.ts";
export { type Score, scoreAnswers } from "./letters_score.ts";
export { train, type Trainee, type TrainOptions, type TrainResult, uploadBatch } from "./loop.ts";
export * from "./merge.ts";
export * from "./metrics.ts";
export * from "./optimiser.ts";
export * from "./progress.ts";
export * from "./report.ts";
export * from "./report_errors.ts";
export * from "./save_model.ts";
export * from "./schedule.ts";
export * from "./step.ts";
export * from "./tasks.ts";
export type * from "./watch.ts";
export * from "./watch_run.ts";
export * from "./watchdog.ts";
