/** Quantising parameters that are on a device. */
import { formatAval, sizeOf } from "../../core/aval.ts";
import { isFloat } from "../../core/dtype.ts";
import { OptionError } from "../../core/errors.ts";
import { nearest } from "../../core/host/nearest.ts";
import { asNumbers } from "../../core/ops/quantize.ts";
import { convert } from "../../core/ops/elementwise.ts";
import { isPacked, packedFormats, type PackedType } from "../../core/packed/blocks.ts";
import { type EncodedType, encodedTypes, encodePacked } from "../../core/packed/encode.ts";
import { type HostTensor, type Operand, Tensor, upload } from "../../core/tensor.ts";
import { flatten } from "../../core/tree.ts";
import { jit } from "./jit.ts";
import { read } from "./read.ts";
import { checkOptions, type OptionNames } from "../../core/options.ts";

/** What parameters are quantised to, and which are not. */
export interface QuantizeOptions {
  /** `nf4` is QLoRA's, its scales quantised too (4.13 bits a weight); `q8_0`, `q4_0` and `q4_1` are GGUF's. */
  readonly type: EncodedType;
  /**
   * Weights that stay as they are: a path, or what it ends or begins with at a dot (`lm_head`, `embed_tokens`). Vectors
   * always stay. QLoRA leaves the embedding and the head.
   */
  readonly skip?: readonly string[];
  /** Whether each weight is freed once its packed form exists, so that never two whole models are held. */
  readonly release?: boolean;
}

const quantizeOptions: OptionNames<QuantizeOptions> = { type: true, skip: true, release: true };

/**
 * The same tree with its matrices quantised: packed tensors on the same device, which models take like any others. The
 * tree that is given stays as it is, unless `release` ends the tensors that were replaced.
 *
 * @throws {OptionError} for a type that can't be made, an entry of `skip` that matches nothing, or a matrix whose rows are no
 * whole blocks of the type
 *
 * @example
 * ```ts
 * import { evaluate, matmul, openDevice, quantize, tensor } from "@lowrank/lowrank";
 *
 * using device = await openDevice("cpu");
 * const weight = tensor(device, Array.from({ length: 2 }, (_, r) => Array.from({ length: 64 }, (_, c) => Math.sin(r + c))));
 * const packed = await quantize({ weight }, { type: "q8_0" });
 * console.log(packed.weight.dtype); // q8_0
 * console.log(await evaluate(matmul(weight, packed.weight, { transposeB: true }))); // near weight · weightᵀ
 * ```
 */
export async function quantize<P>(params: P, options: QuantizeOptions): Promise<P> {
  checkOptions("quantize", options, quantizeOptions);
  const { type, skip = [], release = false } = options;
  if (!encodedTypes.includes(type)) {
    const near = nearest(String(type), encodedTypes);
    throw new OptionError(
      `can't quantize to "${type}"${near === null ? "" : ` (did you mean ${near}?)`}: choose ${
        encodedTypes.join(", ")
      }`,
    );
  }
  const { leaves, paths, unflatten } = flatten<Tensor>(params);
  for (const entry of skip) {
    if (paths.some((path) => matches(path, entry))) continue;
    const near = nearest(entry, new Set(paths.flatMap((path) => path.split("."))));
    throw new OptionError(`skip: "${entry}" matches no weight${near === null ? "" : `: did you mean "${near}"?`}`);
  }
  const chosen = leaves.map((leaf, i) =>
    leaf instanceof Tensor && leaf.shape.length >= 2 && (isFloat(leaf.dtype) || isPacked(leaf.dtype)) &&
    leaf.dtype !== type && !skip.some((entry) => matches(paths[i], entry))
  );
  const { block } = packedFormats[type];
  leaves.forEach((leaf, i) => {
    // NF4 numbers its blocks along the whole array, the others along each row.
    if (!chosen[i] || type === "nf4" || leaf.shape.at(-1)! % block === 0) return;
    throw new OptionError(
      `${paths[i]} is ${formatAval(leaf.aval)}, and rows of ${
        leaf.shape.at(-1)
      } are no whole blocks of ${block} values of ` +
        `${type}: skip it, or quantize to nf4`,
    );
  });
  const widen = jit((x: Operand) => convert(asNumbers(x), "f32"));
  const packed: Tensor[] = [];
  for (const [i, leaf] of leaves.entries()) {
    if (!chosen[i]) {
      packed.push(leaf);
      continue;
    }
    const plain = leaf.dtype === "f32";
    const { data } = await read(plain ? leaf : widen(leaf), { release: !plain }) as HostTensor;
    packed.push(upload(leaf.home, { shape: leaf.shape, dtype: type, data: encodePacked(type, data as Float32Array) }));
    if (release) leaf.dispose();
  }
  return unflatten(packed) as P;
}

/** Whether an entry is a path, or what one begins or ends with at a dot, with or without its last name. */
function matches(path: string, entry: string): boolean {
  return `.${path}.`.includes(`.${entry}.`);
}

/** How many values of a tree are held in each packed type, or null where none is. */
export function describeQuantization(params: unknown): Partial<Record<PackedType, number>> | null {
  const counts: Partial<Record<PackedType, number>> = {};
  for (const leaf of flatten<Tensor>(params).leaves) {
    if (leaf instanceof Tensor && isPacked(leaf.dtype)) {
      counts[leaf.dtype] = (counts[leaf.dtype] ?? 0) + sizeOf(leaf.shape);
    }
  }
  return Object.keys(counts).length === 0 ? null : counts;
}
