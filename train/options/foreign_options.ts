/** What other tools call the options of this one: PEFT, TRL and transformers, mlx-lm, llama.cpp, Unsloth, Axolotl. */

/** Our names (as users write them) with the others' for the same; a switch may be theirs turned round. */
export const others: Readonly<Record<string, string>> = {
  "model": "model-name-or-path model-name model-id base-model pretrained-model-name-or-path hf-repo m",
  "data": "dataset dataset-name dataset-path datasets data-path data-dir train-data train-file training-file",
  "out": "output-dir output output-path save-path save-dir lora-out o",
  "adapter": "adapter-path adapter-name-or-path resume-adapter-file lora lora-path lora-weights lora-model-dir " +
    "lora-scaled peft-model-id",
  "full": "full-finetune full-finetuning full-fine-tuning full-training",
  "r": "rank lora-r lora-rank lora-dim",
  "alpha": "lora-alpha lora-scale",
  "dropout": "lora-dropout",
  "targets": "target-modules lora-target lora-targets lora-target-modules lora-modules num-layers lora-layers",
  "rslora": "use-rslora",
  "dora": "use-dora peft-use-dora",
  "modules-to-save": "lora-modules-to-save",
  "loraplus": "loraplus-lr-ratio",
  "steps": "max-steps iters iterations num-steps num-iters max-iters num-train-steps",
  "epochs": "num-epochs num-train-epochs n-epochs max-epochs epoch",
  "batch": "batch-size train-batch-size per-device-train-batch-size per-device-eval-batch-size micro-batch-size " +
    "eval-batch-size ubatch-size b",
  "accumulate": "gradient-accumulation gradient-accumulation-steps grad-accumulation-steps grad-accum accum-steps",
  "lr": "learning-rate",
  "schedule": "lr-scheduler lr-scheduler-type lr-schedule scheduler",
  "warmup": "warmup-steps num-warmup-steps warmup-ratio",
  "weight-decay": "wd",
  "clip": "max-grad-norm grad-clip gradient-clipping clip-grad-norm",
  "seq":
    "max-seq-length max-seq-len seq-len seq-length sequence-len max-length cutoff-len block-size model-max-length " +
    "ctx-size context-length n-ctx c",
  "pack": "packing sample-packing",
  "mask-prompt": "completion-only-loss",
  "no-mask-prompt": "train-on-inputs train-on-prompt",
  "learn": "assistant-only-loss train-on-turn roles-to-train",
  "overflow": "truncation truncate excess-length-strategy",
  "checkpoint-blocks": "gradient-checkpointing grad-checkpoint use-gradient-checkpointing",
  "seed": "random-seed data-seed",
  "save-every": "save-steps steps-per-save save-strategy",
  "keep": "save-total-limit",
  "evaluate-every": "eval-steps steps-per-eval evaluation-strategy eval-strategy",
  "patience": "early-stopping-patience",
  "resume": "resume-from-checkpoint",
  "device": "ngl n-gpu-layers gpu-layers no-cuda use-cpu",
  "dtype": "torch-dtype fp16 bf16 fp32 load-in-4bit load-in-8bit quantization precision",
  "threads": "t num-threads n-threads",
  "temperature": "temp",
  "max-tokens": "max-new-tokens n-predict n num-predict max-gen-len",
  "top-p": "topp",
  "repetition-penalty": "repeat-penalty rep-pen",
  "system": "system-prompt sys",
};

const ours: ReadonlyMap<string, string> = new Map(
  Object.entries(others).flatMap(([name, theirs]) => theirs.split(" ").map((other) => [other, name] as const)),
);

/** Our name of an option that another tool calls `written`, with dashes or underscores; or null. */
export function ourName(written: string): string | null {
  return ours.get(written.replaceAll("_", "-").toLowerCase()) ?? null;
}

/** Others' options that have none like them here, and what holds instead; nothing where that says all. */
const instead: ReadonlyMap<string, string> = new Map(
  ([
    ["prompt p", "the text is given at the end, in quotes"],
    ["optim optimizer optimiser", "the optimiser is AdamW"],
    ["train do-train", "lowrank train trains"],
    ["test do-eval do-predict test-batches", "lowrank eval measures"],
    ["val-batches", "every row of the validation file is measured"],
    ["chat-template", "the model's own is used"],
    ["bias lora-bias eos-token verbose v", ""],
  ] as const).flatMap(([theirs, answer]) => theirs.split(" ").map((other) => [other, answer] as const)),
);

/** The answer to another tool's option `written` that has none like it here; or null where it is not known. */
export function suggestionFor(written: string): string | null {
  return instead.get(written.replaceAll("_", "-").toLowerCase()) ?? null;
}
