/** The table of golden cases: how each kind is known by its files, what runs it, and what can't be run yet. */
import { pathKind } from "../../models/load/byte_source.ts";
import type { OpenRuntime } from "../runtimes.ts";
import { runDtypesCase, runQuantsCase } from "./file_cases.ts";
import type { GoldenCase } from "./golden_case.ts";
import { runAdapterCase } from "./adapter_cases.ts";
import { runPissaCase, runSeveralCase } from "./combined_cases.ts";
import { runClassifierCase, runClassifierLoraCase, runEncoderCase } from "./bert_cases.ts";
import { runBaseCase, runGgufCase, runShardedCase } from "./model_cases.ts";
import { runLoftqCase, runNf4Case, runQloraCase } from "./packed_cases.ts";
import { runNumbersCase } from "./numbers_case.ts";
import { runTrainCase } from "./train_cases.ts";

/** One kind of case: `files` needs no device, `run` is called for each. */
export interface Kind {
  readonly name: string;
  readonly matches: (golden: GoldenCase) => boolean;
  readonly files?: (golden: GoldenCase) => void | Promise<void>;
  readonly run?: (golden: GoldenCase, runtime: OpenRuntime) => Promise<void>;
}

const kinds: readonly Kind[] = [
  { name: "dtypes", matches: (c) => c.has("all.safetensors"), files: runDtypesCase },
  { name: "GGUF types", matches: (c) => c.has("quants.gguf"), files: runQuantsCase },
  { name: "shards", matches: (c) => c.has("model/model.safetensors.index.json"), run: runShardedCase },
  { name: "GGUF models", matches: (c) => c.has("llama-F32.gguf"), run: runGgufCase },
  { name: "NF4", matches: (c) => c.has("nf4.safetensors"), run: runNf4Case },
  { name: "LoftQ", matches: (c) => c.has("loftq.safetensors"), files: runLoftqCase },
  { name: "QLoRA", matches: (c) => c.has("packed.safetensors"), run: runQloraCase },
  { name: "numbers", matches: (c) => c.has("numbers.json"), files: runNumbersCase },
  { name: "training runs", matches: (c) => c.has("trace.json") && c.has("adapter_init"), run: runTrainCase },
  { name: "several adapters", matches: (c) => c.has("adapters"), run: runSeveralCase },
  { name: "PiSSA", matches: (c) => c.has("pissa_init"), run: runPissaCase },
  { name: "classifiers' adapters", matches: (c) => c.has("adapter") && isBert(c), run: runClassifierLoraCase },
  { name: "adapters", matches: (c) => c.has("adapter") && c.has("merged.safetensors"), run: runAdapterCase },
  { name: "encoders", matches: (c) => c.has("model") && isBert(c) && !c.has("grads.safetensors"), run: runEncoderCase },
  { name: "classifiers", matches: (c) => c.has("model") && isBert(c), run: runClassifierCase },
  { name: "base models", matches: (c) => c.has("model") && c.has("io.safetensors"), run: runBaseCase },
];

/** The kind of a case, or null. */
export function kindOf(golden: GoldenCase): Kind | null {
  return kinds.find((kind) => kind.matches(golden)) ?? null;
}

/** What is not built yet, by what tells that a case needs it. */
const notYet: readonly (readonly [string, (golden: GoldenCase) => boolean])[] = [
  ["it needs a real model: ./task test:real", (c) => c.info.source !== undefined],
];

function modelType(golden: GoldenCase): string | null {
  const own = golden.has("model/config.json") ? `${golden.folder}/model` : `${golden.root}/${golden.info.base}`;
  return pathKind(`${own}/config.json`) === null
    ? null
    : JSON.parse(Deno.readTextFileSync(`${own}/config.json`)).model_type;
}

const isBert = (golden: GoldenCase) => modelType(golden) === "bert";

/** Why a case is not run, or null. */
export function reasonToSkip(golden: GoldenCase): string | null {
  return notYet.find(([, applies]) => applies(golden))?.[0] ?? null;
}
