/** The table of golden cases: how each kind is known by its files, what runs it, and why some are not run. */
import type { OpenRuntime } from "../runtimes.ts";
import { runDtypesCase, runQuantsCase } from "./file_cases.ts";
import type { GoldenCase } from "./golden_case.ts";
import { runAdapterCase, runInvokedCase } from "./adapter_cases.ts";
import { runCombinationsCase, runPissaCase, runSeveralCase } from "./combined_cases.ts";
import { runEncoderCase, runHeadCase, runHeadLoraCase } from "./encoder_cases.ts";
import { ggufFiles, runBaseCase, runGgufCase, runShardedCase } from "./model_cases.ts";
import { runLoftqCase, runNf4Case, runQloraCase } from "./packed_cases.ts";
import { familyOf } from "../../models/families/mod.ts";
import { modelConfig, notBuilt } from "./not_built.ts";
import { runBottleneckCase } from "./bottleneck_cases.ts";
import { runNumbersCase } from "./numbers_case.ts";
import { isObjectiveCase, runObjectiveCase } from "./objective_cases.ts";
import { runPromptCase } from "./prompt_cases.ts";
import { runStartCase } from "./start_cases.ts";
import { runTrainCase } from "./train_cases.ts";

/** One kind of case: `files` needs no device, `run` is called for each. */
export interface Kind {
  readonly name: string;
  readonly matches: (golden: GoldenCase) => boolean;
  readonly files?: (golden: GoldenCase) => void | Promise<void>;
  readonly run?: (golden: GoldenCase, runtime: OpenRuntime) => Promise<void>;
}

const kinds: readonly Kind[] = [
  { name: "dtypes", matches: (c) => c.has("all.safetensors") && c.has("values.json"), files: runDtypesCase },
  { name: "GGUF types", matches: (c) => c.has("quants.gguf"), files: runQuantsCase },
  { name: "shards", matches: (c) => c.has("model/model.safetensors.index.json"), run: runShardedCase },
  { name: "GGUF models", matches: (c) => ggufFiles(c).size > 0, run: runGgufCase },
  { name: "NF4", matches: (c) => c.has("nf4.safetensors"), run: runNf4Case },
  { name: "LoftQ", matches: (c) => c.has("loftq.safetensors"), files: runLoftqCase },
  { name: "QLoRA", matches: (c) => c.has("packed.safetensors") && c.has("adapter"), run: runQloraCase },
  { name: "numbers", matches: (c) => c.has("numbers.json"), files: runNumbersCase },
  { name: "training runs", matches: (c) => c.has("trace.json") && c.has("adapter_init"), run: runTrainCase },
  {
    name: "combinations",
    matches: (c) => c.has("adapters") && Array.isArray(c.info.entries),
    run: runCombinationsCase,
  },
  { name: "several adapters", matches: (c) => c.has("adapters"), run: runSeveralCase },
  { name: "PiSSA", matches: (c) => c.has("pissa_init"), run: runPissaCase },
  { name: "starts", matches: (c) => c.has("init_ba.safetensors"), run: runStartCase },
  {
    name: "adapters of encoders",
    matches: (c) => c.has("adapter") && c.has("merged.safetensors") && encoderOf(c) !== null,
    run: runHeadLoraCase,
  },
  {
    name: "adapters that wait for their invocation",
    matches: (c) =>
      c.has("adapter/adapter_config.json") && c.json("adapter/adapter_config.json").alora_invocation_tokens?.length > 0,
    run: runInvokedCase,
  },
  { name: "objectives", matches: isObjectiveCase, run: runObjectiveCase },
  { name: "adapters", matches: (c) => c.has("adapter") && c.has("merged.safetensors"), run: runAdapterCase },
  {
    name: "bottleneck layers",
    matches: (c) => c.has("adapter.safetensors") && c.has("adapter_config.json"),
    run: runBottleneckCase,
  },
  { name: "virtual tokens", matches: (c) => c.has("adapter") && c.info.prompt_config, run: runPromptCase },
  { name: "encoders", matches: (c) => c.has("model") && encoderOf(c)?.task === null, run: runEncoderCase },
  { name: "encoders with a head", matches: (c) => c.has("model") && encoderOf(c) !== null, run: runHeadCase },
  { name: "base models", matches: (c) => c.has("model") && c.has("io.safetensors"), run: runBaseCase },
];

/** The encoder that a case is of, with the task of its head; null where its model is none. */
function encoderOf(golden: GoldenCase): { readonly task: string | null } | null {
  const { model_type: type, architectures: classes } = modelConfig(golden) ?? {};
  const family = familyOf(type);
  if (family?.tasks === undefined) return null;
  return { task: Object.entries(family.tasks).find(([, { className }]) => classes?.includes(className))?.[0] ?? null };
}

/** The kind of a case, or null. */
export function kindOf(golden: GoldenCase): Kind | null {
  return kinds.find((kind) => kind.matches(golden)) ?? null;
}

/** Cases of a model that is downloaded: which package it comes from, and the files of each kind. */
const real: readonly (readonly string[])[] = [
  ["tokens.json"],
  ["io.safetensors", "tokens.json"],
  ["dequant.json"],
  ["last.safetensors", "logits.json"],
  ["text.json", "trace.json", "adapter_init"],
];

/** Why a case is not run, or null. */
export function reasonToSkip(golden: GoldenCase): string | null {
  const { info, base } = golden;
  const isReal = typeof info.source?.package === "string" &&
    real.some((files) => files.every((file) => golden.has(file)));
  if (isReal) return "it needs a real model: ./task test:real";
  if (typeof info.base === "string" && base === null) return `its base ${info.base} is not there`;
  return notBuilt(golden);
}
