import { FileError } from "../../../core/errors.ts";
import { pathKind, readJsonObject } from "../files/byte_source.ts";
import { openSafetensors } from "./safetensors.ts";
import { listed, type WeightSource } from "../weights.ts";

/**
 * Opens a model's shards as one source, from its `model.safetensors.index.json`. Every shard's header is checked at once; a
 * shard that is missing, and tensors that the index and the shards do not agree on, are listed in one {@link FileError}.
 */
export function openShards(indexPath: string): WeightSource {
  const folder = indexPath.slice(0, indexPath.length - "model.safetensors.index.json".length);
  const map = weightMap(indexPath);
  const files = [...new Set(map.values())].sort();
  const absent = files.filter((file) => pathKind(folder + file) !== "file");
  if (absent.length > 0) {
    throw new FileError(`${indexPath} names files that are not there. ${listed("Missing", absent)}Add them.`);
  }
  using opened = new DisposableStack();
  const home = new Map<string, WeightSource>();
  const unexpected: string[] = [];
  for (const file of files) {
    const shard = opened.use(openSafetensors(folder + file));
    for (const name of shard.names) {
      if (map.get(name) === file) home.set(name, shard);
      else unexpected.push(`${name} in ${file}`);
    }
  }
  const missing = [...map].filter(([name]) => !home.has(name)).map(([name, file]) => `${name} in ${file}`);
  if (missing.length + unexpected.length > 0) {
    throw new FileError(
      `${indexPath} and its shards do not agree. ${listed("Missing", missing)}${
        listed("Not in the index", unexpected)
      }` +
        `Use the index and all shards of the same model.`,
    );
  }
  const shards = opened.move();
  const find = (name: string) => {
    const shard = home.get(name);
    if (shard === undefined) throw new FileError(`There is no tensor ${name} in the shards of ${indexPath}.`);
    return shard;
  };
  return {
    path: indexPath,
    names: [...map.keys()],
    entry: (name) => find(name).entry(name),
    read: (name, dtype, into) => find(name).read(name, dtype, into),
    [Symbol.dispose]: () => shards.dispose(),
  };
}

/** Tensor name → file name. A file name with a path in it is refused: an index must not reach outside its folder. */
function weightMap(indexPath: string): Map<string, string> {
  const map = readJsonObject(indexPath).weight_map;
  if (map === null || typeof map !== "object" || Array.isArray(map) || Object.keys(map).length === 0) {
    throw new FileError(`${indexPath} has no weight_map: restore it from the model's source.`);
  }
  for (const [name, file] of Object.entries(map)) {
    if (typeof file !== "string" || !/^[^/\\]+\.safetensors$/.test(file)) {
      throw new FileError(
        `${indexPath} puts ${name} into ${JSON.stringify(file)}, which is not a safetensors file beside it.`,
      );
    }
  }
  return new Map(Object.entries(map));
}
