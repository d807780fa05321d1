/**
 * Training: the loop, optimisers and schedules; data; checkpoints and what watches a run; adapters as PEFT, llama.cpp and
 * mlx-lm keep them; merging; what a program prints.
 *
 * @module
 */
export { formatBytes } from "../core/format_bytes.ts";
export {
  type AdapterOrigin,
  checkWritable,
  loadAdapter,
  type LoadAdapterOptions,
  type LoadedAdapter,
  type Savable,
  saveAdapter,
  type SaveOptions,
} from "./adapter.ts";
export type { AdapterConfig } from "./adapter_config.ts";
export {
  type AdapterContents,
  type AdapterFiles,
  adapterNames,
  type AdapterTensor,
  readAdapter,
  writeAdapter,
} from "./adapter_files.ts";
export { readGgufAdapter, writeGgufAdapter } from "./adapter_gguf.ts";
export { readMlxAdapter, writeMlxAdapter } from "./adapter_mlx.ts";
export type { AdapterPart } from "./adapter_keys.ts";
export type { Cursor } from "./batches.ts";
export { answerer, type AnswerOptions } from "./answers.ts";
export { type BaseRecord, recordBase } from "./base_record.ts";
export { type CheckpointOptions, type CheckpointStore, checkpointStore, type RunIdentity } from "./checkpoint.ts";
export { uploadBatch, type UploadedBatch } from "./compiled_step.ts";
export type { Chat } from "./chat_answers.ts";
export { type Batch, encodeRow, type EncodeRowOptions, type Example, makeBatch, type TextTokenizer } from "./data.ts";
export { openData } from "./data_files.ts";
export { labelsOf } from "./data_rows.ts";
export type { DataOptions, DataSet, Examples } from "./data_set.ts";
export {
  type EarlyStopping,
  earlyStopping,
  type EarlyStoppingOptions,
  type StoppingState,
  type Verdict,
} from "./early_stopping.ts";
export { type EvaluateOptions, type Evaluation, evaluator } from "./evaluate.ts";
export { systemPrompt as letterInstruction } from "./letters_real.ts";
export type { LetterValues } from "./letters.ts";
export { type Score, scoreAnswers } from "./letters_score.ts";
export { type Checkpoints, train, type TrainOptions, type TrainResult } from "./loop.ts";
export {
  type AnyTuned,
  checkMerge,
  type MergeCheck,
  type MergeOptions,
  mergeParams,
  mergeSafely,
  unmergeParams,
} from "./merge.ts";
export {
  type AdaptedModule,
  type MetricsEvent,
  type MetricsLog,
  openMetrics,
  readMetrics,
  type RunFacts,
  type RunHistory,
  type Sample,
} from "./metrics.ts";
export {
  adamw,
  type AdamWOptions,
  type AdamWState,
  clipByGlobalNorm,
  globalNorm,
  type Group,
  loraPlus,
  type LoraPlusOptions,
  type Optimiser,
} from "./optimiser.ts";
export { plainFromPissa } from "./pissa_files.ts";
export { type ProgressBar, progressBar, type ProgressOptions, type ProgressState } from "./progress.ts";
export {
  describeMatches,
  describeMergeChecks,
  describeModel,
  describeScore,
  describeSizes,
  describeTrainable,
  memoryWatch,
  reportEnd,
  sideBySide,
  sizeOfTree,
  wholeNumber,
} from "./report.ts";
export { onInterrupt, reportErrors } from "./report_errors.ts";
export type { Output } from "../core/output.ts";
export type { Row, RowKind } from "./rows.ts";
export { type AnyLoaded, saveModel, type SaveModelOptions } from "./save_model.ts";
export { makeSchedule, type Schedule, type ScheduleName, type ScheduleOptions } from "./schedule.ts";
export {
  fileTask,
  lettersTask,
  ownLetter,
  realLettersTask,
  type Task,
  type TaskSettings,
  type TestRow,
} from "./tasks.ts";
export { type Trainee, wholeModel } from "./trainee.ts";
export { type Unmerged, unmergedSteps } from "./unmerged.ts";
export type { StepLine, Stop, Watch } from "./watch.ts";
export { type Best, type RunWatch, type WatchOptions, watchRun } from "./watch_run.ts";
export { type Alarm, type Watchdog, watchdog, type WatchdogOptions, type WatchdogState } from "./watchdog.ts";
export type { Snapshot } from "./snapshot.ts";
export type { Speed } from "./speed.ts";
