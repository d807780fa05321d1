import type { Leaf } from "../core/model.ts";
import { newInput } from "../core/ir/graph.ts";
import { normalAt, randomKey, threefry2x32, uniformAt } from "../core/random.ts";
import { type HostTensor, Tensor, upload } from "../core/tensor.ts";
import type { LoraOptions } from "./options.ts";

/** How the first values are drawn: from what, and for which adapter of a model, so that each draws other numbers. */
export interface Draw {
  readonly init: NonNullable<LoraOptions["init"]>;
  readonly seed: number;
  readonly index: number;
}

/** What fills a matrix at a place, or null for zeros. */
type Fill = ((key: readonly [number, number], i: number) => number) | null;

/**
 * The first A [r, in] and B [out, r] of a module, f32. They live where `weight` lives; for a placeholder they are
 * placeholders. For what `init` means see {@link LoraOptions}; an embedding has A zero and B standard normal.
 */
export function initialPair(
  weight: Leaf,
  sizes: { readonly r: number; readonly in: number; readonly out: number },
  kind: "linear" | "embedding",
  { init, seed, index }: Draw,
): { A: Leaf; B: Leaf } {
  const shapes = { A: [sizes.r, sizes.in], B: [sizes.out, sizes.r] };
  if (!(weight instanceof Tensor)) {
    const placeholder = (shape: readonly number[]) => newInput({ shape, dtype: "f32" });
    return { A: placeholder(shapes.A), B: placeholder(shapes.B) };
  }
  const [high, low] = randomKey(seed).data;
  const uniform = (size: number): Fill => (key, i) => (2 * uniformAt(key, i) - 1) / Math.sqrt(size);
  const fills: Record<typeof kind, Record<`${typeof init}`, readonly [Fill, Fill]>> = {
    linear: {
      true: [uniform(sizes.in), null],
      gaussian: [(key, i) => normalAt(key, i) / sizes.r, null],
      false: [uniform(sizes.in), uniform(sizes.r)],
    },
    embedding: { true: [null, normalAt], gaussian: [null, normalAt], false: [normalAt, normalAt] },
  };
  const make = (shape: readonly number[], fill: Fill, which: number): Tensor => {
    const data = new Float32Array(shape[0] * shape[1]);
    const key = threefry2x32([high, low], [index, which]);
    if (fill !== null) { for (let i = 0; i < data.length; i++) data[i] = fill(key, i); }
    const host: HostTensor = { shape, dtype: "f32", data };
    return upload(weight.home, host);
  };
  const [a, b] = fills[kind][`${init}`];
  // One of the two is drawn under the same key whichever it is; where both are, they differ.
  return { A: make(shapes.A, a, 1), B: make(shapes.B, b, a === null ? 1 : 2) };
}
