/** Reference numbers on disk: a file of tensors, those of each data set under a hash of all that decides them. */
import { FileError } from "../core/errors.ts";
import type { HostTensor } from "../core/tensor.ts";
import { pathKind } from "../models/load/files/byte_source.ts";
import { openSafetensors, writeSafetensors } from "../models/load/safetensors/safetensors.ts";

/** Where reference numbers are kept. */
export interface ReferenceStore {
  /** Those that were kept under a key, by name; or undefined. */
  read(key: string): Record<string, Float32Array> | undefined;
  /** Keeps them, beside those of other keys. */
  write(key: string, columns: Readonly<Record<string, Float32Array>>): void;
}

/** The name of the file in a run's folder. */
export const referenceFile = "reference.safetensors";

/**
 * Reference numbers in a file, which is made when there are any. A file that is damaged is as none: the numbers can always be
 * computed again.
 *
 * @throws {FileError} when it can't be written
 */
export function referenceStore(path: string): ReferenceStore {
  const all = (): Map<string, HostTensor> => {
    if (pathKind(path) !== "file") return new Map();
    try {
      using source = openSafetensors(path);
      return new Map(source.names.map((name) => [name, source.read(name)]));
    } catch (error) {
      if (error instanceof FileError) return new Map();
      throw error;
    }
  };
  return {
    read(key) {
      const own = [...all()].filter(([name]) => name.startsWith(`${key}.`));
      if (own.length === 0) return undefined;
      return Object.fromEntries(own.map(([name, { data }]) => [name.slice(key.length + 1), data as Float32Array]));
    },
    write(key, columns) {
      const tensors = all();
      for (const [name, data] of Object.entries(columns)) {
        tensors.set(`${key}.${name}`, { shape: [data.length], dtype: "f32", data });
      }
      writeSafetensors(path, tensors);
    },
  };
}
