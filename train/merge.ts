/** Merging on a device, and the proof that it changed nothing but rounding. */
import { Value } from "../core/ir/graph.ts";
import type { Leaf } from "../core/model.ts";
import { randomKey } from "../core/random.ts";
import { type Operand, type Tensor, upload } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { jit, read } from "../kernels/jit.ts";
import type { Trainable, Tuned } from "../lora/mod.ts";

/** An adapted model, whatever it reads and returns. */
type AnyTuned<P> = Pick<Tuned<P, any, any>, "merge" | "mergeErrors" | "frozen">;

/** The parameters with an adapter merged in: new tensors where a weight changed, the base's own everywhere else. */
export function mergeParams<P>(tuned: AnyTuned<P>, trainable: Trainable): P {
  const merged = flatten<Leaf>(tuned.merge(trainable, tuned.frozen));
  const changed = merged.leaves.filter((leaf) => leaf instanceof Value);
  const tensors: Tensor[] = jit(() => changed)();
  let i = 0;
  return merged.unflatten(merged.leaves.map((leaf) => leaf instanceof Value ? tensors[i++] : leaf)) as P;
}

/** How far a merged layer is from the adapted one. */
export interface MergeCheck {
  readonly path: string;
  /** The largest |adapted - merged| of any output, in units of its rounding bound: at most 1 where merging is right. */
  readonly ratio: number;
}

/**
 * Feeds every adapted module the same random inputs, adapted and merged, and compares the outputs with the bound that
 * rounding allows ({@link Tuned.mergeErrors}).
 */
export async function checkMerge<P>(tuned: AnyTuned<P>, trainable: Trainable, merged: P): Promise<MergeCheck[]> {
  const key = upload((Object.values(trainable)[0].A as Tensor).home, randomKey(0));
  const ratios = jit((t: Trainable, frozen: P, merged: P, key: Operand) => tuned.mergeErrors(t, frozen, merged, key));
  const found: Record<string, number> = await read(ratios(trainable, tuned.frozen, merged, key), { release: true });
  key.dispose();
  return Object.entries(found).map(([path, ratio]) => ({ path, ratio }));
}
