/** The list of architectures: a literal each, in a file a family. */
import { bert } from "./bert.ts";
import type { Family } from "./family.ts";
import { gpt2 } from "./gpt2.ts";
import { llama, mistral, qwen2, qwen3 } from "./llama.ts";

/** Every architecture, in the order in which sentences and pages name them. */
export const families: readonly Family[] = [gpt2, llama, mistral, qwen2, qwen3, bert];

/** The architecture that a configuration's `model_type` names, or undefined. */
export const familyOf = (modelType: string): Family | undefined => families.find((f) => f.modelType === modelType);
