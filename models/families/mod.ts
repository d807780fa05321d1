/** The list of architectures: a literal each, in a file a family. */
import { bert, electra, roberta, xlmRoberta } from "./bert.ts";
import { distilbert } from "./distilbert.ts";
import { type Family, variantsOf } from "./family.ts";
import { gemma2, gemma3 } from "./gemma.ts";
import { gpt2 } from "./gpt2.ts";
import { gptNeox } from "./gpt_neox.ts";
import { granite } from "./granite.ts";
import { lfm2 } from "./lfm2.ts";
import { llama, mistral, qwen2, qwen3 } from "./llama.ts";
import { modernbert } from "./modernbert.ts";
import { olmo2 } from "./olmo2.ts";
import { phi3 } from "./phi3.ts";
import { smollm3 } from "./smollm3.ts";

/** Every architecture, in the order in which sentences and pages name them. */
export const families: readonly Family[] = [
  ...[gpt2, llama, mistral, qwen2, qwen3, olmo2, granite, smollm3, gemma2, gemma3, phi3, gptNeox, lfm2],
  ...[bert, roberta, xlmRoberta, distilbert, electra, modernbert],
];

/** The architecture that a configuration's `model_type` names, or undefined. */
export const familyOf = (modelType: string): Family | undefined => families.find((f) => f.modelType === modelType);

/** What a configuration's `architectures` names: the architecture, or it with one of its heads. */
export function variantOf(modelType: string, classes: unknown): Family | undefined {
  const family = familyOf(modelType);
  const named = Array.isArray(classes) ? classes : [];
  return family && (variantsOf(family).find(({ className }) => named.includes(className)) ?? family);
}
