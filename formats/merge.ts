/** Merging on a device, and the proof that it changed nothing but rounding. */
import { DataError } from "../core/errors.ts";
import type { Leaf } from "../core/model.ts";
import { convert, isFiniteValue, select } from "../core/ops/elementwise.ts";
import { reduceMax } from "../core/ops/reduce.ts";
import { randomKey } from "../core/random.ts";
import { type Operand, Tensor, upload } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { jit } from "../kernels/runtime/jit.ts";
import { read } from "../kernels/runtime/read.ts";
import type { Trainable, Tuned } from "../lora/mod.ts";
import { computed } from "./computed.ts";
import { checkMembers, checkOptions } from "../core/options.ts";

/** An adapted model, whatever it reads and returns. */
export type AnyTuned<P> = Pick<Tuned<P, unknown, unknown>, "merge" | "mergeErrors" | "frozen">;

/** How weights are merged. */
export interface MergeOptions {
  /** Where one use of a tied weight is adapted: give it a weight of its own (the default), or change both uses as PEFT does. */
  readonly tied?: "split" | "peft";
}

/**
 * The parameters with an adapter merged in: new tensors where a weight changed, the base's own everywhere else. Sums are f32
 * and rounded once to the dtype that a weight is held in. Packed weights become f32: the adapter belongs to the values of
 * their codes, and not to the weights before they were quantised.
 */
export function mergeParams<P>(tuned: AnyTuned<P>, trainable: Trainable, options: MergeOptions = {}): P {
  checkOptions("mergeParams", options, { tied: true });
  checkMembers("mergeParams", "an adapted model", tuned, ["merge", "frozen"]);
  return computed(tuned.merge(trainable, tuned.frozen, options));
}

/**
 * {@link mergeParams}, refused where a merged weight is not finite, as PEFT's `safe_merge`: an adapter that diverged, or a sum
 * that f16 can't hold.
 *
 * @throws {DataError} that names the weights
 */
export async function mergeSafely<P>(tuned: AnyTuned<P>, trainable: Trainable, options: MergeOptions = {}): Promise<P> {
  checkOptions("mergeSafely", options, { tied: true });
  checkMembers("mergeSafely", "an adapted model", tuned, ["merge", "frozen"]);
  const merged = mergeParams(tuned, trainable, options);
  const bad = await notFinite(merged, tuned.frozen);
  if (bad.length === 0) return merged;
  const own = new Set(flatten<Leaf>(tuned.frozen).leaves);
  for (const leaf of flatten<Leaf>(merged).leaves) if (leaf instanceof Tensor && !own.has(leaf)) leaf.dispose();
  throw new DataError(
    `the adapter is not merged: ${bad.slice(0, 12).join(", ")}${
      bad.length > 12 ? ` and ${bad.length - 12} more` : ""
    } ` +
      `would hold values that are not finite; use an earlier adapter, or a wider dtype`,
  );
}

/** Paths of the changed leaves that hold an infinity or a NaN. */
async function notFinite(merged: unknown, frozen: unknown): Promise<string[]> {
  const { leaves, paths } = flatten<Tensor>(merged);
  const own = new Set<unknown>(flatten<Leaf>(frozen).leaves);
  const changed = paths.filter((_, i) => !own.has(leaves[i]));
  const flags = jit((xs: Operand[]) => xs.map((x) => reduceMax(select(isFiniteValue(convert(x, "f32")), 0, 1))));
  const found = await read(flags(changed.map((path) => leaves[paths.indexOf(path)])), { release: true });
  return changed.filter((_, i) => found[i] !== 0);
}

/**
 * The parameters with a merged adapter taken out again, up to rounding.
 *
 * @param lost what `tuned.overwritten(trainable, frozen)` gave before merging, for adapters that have more than A and B
 * @throws {OptionError} when it is needed and missing
 */
export function unmergeParams<P>(
  tuned: Pick<Tuned<P, unknown, unknown>, "unmerge">,
  trainable: Trainable,
  merged: P,
  lost?: Parameters<Tuned<P, unknown, unknown>["unmerge"]>[2],
): P {
  checkMembers("unmergeParams", "an adapted model", tuned, ["unmerge"]);
  return computed(tuned.unmerge(trainable, merged, lost));
}

/** How far a merged layer is from the adapted one. */
export interface MergeCheck {
  /** The module. */
  readonly path: string;
  /** The greatest |adapted - merged| of any output in units of its rounding bound: at most 1 where merging is right. */
  readonly ratio: number;
  /** The greatest |adapted - merged|, and the greatest bound. */
  readonly difference: number;
  /** What rounding allows. */
  readonly bound: number;
}

/**
 * Feeds every adapted module the same random inputs, adapted and merged, and compares the outputs with the bound that
 * rounding allows ({@link Tuned.mergeErrors}).
 */
export async function checkMerge<P>(tuned: AnyTuned<P>, trainable: Trainable, merged: P): Promise<MergeCheck[]> {
  checkMembers("checkMerge", "an adapted model", tuned, ["mergeErrors", "frozen"]);
  const { home } = flatten<Tensor>(tuned.frozen).leaves[0];
  using key = upload(home, randomKey(0));
  const errors = jit((t: Trainable, frozen: P, merged: P, key: Operand) => tuned.mergeErrors(t, frozen, merged, key));
  const found = await read(errors(trainable, tuned.frozen, merged, key), {
    release: true,
  });
  return Object.entries(found).map(([path, errors]) => ({ path, ...errors }));
}
