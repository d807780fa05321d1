/** A model of which only names and shapes are read: what is known of it without its weights. */
import type { TensorHome } from "../core/tensor.ts";
import { openModel } from "../models/load/place.ts";
import { anyLoader } from "../models/load/load_model.ts";
import { type AnyModel, architectures } from "../models/mod.ts";

/** A device that keeps nothing. */
export const nowhere: TensorHome = { description: "nowhere", allocate: () => null, write: () => {}, free: () => {} };

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
export async function outlineAnyModel(path: string): Promise<{ model: AnyModel; weights: StoredWeight[] }> {
  const files = await openModel(path, architectures, {});
  const weights = files.source.names.map((name) => ({ name, ...files.source.entry(name) }));
  using opened = anyLoader(files.config).outline(files, { device: nowhere });
  return { model: opened.outline, weights };
}
