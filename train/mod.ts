/**
 * Training: optimisers, schedules and the loop; data; adapters as PEFT keeps them; what a program prints.
 *
 * @module
 */
export {
  type AdapterOrigin,
  checkWritable,
  loadAdapter,
  type LoadAdapterOptions,
  type LoadedAdapter,
  putAdapter,
  type Savable,
  saveAdapter,
  type SaveOptions,
} from "./adapter.ts";
export { type AdapterConfig, makeAdapterConfig } from "./adapter_config.ts";
export {
  type AdapterContents,
  type AdapterFiles,
  adapterNames,
  type AdapterTensor,
  readAdapter,
  writeAdapter,
} from "./adapter_files.ts";
export { readGgufAdapter, writeGgufAdapter } from "./adapter_gguf.ts";
export type { AdapterPart } from "./adapter_keys.ts";
export { isMlxAdapter, readMlxAdapter, writeMlxAdapter } from "./adapter_mlx.ts";
export * from "./answers.ts";
export { type BaseRecord, recordBase } from "./base_record.ts";
export { type CheckpointOptions, type CheckpointStore, checkpointStore, type RunIdentity } from "./checkpoint.ts";
export type { Cursor } from "./batches.ts";
export { uploadBatch, type UploadedBatch } from "./compiled_step.ts";
export * from "./data.ts";
export * from "./data_files.ts";
export { labelsOf } from "./data_rows.ts";
export type { DataOptions, DataSet, Examples } from "./data_set.ts";
export * from "./early_stopping.ts";
export * from "./evaluate.ts";
export { systemPrompt as letterInstruction } from "./letters_real.ts";
export { type Score, scoreAnswers } from "./letters_score.ts";
export { type Checkpoints, train, type TrainOptions, type TrainResult } from "./loop.ts";
export * from "./merge.ts";
export * from "./metrics.ts";
export * from "./optimiser.ts";
export { plainFromPissa } from "./pissa_files.ts";
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
export { type Row, type RowKind } from "./rows.ts";
export type { Snapshot } from "./snapshot.ts";
export * from "./trainee.ts";
export { type Unmerged, unmergedSteps } from "./unmerged.ts";
