import type { Aval } from "../core/aval.ts";

/** An array of the oracle: the numbers themselves (not their bits), in row-major order. */
export interface OracleTensor extends Aval {
  /** The elements. */
  readonly data: Float64Array;
  /** The words of a packed array, whose numbers `data` holds, and the terms that each number is the sum of. */
  readonly packed?: { readonly words: Uint32Array<ArrayBuffer>; readonly terms: Float64Array };
}
