/** Adapters whose first values are taken out of the weights: these are waited for, and what is left of them is frozen. */
import { formatAval } from "../core/aval.ts";
import { fromBf16, fromF16, toBf16, toF16 } from "../core/dtype.ts";
import { OptionError } from "../core/errors.ts";
import type { Leaf, Model } from "../core/model.ts";
import { randomKey, threefry2x32 } from "../core/random.ts";
import { type HostTensor, readTensors, Tensor, upload } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { Matrix } from "ml-matrix";
import { optionsOf } from "./check_options.ts";
import { outputsOf } from "./follow/effect.ts";
import { tune, type Tuned, tunedOf } from "./lora.ts";
import { chosenBy, familyOf, methods } from "./methods/mod.ts";
import type { Adapted, Method, Start } from "./methods/method.ts";
import type { AdapterEntry, LoraOptions } from "./options.ts";
import { principal } from "./methods/pissa.ts";
import { checkObject } from "../core/options.ts";

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
 * const tuned = await pissa(model, { r: 1, alpha: 1, targets: ["up"] });
 * console.log(await read(tuned.frozen)); // 0, 0, 0, 1 but for rounding: the greatest is in A and B
 * ```
 */
export async function pissa<P, I, O>(
  model: Model<P, I, O>,
  given: PissaOptions<P>,
): Promise<Tuned<P, I, O>> {
  checkObject("pissa", given, optionsOf(methods.pissa));
  const { niter, ...options } = given;
  if (niter !== undefined && !(Number.isInteger(niter) && niter >= 0)) {
    throw new OptionError(`niter is ${niter}: it takes a whole number of iterations, or nothing for exact values`);
  }
  const method = { ...chosenBy(familyOf(methods.pissa), options), name: "pissa", start: principal(niter) };
  return await tuneFromWeights(model, method, { ...options, init: true });
}

/** {@link tune} by a method that has a `start`. */
export async function tuneFromWeights<P, I, O>(
  model: Model<P, I, O>,
  method: Method<Adapted> & { readonly start: Start },
  options: LoraOptions<P>,
): Promise<Tuned<P, I, O>> {
  const { start } = method;
  const plain = tune(model, method, options);
  const flat = flatten<Leaf>(model.params);
  const entries: Record<string, AdapterEntry> = { ...plain.trainable };
  const frozen = [...flat.leaves];
  const linear = plain.plan.adapted.filter((m) => m.kind === "linear");
  const shared = linear.find((m) => m.only !== null);
  if (shared !== undefined) {
    throw new OptionError(
      `${start.name} can't adapt "${shared.path}": what is left of ${shared.leafPath} would be left for its other use too; ` +
        `leave it out of targets`,
    );
  }
  for (const [leaf, modules] of Map.groupBy(linear, (m) => m.leaf)) {
    const weight = flat.leaves[leaf];
    if (!(weight instanceof Tensor)) {
      throw new OptionError(`${start.name} needs the values of "${modules[0].leafPath}", which is only a placeholder`);
    }
    const [host] = await readTensors([weight]);
    const values = toMatrix(host, start.name);
    for (const [i, m] of modules.entries()) {
      const [high, low] = randomKey(options.seed ?? 0).data;
      const own = window(values, m);
      const taken = start.take(own.matrix, m, threefry2x32([high, low], [leaf, 3 + i]));
      own.putBack();
      for (const [name, tensor] of Object.entries(taken)) {
        const old = entries[m.path][name];
        if (old instanceof Tensor) old.dispose();
        entries[m.path] = { ...entries[m.path], [name]: upload(weight.home, tensor) };
      }
    }
    frozen[leaf] = upload(weight.home, fromMatrix(values, host));
  }
  for (const m of plain.plan.adapted) {
    const derived = m.method.derived?.(m, entries[m.path], frozen[m.leaf]);
    entries[m.path] = { ...entries[m.path], ...derived };
  }
  return tunedOf(model, plain.plan, entries, flat.unflatten(frozen) as P);
}

/** The outputs of a weight that a module adapts, as [out, in]. */
function window(values: Matrix, m: Adapted): { matrix: Matrix; putBack(): void } {
  const { start, end } = outputsOf(m), inputs = m.aval.shape[m.inAxis];
  const at = (out: number, input: number): [number, number] =>
    m.inAxis === 0 ? [input, start + out] : [start + out, input];
  const matrix = new Matrix(end - start, inputs);
  const each = (f: (out: number, input: number) => void) => {
    for (let o = 0; o < end - start; o++) for (let i = 0; i < inputs; i++) f(o, i);
  };
  each((o, i) => matrix.set(o, i, values.get(...at(o, i))));
  return { matrix, putBack: () => each((o, i) => values.set(...at(o, i), matrix.get(o, i))) };
}

const decoders = { f32: Number, f16: fromF16, bf16: fromBf16 } as const;
const encoders = { f32: Number, f16: toF16, bf16: toBf16 } as const;

function toMatrix(host: HostTensor, by: string): Matrix {
  if (!Object.hasOwn(decoders, host.dtype)) {
    throw new OptionError(
      `${by} starts from weights of floats, and one is ${formatAval(host)}: load the model unpacked`,
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
