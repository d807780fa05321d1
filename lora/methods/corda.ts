/**
 * CorDA: LoRA that starts from a decomposition of its weights seen through the covariance of their inputs.
 * Source: Yang et al. 2024, "CorDA: Context-Oriented Decomposition Adaptation of Large Language Models".
 */
import { OptionError } from "../../core/errors.ts";
import type { SeenInputs } from "../follow/inputs.ts";
import { inverse, Matrix, SingularValueDecomposition } from "ml-matrix";
import type { Start } from "./method.ts";
import { pairLessened } from "./pissa.ts";

/** Which of the directions are trained: those that matter most to the data, or least, whose knowledge is kept. */
export type CordaMode = "ipm" | "kpm";

/** Adds what some inputs say to a covariance: XᵀX of each sequence, divided by its largest value. */
export function addCovariance(sum: Matrix, { rows, width, data, sequences }: SeenInputs): number {
  const parts = rows % sequences === 0 ? sequences : 1, each = rows / parts;
  for (let part = 0; part < parts; part++) {
    const own = data.subarray(part * each * width, (part + 1) * each * width);
    const most = Math.abs(own.reduce((a, b) => Math.max(a, b), -Infinity));
    const X = Matrix.from1DArray(each, width, Array.from(own, (x) => x / most));
    sum.add(X.transpose().mmul(X));
  }
  return parts;
}

/** A covariance made invertible by a share of its mean diagonal, and its inverse. */
function inverted(covariance: Matrix): { C: Matrix; inverse: Matrix } {
  const mean = covariance.diagonal().reduce((a, b) => a + b, 0) / covariance.rows;
  for (let damp = 0.01;; damp *= 2) {
    const C = Matrix.add(covariance, Matrix.eye(covariance.rows).mul(damp * mean));
    const back = inverse(C);
    const off = C.mmul(back).sub(Matrix.eye(C.rows)).norm();
    if (off < 0.05) return { C, inverse: back };
    if (!(damp < 1e6)) throw new OptionError("CorDA's covariance can't be inverted: give more data");
  }
}

/** @param covariances of the inputs of each module, by its path */
export function corda(covariances: ReadonlyMap<string, Matrix>, mode: CordaMode): Start {
  return {
    name: "corda",
    take: (weight, { path, match: { r, scaling } }) => {
      if (!(scaling > 0)) {
        throw new OptionError(`corda needs a scaling above 0 for "${path}", not ${scaling}: change alpha`);
      }
      const { C, inverse } = inverted(covariances.get(path)!);
      const svd = new SingularValueDecomposition(weight.mmul(C), { autoTranspose: true });
      const V = svd.rightSingularVectors.transpose().mmul(inverse), U = svd.leftSingularVectors, s = svd.diagonal;
      const least = Math.min(weight.rows, weight.columns);
      const at = Array.from({ length: r }, (_, k) => mode === "ipm" ? k : least - r + k);
      const root = at.map((k) => Math.sqrt(s[k] / scaling)), inputs = weight.columns;
      const A = Float32Array.from({ length: r * inputs }, (_, i) => {
        const k = Math.floor(i / inputs);
        return root[k] * V.get(at[k], i % inputs);
      });
      const B = Float32Array.from(
        { length: weight.rows * r },
        (_, i) => root[i % r] * U.get(Math.floor(i / r), at[i % r]),
      );
      return pairLessened(weight, { A, B, r, scaling });
    },
  };
}
