/** A model of which only names and shapes are read: what can be said of it without its weights. */
import { hostArray } from "../core/dtype.ts";
import type { Model } from "../core/model.ts";
import type { TensorHome } from "../core/tensor.ts";
import { bert, bertClassifier, gpt2, llama, type Loaded, type Loader, mistral, qwen2, qwen3 } from "../models/mod.ts";
import { openModel } from "../models/load/place.ts";
import type { WeightSource } from "../models/load/weights.ts";

const loaders = [gpt2, llama, mistral, qwen2, qwen3, bert] as unknown as readonly Loader<any, Model<any, any, any>>[];

/** A device that keeps nothing. */
const nowhere: TensorHome = { description: "nowhere", allocate: () => null, write: () => {}, free: () => {} };

/** Weights of which the values are left where they are. */
function hollow(source: WeightSource): WeightSource {
  return {
    path: source.path,
    names: source.names,
    entry: (name) => source.entry(name),
    read: (name, dtype = source.entry(name).dtype) => ({
      shape: source.entry(name).shape,
      dtype,
      data: hostArray(dtype, 0),
    }),
    [Symbol.dispose]: () => source[Symbol.dispose](),
  };
}

/** One weight as its file has it. */
export interface StoredWeight {
  readonly name: string;
  readonly shape: readonly number[];
  readonly stored: string;
  readonly bytes: number;
}

/**
 * Opens a model for looking at it. Nothing can be computed with it.
 *
 * @throws {FileError} when its files are missing, damaged, or do not fit each other
 */
export async function outlineModel(
  path: string,
): Promise<{ model: Loaded<Model<any, any, any>>; weights: StoredWeight[] }> {
  const files = await openModel(path, loaders.map((l) => l.modelType), {});
  const weights = files.source.names.map((name) => ({ name, ...files.source.entry(name) }));
  const named = files.config.raw.architectures;
  const labels = Array.isArray(named) && named.includes("BertForSequenceClassification");
  const loader = labels ? bertClassifier : loaders.find((l) => l.modelType === files.config.modelType)!;
  const model = await loader.fromFiles({ ...files, source: hollow(files.source) }, { device: nowhere });
  return { model, weights };
}
