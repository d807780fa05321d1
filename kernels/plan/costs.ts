/**
 * What operations cost, as measured once and kept beside the emitters of each back end (`scalar.ts`), so that what is compiled never depends on a clock. Printed by
 * `deno run --allow-read --allow-env bench/operation_costs.ts [--without-fma | --webgpu]`.
 */
import type { ScalarOp } from "../../core/ops/elementwise.ts";

/** Nanoseconds of one thread of a processor, or of a whole adapter. */
export interface Costs {
  /** Of an element, in a kernel that does more than this. */
  readonly operations: Readonly<Record<ScalarOp, number>>;
  /** Of a word of random bits. */
  readonly random: number;
  /** Of a byte read from memory and of one written to it. */
  readonly read: number;
  readonly write: number;
  /** Of a launch of no work. */
  readonly launch: number;
}

/**
 * How many trips to memory and back a byte of the arena is worth: a rematerialised value may take so many
 * times as long as writing it and reading it once. On a CPU norms and activations take 2 to 5, a dropped-out copy
 * 10, a product 50, and a training step as a whole some 100 for each byte it holds.
 */
export const defaultTrips = 8;
