/**
 * PiSSA: LoRA that starts from the principal singular values of its weights.
 * Source: Meng, Wang and Zhang 2024, "PiSSA: Principal Singular Values and Singular Vectors Adaptation".
 */
import { OptionError } from "../../core/errors.ts";
import type { HostTensor } from "../../core/tensor.ts";
import type { Matrix } from "ml-matrix";
import { method as lora } from "./lora.ts";
import type { LoraOptions } from "../options.ts";
import type { Adapted, Method, Start } from "./method.ts";
import { randomSvd, truncatedSvd } from "./svd.ts";

/** B·A as the best approximation of W of its rank; exact, or in so many iterations. */
export function principal(niter?: number): Start {
  return {
    name: "pissa",
    take: (weight, { path, match: { r, scaling } }, key) => {
      if (!(scaling > 0)) {
        throw new OptionError(`pissa needs a scaling above 0 for "${path}", not ${scaling}: change alpha`);
      }
      const { U, s, V } = niter === undefined ? truncatedSvd(weight, r) : randomSvd(weight, r, niter, key);
      const [outputs, inputs] = [weight.rows, weight.columns];
      const A = new Float32Array(r * inputs), B = new Float32Array(outputs * r);
      for (let k = 0; k < r; k++) {
        const root = Math.sqrt(s[k] / scaling);
        for (let i = 0; i < inputs; i++) A[k * inputs + i] = root * V.get(i, k);
        for (let o = 0; o < outputs; o++) B[o * r + k] = root * U.get(o, k);
      }
      return pairLessened(weight, { A, B, r, scaling });
    },
  };
}

/** A pair, and its change taken from the weight. */
export function pairLessened(
  weight: Matrix,
  { A, B, r, scaling }: { A: Float32Array; B: Float32Array; r: number; scaling: number },
): { A: HostTensor; B: HostTensor } {
  const [outputs, inputs] = [weight.rows, weight.columns];
  for (let o = 0; o < outputs; o++) {
    for (let i = 0; i < inputs; i++) {
      let sum = 0;
      for (let k = 0; k < r; k++) sum += B[o * r + k] * A[k * inputs + i];
      weight.set(o, i, weight.get(o, i) - scaling * sum);
    }
  }
  return {
    A: { shape: [r, inputs], dtype: "f32", data: A },
    B: { shape: [outputs, r], dtype: "f32", data: B },
  };
}

export const method: Method<Adapted, LoraOptions<any>> = { ...lora, name: "pissa", start: principal() };
