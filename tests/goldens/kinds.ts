/** The table of golden cases: how each kind is known by its files, what runs it, and what can't be run yet. */
import type { OpenRuntime } from "../runtimes.ts";
import { runDtypesCase, runQuantsCase } from "./file_cases.ts";
import type { GoldenCase } from "./golden_case.ts";
import { runBaseCase, runGgufCase, runShardedCase } from "./model_cases.ts";

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
  { name: "base models", matches: (c) => c.has("model") && c.has("io.safetensors"), run: runBaseCase },
];

/** The kind of a case, or null. */
export function kindOf(golden: GoldenCase): Kind | null {
  return kinds.find((kind) => kind.matches(golden)) ?? null;
}

/** Why a case is not run, or null. */
export function reasonToSkip(_golden: GoldenCase): string | null {
  return null;
}
