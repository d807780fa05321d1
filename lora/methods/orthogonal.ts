/** A and B that are both drawn and yet change nothing: their ranks lie in orthogonal halves of one space. */
import { OptionError } from "../../core/errors.ts";
import { normalAt, threefry2x32 } from "../../core/random.ts";
import { Matrix, QrDecomposition } from "ml-matrix";

/**
 * A = (N₁·Q₁)ᵀ/10 and B = N₂ᵀ·Q₂/10 with Q₁ and Q₂ the odd and even rows of a random orthogonal [r, r], so that B·A = 0.
 *
 * @throws {OptionError} for an odd rank
 */
export function orthogonalPair(
  { r, in: inputs, out, path }: {
    readonly r: number;
    readonly in: number;
    readonly out: number;
    readonly path: string;
  },
  key: readonly [number, number],
): { A: Float32Array; B: Float32Array } {
  if (r % 2 !== 0) throw new OptionError(`init "orthogonal" needs an even rank, and "${path}" has ${r}`);
  const half = r / 2;
  const drawn = (which: number, rows: number, columns: number) => {
    const own = threefry2x32(key, [which, 0]);
    return Matrix.from1DArray(rows, columns, Array.from({ length: rows * columns }, (_, i) => normalAt(own, i)));
  };
  const Q = new QrDecomposition(drawn(0, r, r)).orthogonalMatrix;
  const every = (first: number) => new Matrix(Array.from({ length: half }, (_, i) => Q.getRow(2 * i + first)));
  const A = drawn(1, inputs, half).mmul(every(0)).transpose(), B = drawn(2, out, half).mmul(every(1));
  return { A: Float32Array.from(A.to1DArray(), (x) => x / 10), B: Float32Array.from(B.to1DArray(), (x) => x / 10) };
}
