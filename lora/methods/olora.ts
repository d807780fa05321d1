/** OLoRA: LoRA that starts from a QR decomposition of its weights. Source: Büyükakyüz 2024, "OLoRA: Orthonormal Low-Rank Adaptation". */
import { QrDecomposition } from "ml-matrix";
import type { Start } from "./method.ts";
import { pairLessened } from "./pissa.ts";

/** B is the first r columns of Q, A the first r rows of R: what W is in the directions of its own first r inputs. */
export const olora: Start = {
  name: "olora",
  take: (weight, { match: { r, scaling } }) => {
    const [outputs, inputs] = [weight.rows, weight.columns];
    const Q = new QrDecomposition(weight.subMatrix(0, outputs - 1, 0, r - 1)).orthogonalMatrix;
    const R = Q.transpose().mmul(weight);
    const A = Float32Array.from({ length: r * inputs }, (_, i) => R.get(Math.floor(i / inputs), i % inputs));
    const B = Float32Array.from({ length: outputs * r }, (_, i) => Q.get(Math.floor(i / r), i % r));
    return pairLessened(weight, { A, B, r, scaling });
  },
};
