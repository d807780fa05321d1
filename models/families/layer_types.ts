/** Which layers look back how far, as configurations say it. */
import { FileError } from "../../core/errors.ts";
import type { ModelConfig } from "../load/config.ts";

/** The kinds of attention that are built, as `layer_types` names them. */
export const [full, sliding] = ["full_attention", "sliding_attention"];

/**
 * The kind of each layer, where the file says it.
 *
 * @param kinds those that the architecture has
 */
export function layerTypes(
  config: ModelConfig,
  layers: number,
  kinds: readonly string[] = [full, sliding],
): readonly string[] | null {
  const types = config.raw.layer_types ?? null;
  if (types === null) return null;
  const other = Array.isArray(types) ? types.find((type) => !kinds.includes(type)) : types;
  if (other !== undefined) {
    throw new FileError(
      `${config.path} asks for layer_types of ${JSON.stringify(other)}; supported: ${kinds.join(", ")}.`,
    );
  }
  const named = types as readonly string[];
  if (named.length === layers) return named;
  throw new FileError(`${config.path} names ${named.length} layer_types for ${layers} layers: download it again.`);
}

/** The window of layers that have one: null where the file says so, `absent` where it says nothing. */
export function windowOf(config: ModelConfig, absent: number | null): number | null {
  const { sliding_window: window = absent } = config.raw;
  return window === null ? null : config.integer("sliding_window", absent ?? undefined);
}

/** The windows of layers by their kinds. */
export const windowsOf = (types: readonly string[], window: number | null): readonly (number | null)[] =>
  types.map((type) => type === sliding ? window : null);
