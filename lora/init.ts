import type { Leaf } from "../core/model.ts";
import { newInput } from "../core/ir/graph.ts";
import { normalAt, randomKey, threefry2x32, uniformAt } from "../core/random.ts";
import { type HostTensor, Tensor, upload } from "../core/tensor.ts";

/** The two trainable matrices of a module, f32: A [r, in] and B [out, r], for linears and embeddings alike. */
export interface LoraPair {
  readonly A: Leaf;
  readonly B: Leaf;
}

/**
 * The first values of an adapter, which change nothing: A uniform in ±1/√in (Kaiming's with a = √5) and B zero; for an
 * embedding A zero and B standard normal. They live where `weight` lives; for a placeholder they are placeholders.
 *
 * @param index which adapter of its model this is: each draws other numbers
 */
export function initialPair(
  weight: Leaf,
  sizes: { readonly r: number; readonly in: number; readonly out: number },
  kind: "linear" | "embedding",
  seed: number,
  index: number,
): LoraPair {
  const shapes = { A: [sizes.r, sizes.in], B: [sizes.out, sizes.r] };
  if (!(weight instanceof Tensor)) {
    const placeholder = (shape: readonly number[]) => newInput({ shape, dtype: "f32" });
    return { A: placeholder(shapes.A), B: placeholder(shapes.B) };
  }
  const [high, low] = randomKey(seed).data;
  const key = threefry2x32([high, low], [index, 1]);
  const bound = 1 / Math.sqrt(sizes.in);
  const make = ([rows, columns]: number[], at?: (i: number) => number): Tensor => {
    const data = new Float32Array(rows * columns);
    if (at) { for (let i = 0; i < data.length; i++) data[i] = at(i); }
    const host: HostTensor = { shape: [rows, columns], dtype: "f32", data };
    return upload(weight.home, host);
  };
  return kind === "linear"
    ? { A: make(shapes.A, (i) => (2 * uniformAt(key, i) - 1) * bound), B: make(shapes.B) }
    : { A: make(shapes.A), B: make(shapes.B, (i) => normalAt(key, i)) };
}
