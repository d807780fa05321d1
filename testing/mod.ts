/**
 * For the tests of a program that uses lowrank: gradients against numeric ones, adapters against merged weights. All of it
 * is computed in float64 by plain loops, so it shows faults of the mathematics and not of rounding, and needs no device.
 *
 * @module
 */
export { assertAllClose, type CloseOptions, type Contents } from "./all_close.ts";
export { checkGrads, type CheckGradsOptions } from "./check_grads.ts";
export { assertMergeEquivalent, type MergeOptions } from "./merge_equivalent.ts";
export { type OracleTensor, oracleTensor } from "./oracle.ts";
