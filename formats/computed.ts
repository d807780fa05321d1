import { Value } from "../core/ir/graph.ts";
import type { Leaf } from "../core/model.ts";
import type { Tensor } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { jit } from "../kernels/runtime/jit.ts";

/** A tree whose values are computed, by one program; tensors stay the objects that they are. */
export function computed<P>(tree: P): P {
  const flat = flatten<Leaf>(tree);
  const values = flat.leaves.filter((leaf) => leaf instanceof Value);
  if (values.length === 0) return tree;
  const tensors: Tensor[] = jit(() => values)();
  let i = 0;
  return flat.unflatten(flat.leaves.map((leaf) => leaf instanceof Value ? tensors[i++] : leaf)) as P;
}
