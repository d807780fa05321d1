/** Adapters and GGUF weights of the golden cases as files; what they compute is the other test's part. */
import { openSafetensors } from "../../models/load/safetensors.ts";
import { parseAdapterKey } from "../../train/adapter_keys.ts";
import { checkAdapterFiles, checkGgufWeights } from "./file_cases.ts";
import { casesUnder, type GoldenCase } from "./golden_case.ts";

const folder = Deno.args[0] ?? `${import.meta.dirname}/cases`;

/** Parts of an adapter that are read and written; the others are refused. */
const written = ["A", "B", "embeddingA", "embeddingB", "baseWeight"];

function isPlain(golden: GoldenCase, adapter: string): boolean {
  if (!golden.has(`${adapter}/adapter_model.safetensors`)) return false;
  using source = openSafetensors(`${golden.folder}/${adapter}/adapter_model.safetensors`);
  return source.names.every((key) => written.includes(parseAdapterKey(key)?.part ?? ""));
}

for (const golden of casesUnder(folder)) {
  if (golden.has("weights_sample.safetensors")) {
    Deno.test(`${golden.id}: weights in Hugging Face's order`, () => checkGgufWeights(golden));
  }
  for (const adapter of ["adapter", "adapter_init", "adapter_final"]) {
    if (!isPlain(golden, adapter)) continue;
    Deno.test(`${golden.id}/${adapter}: written again as PEFT wrote it`, () =>
      checkAdapterFiles(`${golden.folder}/${adapter}`));
  }
}
