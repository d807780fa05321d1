import { formatAval } from "../../core/aval.ts";
import { fromBf16, fromF16, toBf16, toF16 } from "../../core/dtype.ts";
import { OptionError } from "../../core/errors.ts";
import type { Leaf, Model } from "../../core/model.ts";
import { randomKey, threefry2x32 } from "../../core/random.ts";
import type { Runtime } from "../../core/runtime.ts";
import { asValue } from "../../core/ops/constant.ts";
import { type HostTensor, Tensor, upload } from "../../core/tensor.ts";
import { flatten } from "../../core/tree.ts";
import { Matrix } from "ml-matrix";
import { normsOf, outputsOf } from "../follow/effect.ts";
import { lora, type Tuned, tunedOf } from "../lora.ts";
import type { AdapterEntry, LoraOptions } from "../options.ts";
import type { Adapted } from "../follow/plan.ts";
import { randomSvd, truncatedSvd } from "./svd.ts";

/** {@link lora}'s options but how to start, and how to find the singular vectors. */
export interface PissaOptions<P = unknown> extends Omit<LoraOptions<P>, "init"> {
  /**
   * Approximate the singular vectors in this many iterations, as PEFT's `pissa_niter_4` does in four. By default they are
   * exact, which takes seconds for each large weight.
   */
  readonly niter?: number;
}

/**
 * {@link lora} that starts from the principal singular values: B·A is the best approximation of W of rank r, and the frozen
 * weights are what is left of W. The function is the model's own at first; what trains is the part of W that matters most.
 * `frozen` has new leaves for the adapted weights, `model` keeps the old: {@link pissaToLora} turns what was trained into a
 * plain adapter of that model.
 *
 * Source: Meng, Wang and Zhang 2024, "PiSSA: Principal Singular Values and Singular Vectors Adaptation".
 *
 * @param runtime `{ read }`, which fetches the weights to the host
 * @throws {OptionError} for what `lora` refuses, and for a weight that has two names
 *
 * @example
 * ```ts
 * import { matmul, newInput, openDevice, type Operand, pissa, read, tensor } from "@lowrank/lowrank";
 *
 * using device = await openDevice("cpu");
 * const model = {
 *   params: { up: { weight: tensor(device, [[3, 0], [0, 1]]) } },
 *   sample: newInput({ shape: [1, 2], dtype: "f32" }),
 *   apply: (p: { up: { weight: Operand } }, x: Operand) => matmul(x, p.up.weight),
 * };
 * const tuned = await pissa(model, { read }, { r: 1, alpha: 1, targets: ["up"] });
 * console.log((await read(tuned.frozen)).up.weight.data); // 0, 0, 0, 1 but for rounding: the greatest is in A and B
 * ```
 */
export async function pissa<P, I, O>(
  model: Model<P, I, O>,
  { read }: Pick<Runtime, "read">,
  { niter, ...options }: PissaOptions<P>,
): Promise<Tuned<P, I, O>> {
  if (niter !== undefined && !(Number.isInteger(niter) && niter >= 0)) {
    throw new OptionError(`niter is ${niter}: it takes a whole number of iterations, or nothing for exact values`);
  }
  const plain = lora(model, { ...options, init: true });
  const flat = flatten<Leaf>(model.params);
  const entries: Record<string, AdapterEntry> = { ...plain.trainable };
  const frozen = [...flat.leaves];
  const linear = plain.plan.adapted.filter((m) => m.kind === "linear");
  for (const m of linear) if (m.only !== null) throw twoNames(m);
  for (const [leaf, modules] of Map.groupBy(linear, (m) => m.leaf)) {
    const weight = flat.leaves[leaf];
    if (!(weight instanceof Tensor)) {
      throw new OptionError(`pissa needs the values of "${modules[0].leafPath}", which is only a placeholder`);
    }
    const host: HostTensor = await read(weight);
    const values = toMatrix(host);
    for (const [i, m] of modules.entries()) {
      const [high, low] = randomKey(options.seed ?? 0).data;
      const key = threefry2x32([high, low], [leaf, 3 + i]);
      const { A, B } = principal(
        values,
        m,
        (w, r) => niter === undefined ? truncatedSvd(w, r) : randomSvd(w, r, niter, key),
      );
      for (const old of [entries[m.path].A, entries[m.path].B]) if (old instanceof Tensor) old.dispose();
      entries[m.path] = { ...entries[m.path], A: upload(weight.home, A), B: upload(weight.home, B) };
    }
    frozen[leaf] = upload(weight.home, fromMatrix(values, host));
  }
  for (const m of plain.plan.adapted.filter((m) => m.match.dora)) {
    const { A, B } = entries[m.path];
    entries[m.path] = { ...entries[m.path], magnitude: normsOf(m, { A, B }, asValue(frozen[m.leaf])) };
  }
  return tunedOf(model, plain.plan, entries, flat.unflatten(frozen) as P);
}

function twoNames({ path, leafPath }: Adapted): OptionError {
  return new OptionError(
    `pissa can't adapt "${path}": what is left of ${leafPath} would be left for its other use too; leave it out of targets`,
  );
}

/** A and B of a module's outputs as f32, and its weight less what they make, in place. */
function principal(
  values: Matrix,
  m: Adapted,
  decompose: (weight: Matrix, r: number) => { U: Matrix; s: readonly number[]; V: Matrix },
): { A: HostTensor; B: HostTensor } {
  const { start, end } = outputsOf(m);
  const { r, scaling } = m.match;
  if (!(scaling > 0)) {
    throw new OptionError(`pissa needs a scaling above 0 for "${m.path}", not ${scaling}: change alpha`);
  }
  const [inputs, outputs] = [m.match.shape[m.inAxis], end - start];
  const at = (out: number, input: number): [number, number] =>
    m.inAxis === 0 ? [input, start + out] : [start + out, input];
  const weight = new Matrix(outputs, inputs);
  for (let o = 0; o < outputs; o++) for (let i = 0; i < inputs; i++) weight.set(o, i, values.get(...at(o, i)));
  const { U, s, V } = decompose(weight, r);
  const A = new Float32Array(r * inputs), B = new Float32Array(outputs * r);
  for (let k = 0; k < r; k++) {
    const root = Math.sqrt(s[k] / scaling);
    for (let i = 0; i < inputs; i++) A[k * inputs + i] = root * V.get(i, k);
    for (let o = 0; o < outputs; o++) B[o * r + k] = root * U.get(o, k);
  }
  for (let o = 0; o < outputs; o++) {
    for (let i = 0; i < inputs; i++) {
      let sum = 0;
      for (let k = 0; k < r; k++) sum += B[o * r + k] * A[k * inputs + i];
      values.set(...at(o, i), weight.get(o, i) - scaling * sum);
    }
  }
  return {
    A: { shape: [r, inputs], dtype: "f32", data: A },
    B: { shape: [outputs, r], dtype: "f32", data: B },
  };
}

const decoders = { f32: Number, f16: fromF16, bf16: fromBf16 } as const;
const encoders = { f32: Number, f16: toF16, bf16: toBf16 } as const;

function toMatrix(host: HostTensor): Matrix {
  if (!Object.hasOwn(decoders, host.dtype)) {
    throw new OptionError(
      `pissa starts from weights of floats, and one is ${formatAval(host)}: load the model unpacked`,
    );
  }
  const decode = decoders[host.dtype as keyof typeof decoders];
  return Matrix.from1DArray(host.shape[0], host.shape[1], Array.from(host.data, (x) => decode(x)));
}

/** A matrix in the dtype and shape of a host array. */
function fromMatrix(values: Matrix, { shape, dtype, data }: HostTensor): HostTensor {
  const encode = encoders[dtype as keyof typeof encoders];
  const stored = data.slice();
  for (let i = 0; i < stored.length; i++) stored[i] = encode(values.get(Math.floor(i / shape[1]), i % shape[1]));
  return { shape, dtype, data: stored };
}
