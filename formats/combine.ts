/** Several adapters' files as one: weighted sums of their pairs, for which no base is needed. */
import { sameShape } from "../core/aval.ts";
import { FileError, OptionError } from "../core/errors.ts";
import { factorsOf, pairOf } from "../lora/compose/combine.ts";
import { checkSum, sumNames, type SumOptions, weightedSum } from "../lora/compose/sums.ts";
import { filesFromPairs, type ScaledPair, scaledPairs } from "./adapter_pairs.ts";
import { describeBase, fromMetadata } from "./base_record.ts";
import { type AdapterContents, type AdapterFiles, tensorsByKey } from "./peft/files.ts";
import { checkList, checkOptions } from "../core/options.ts";

/** One adapter of a combination, as files. */
export interface WeightedFiles {
  /** What {@link readAdapter} reads of it. */
  readonly files: AdapterFiles;
  /** How strongly it counts; may be negative. */
  readonly weight: number;
}

/** How files are combined. */
export interface CombineFilesOptions extends SumOptions {
  /** Combine adapters of bases that are not known to be the same. */
  readonly anyBase?: boolean;
  /** What the result names as its base; by default what the first names. */
  readonly baseModel?: string;
}

/**
 * The files of {@link combine}'s result.
 *
 * @throws {FileError} for an adapter of other values than pairs, or adapters that are not of one model
 * @throws {OptionError} for a way, or an option, that these adapters can't take
 */
export function combineFiles(
  adapters: readonly WeightedFiles[],
  way: string,
  options: CombineFilesOptions = {},
): AdapterContents {
  checkOptions("combineFiles", options, { ...sumNames, anyBase: true, baseModel: true });
  checkList("combineFiles", "adapters", adapters);
  const { anyBase = false, baseModel, ...summing } = options;
  checkSum(way, summing);
  const [{ files: first }] = adapters;
  if (!anyBase) { for (const { files } of adapters) refuseOtherBase(first, files); }
  const parts = new Map<string, { pair: ScaledPair; weight: number; path: string }[]>();
  for (const { files, weight } of adapters) {
    for (const pair of scaledPairs(files, { format: "a sum of pairs", magnitudes: false })) {
      const list = parts.get(pair.module) ?? [];
      parts.set(pair.module, [...list, { pair, weight, path: files.path }]);
    }
  }
  const all = [...parts.values()];
  const largest = Math.max(...all.flat().map(({ pair }) => pair.r));
  const pairs = all.map((list): ScaledPair => {
    const [{ pair: { module, embedding }, path }] = list;
    const other = list.find(({ pair }) => !sameShape(sidesOf(pair), sidesOf(list[0].pair)));
    if (other !== undefined) {
      throw new FileError(
        `${other.path} has ${module} as [${sidesOf(other.pair)}] and ${path} as [${sidesOf(list[0].pair)}]: ` +
          `only adapters of one model are combined.`,
      );
    }
    const factors = list.map(({ pair: { A, B, scaling }, weight }) => ({
      ...factorsOf(A, B),
      weight: weight * scaling,
    }));
    const { A, B } = pairOf(weightedSum(module, factors, way, { ...summing, largest }));
    return { module, embedding, A: A as ScaledPair["A"], B: B as ScaledPair["B"], r: A.shape[0], scaling: 1 };
  });
  const { raw, tensors, metadata } = filesFromPairs(first.path, pairs, {
    baseModel: baseModel ?? first.config.base_model_name_or_path,
    fanInFanOut: first.raw.fan_in_fan_out === true,
    metadata: first.metadata,
  });
  const { task_type = null } = first.raw;
  return { config: { ...raw, task_type }, tensors: tensorsByKey(tensors), metadata };
}

const sidesOf = ({ A, B }: ScaledPair) => [B.shape[0], A.shape[1]];

/** Adapters that record different bases are not of one model. */
function refuseOtherBase(one: AdapterFiles, other: AdapterFiles): void {
  const [a, b] = [one, other].map(({ metadata }) => fromMetadata(metadata));
  if (a === null || b === null || (a.sha256 === b.sha256 && a.quantization === b.quantization)) return;
  throw new OptionError(
    `${one.path} was trained on ${describeBase(a)}, and ${other.path} on ${describeBase(b)}: combine adapters of one ` +
      `base, or allow any base (anyBase: true, --any-base) if the two are meant to be the same`,
  );
}
