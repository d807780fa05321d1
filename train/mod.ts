/**
 * Training: the loop, optimisers and schedules; data; checkpoints and what watches a run; adapters as PEFT, llama.cpp and
 * mlx-lm keep them; merging; what a program prints.
 *
 * @module
 */
export { formatBytes } from "../core/host/format.ts";
export {
  type AdapterOrigin,
  checkWritable,
  type LoadAdapterOptions,
  type LoadedAdapter,
  type Savable,
  saveAdapter,
  type SaveOptions,
} from "../formats/adapter.ts";
export { loadAdapter } from "../formats/tuned_model.ts";
export type { AdapterConfig } from "../formats/peft/config.ts";
export {
  type AdapterContents,
  type AdapterFiles,
  adapterNames,
  type AdapterTensor,
  readAdapter,
  writeAdapter,
} from "../formats/peft/files.ts";
export { readGgufAdapter, writeGgufAdapter } from "../formats/gguf.ts";
export { readMlxAdapter, writeMlxAdapter } from "../formats/mlx.ts";
export type { Collator, Cursor } from "../data/batches.ts";
export { answerer, type AnswerOptions } from "./answers.ts";
export { type BaseRecord, recordBase } from "../formats/base_record.ts";
export {
  type CheckpointOptions,
  type CheckpointStore,
  checkpointStore,
  type RunIdentity,
} from "./checkpoint/checkpoint.ts";
export { uploadBatch, type UploadedBatch } from "./compiled_step.ts";
export type { Chat } from "../data/chat_answers.ts";
export type { Batch, BatchColumns, BatchSize, EncodeRowOptions, Example, TextTokenizer } from "../data/examples.ts";
export type { DataOptions, DataSet, Examples } from "../data/data_set.ts";
export { encodeRow, labelsOf, makeBatch, openData, type OpenDataOptions } from "./objectives/mod.ts";
export { causal, causalLM, type CausalOptions } from "./objectives/causal_lm.ts";
export { classification, type ClassificationOptions, classify } from "./objectives/classification.ts";
export { cosent, type CosentOptions, cosineError } from "./objectives/cosine.ts";
export { cpo, type CpoOptions, simpo, type SimpoOptions } from "./objectives/cpo.ts";
export {
  distillation,
  type DistillationOptions,
  type Taught,
  type Teacher,
  withTeacherLogits,
} from "./objectives/distillation.ts";
export { dpo, type DpoOptions } from "./objectives/dpo.ts";
export { kto, type KtoOptions } from "./objectives/kto.ts";
export type { Apply, Measure, Objective, Reference, Sums } from "./objectives/objective.ts";
export { maskedLM, type MaskedOptions } from "./objectives/masked_lm.ts";
export { orpo, type OrpoOptions } from "./objectives/orpo.ts";
export { reward, type RewardOptions } from "./objectives/reward.ts";
export { ranking, type RankingOptions } from "./objectives/ranking.ts";
export { multiLabel, regression } from "./objectives/scored_texts.ts";
export { tokenClassification } from "./objectives/token_classification.ts";
export { triplet, type TripletOptions } from "./objectives/triplet.ts";
export { type ReferenceStore, referenceStore } from "./reference_store.ts";
export {
  type EarlyStopping,
  earlyStopping,
  type EarlyStoppingOptions,
  type StoppingState,
  type Verdict,
} from "./watch/early_stopping.ts";
export { type EvaluateOptions, type Evaluation, evaluator } from "./evaluate.ts";
export { type Checkpoints, train, type TrainOptions, type TrainResult } from "./loop.ts";
export {
  type AnyTuned,
  checkMerge,
  type MergeCheck,
  type MergeOptions,
  mergeParams,
  mergeSafely,
  unmergeParams,
} from "../formats/merge.ts";
export {
  type AdaptedModule,
  type MetricsEvent,
  type MetricsLog,
  openMetrics,
  readMetrics,
  type RunFacts,
  type RunHistory,
  type Sample,
} from "./watch/metrics.ts";
export type { Joins } from "./step.ts";
export { loraFa } from "./lora_fa.ts";
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
export { loraFromAny, plainFromPissa } from "../formats/peft/plain_files.ts";
export { combineFiles, type CombineFilesOptions, type WeightedFiles } from "../formats/combine.ts";
export { type ProgressBar, progressBar, type ProgressOptions, type ProgressState } from "./watch/progress.ts";
export {
  describeMatches,
  describeMergeChecks,
  describeModel,
  describeSizes,
  describeTrainable,
  memoryWatch,
  reportEnd,
  sizeOfTree,
  wholeNumber,
} from "../report/describe.ts";
export { onInterrupt, reportErrors } from "../report/errors.ts";
export type { Output } from "../core/host/output.ts";
export type { Bounds, Json, Row, RowFormat, RowReader } from "../data/rows.ts";
export { type AnyLoaded, saveModel, type SaveModelOptions } from "../formats/save_model.ts";
export { makeSchedule, type Schedule, type ScheduleName, type ScheduleOptions } from "./options/schedule.ts";
export { type Trainee, wholeModel } from "./trainee.ts";
export { type Unmerged, unmergedSteps } from "../formats/unmerged.ts";
export type { StepLine, Stop, Watch } from "./watch/watch.ts";
export { type Best, type RunWatch, type WatchOptions, watchRun } from "./watch/watch_run.ts";
export { type Alarm, type Watchdog, watchdog, type WatchdogOptions, type WatchdogState } from "./watch/watchdog.ts";
export type { Snapshot } from "./checkpoint/snapshot.ts";
export type { Speed } from "./watch/speed.ts";
