/** The greatest singular values of a matrix, on the host in float64. */
import { Matrix, QrDecomposition, SingularValueDecomposition } from "ml-matrix";
import { normalAt } from "../../core/random.ts";

/** M ≈ U·diag(s)·Vᵀ: U [rows, r], V [columns, r], s from the greatest down. */
export interface LowRank {
  readonly U: Matrix;
  readonly s: readonly number[];
  readonly V: Matrix;
}

/** The r greatest singular values and their vectors, all of them computed. */
export function truncatedSvd(matrix: Matrix, r: number): LowRank {
  const { leftSingularVectors, diagonal, rightSingularVectors } = new SingularValueDecomposition(matrix, {
    autoTranspose: true,
  });
  const first = (m: Matrix) => m.subMatrix(0, m.rows - 1, 0, r - 1);
  return { U: first(leftSingularVectors), s: diagonal.slice(0, r), V: first(rightSingularVectors) };
}

/**
 * The same, approximately, by `iterations` of the range of a random projection. Source: Halko, Martinsson and Tropp 2011,
 * "Finding structure with randomness", algorithms 4.4 and 5.1.
 */
export function randomSvd(matrix: Matrix, r: number, iterations: number, key: readonly [number, number]): LowRank {
  // A few more directions than are asked for make the last of them good.
  const width = Math.min(r + 8, matrix.rows, matrix.columns);
  const random = new Matrix(matrix.columns, width);
  for (let i = 0; i < random.rows; i++) {
    for (let j = 0; j < width; j++) random.set(i, j, normalAt(key, i * width + j));
  }
  const across = matrix.transpose();
  let basis = orthogonal(matrix.mmul(random));
  for (let i = 0; i < iterations; i++) basis = orthogonal(matrix.mmul(orthogonal(across.mmul(basis))));
  const { U, s, V } = truncatedSvd(basis.transpose().mmul(matrix), r);
  return { U: basis.mmul(U), s, V };
}

const orthogonal = (matrix: Matrix): Matrix => new QrDecomposition(matrix).orthogonalMatrix;
