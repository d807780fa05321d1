/** Any model whose architecture is known here, by the name in its configuration. */
import { gpt2 } from "./gpt2.ts";
import { llama, mistral, qwen2, qwen3 } from "./llama.ts";
import { type ModelPlace, openModel } from "./load/place.ts";
import type { LoadedModel, Loader, LoadOptions } from "./loader.ts";

const loaders: readonly Loader<unknown>[] = [gpt2, llama, mistral, qwen2, qwen3];

/** The architectures that can be loaded, as configurations name them. */
export const architectures: readonly string[] = loaders.map((l) => l.modelType);

/**
 * Loads a model of any known architecture: names in its tree of parameters are checked when they are used. `gpt2.load` and
 * `llama.load` know theirs when the program is compiled.
 *
 * @throws {FileError} when the files are missing, damaged, of an unknown architecture, or do not fit each other
 * @throws {DeviceError} when the device can't hold the weights
 */
export async function loadModel(place: ModelPlace, options: LoadOptions): Promise<LoadedModel> {
  const files = await openModel(place, architectures, options);
  return await loaders.find((l) => l.modelType === files.config.modelType)!.fromFiles(files, options);
}
