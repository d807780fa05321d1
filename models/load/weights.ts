import { type Aval, formatAval, sameShape, sizeOf } from "../../core/aval.ts";
import { byteSize, type DType, type HostArray, hostArray, isFloat } from "../../core/dtype.ts";
import type { PackedType } from "../../core/packed/blocks.ts";
import type { HostTensor } from "../../core/tensor.ts";
import { FileError } from "../../core/errors.ts";
import { variantsOf } from "../families/family.ts";
import { families } from "../families/mod.ts";

/** A weight file's description of one tensor. */
export interface WeightEntry extends Aval {
  /** What `read` returns when it is asked for no dtype: the stored one where there is such a {@link DType}. */
  readonly dtype: DType;
  /** The type in the file, as the format spells it: `F32`, `BF16`, `Q4_1`. */
  readonly stored: string;
  /** Bytes in the file. */
  readonly bytes: number;
  /** The packed type that `read` gives it in where it is asked for that: the same codes and scales. */
  readonly packed?: PackedType;
}

/** The weights of a model, whatever file format holds them. Only names and shapes are in memory until `read`. */
export interface WeightSource extends Disposable {
  /** The file or folder, for error sentences. */
  readonly path: string;
  readonly names: readonly string[];
  /** Throws a {@link FileError} when there is no such tensor. */
  entry(name: string): WeightEntry;
  /**
   * Reads one tensor, converted to `dtype` (default: `entry(name).dtype`), into `into` when that is given (its length must be
   * the tensor's size). Values are rounded once, to nearest; the scratch is about a megabyte whatever the size.
   */
  read(name: string, dtype?: DType, into?: HostArray): HostTensor;
}

/** Prefixes that a task class puts before the same weights; a file may have one, none or another. */
const prefixes = [...new Set(families.flatMap((family) => variantsOf(family).map(({ prefix }) => prefix)))]
  .filter((prefix) => prefix !== "");

/**
 * The spelling under which `name` is known: itself, with a wrapper's prefix (`transformer.`, `model.`, `bert.`) added, taken
 * off or exchanged; or null. Files of one model differ in that prefix by the class that saved them.
 */
export function matchName(name: string, known: { has(name: string): boolean }): string | null {
  if (known.has(name)) return name;
  const bare = prefixes.filter((p) => name.startsWith(p)).map((p) => name.slice(p.length));
  for (const stem of [name, ...bare]) {
    for (const candidate of [stem, ...prefixes.map((p) => p + stem)]) if (known.has(candidate)) return candidate;
  }
  return null;
}

/**
 * Finds every expected weight in the source, whatever prefix the file uses. Returns expected name → the file's name.
 * Missing, wrong-shape, wrong-type and unexpected weights are listed together in one {@link FileError}; a weight of the file that
 * matches one of `ignore` (masks and other buffers that are no parameters) may be left over.
 */
export function checkWeights(
  expected: ReadonlyMap<string, readonly number[]>,
  source: WeightSource,
  ignore: readonly RegExp[] = [],
): Map<string, string> {
  const known = new Set(source.names);
  const found = new Map<string, string>();
  const missing: string[] = [], wrong: string[] = [], other: string[] = [];
  for (const [name, shape] of expected) {
    const stored = matchName(name, known);
    if (stored === null) {
      missing.push(name);
      continue;
    }
    found.set(name, stored);
    const entry = source.entry(stored);
    if (!isFloat(entry.dtype)) other.push(`${stored} is ${entry.stored}`);
    else if (!sameShape(entry.shape, shape)) wrong.push(`${stored} is [${entry.shape}], expected [${shape}]`);
  }
  const used = new Set(found.values());
  const unexpected = source.names.filter((name) => !used.has(name) && !ignore.some((pattern) => pattern.test(name)));
  if (missing.length + wrong.length + other.length + unexpected.length > 0) {
    throw new FileError(
      `The weights in ${source.path} do not fit its configuration. ` +
        `${listed("Missing", missing)}${listed("Of the wrong shape", wrong)}` +
        `${listed("Not of a float type that is read", other)}${listed("Unexpected", unexpected)}` +
        `Use the weights and config.json of the same model.`,
    );
  }
  return found;
}

/** The same weights under other names. Disposing of it closes the source. */
export function renameWeights(source: WeightSource, rename: (name: string) => string): WeightSource {
  const own = new Map(source.names.map((name) => [rename(name), name]));
  return {
    path: source.path,
    names: [...own.keys()],
    entry: (name) => source.entry(own.get(name) ?? name),
    read: (name, dtype, into) => source.read(own.get(name) ?? name, dtype, into),
    [Symbol.dispose]: () => source[Symbol.dispose](),
  };
}

/** `Missing (3): a, b, c. ` — at most twelve by name, nothing when the list is empty. */
export function listed(what: string, names: readonly string[]): string {
  if (names.length === 0) return "";
  const more = names.length > 12 ? `, and ${names.length - 12} more` : "";
  return `${what} (${names.length}): ${names.slice(0, 12).join(", ")}${more}. `;
}

/** The array that a read fills: `into` when it fits, else a new one. */
export function destination(
  path: string,
  name: string,
  aval: Aval,
  into: HostArray | undefined,
): HostArray {
  const size = sizeOf(aval.shape);
  if (into === undefined) return hostArray(aval.dtype, size);
  if (into.length !== size || into.BYTES_PER_ELEMENT !== byteSize[aval.dtype]) {
    throw new FileError(
      `Cannot read ${name} of ${path}, ${formatAval(aval)}, into an array of ${into.length} elements of ` +
        `${into.BYTES_PER_ELEMENT} bytes.`,
    );
  }
  return into;
}
