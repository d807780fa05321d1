import type { Aval } from "../../core/aval.ts";

/** An array of the oracle: the numbers themselves (not their bits), in row-major order. */
export interface OracleTensor extends Aval {
  readonly data: Float64Array;
}
