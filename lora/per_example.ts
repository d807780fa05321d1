/** A batch whose rows use different adapters: the base is computed once for all. */
import { formatAval } from "../core/aval.ts";
import { OptionError, ShapeError } from "../core/errors.ts";
import type { Leaf } from "../core/model.ts";
import type { Value } from "../core/ir/graph.ts";
import { reshape } from "../core/ops/broadcast.ts";
import { asValue } from "../core/ops/constant.ts";
import { gather } from "../core/ops/indexing.ts";
import { randomBits } from "../core/ops/random.ts";
import { concat } from "../core/ops/structure.ts";
import type { Operand } from "../core/tensor.ts";
import { vmap } from "../core/transforms/vmap.ts";
import { flatten, mapTree } from "../core/tree.ts";
import type { Tuned } from "./lora.ts";
import type { Trainable } from "./options.ts";
import { checkList, checkOptions, type OptionNames } from "../core/options.ts";

/**
 * Adapters of one kind (what one `lora` gave, with different values) as one tree with a new axis 0: each leaf is
 * [adapters, …]. Zeros in every B stand for the base itself.
 */
export function stackAdapters(adapters: readonly Trainable[]): Trainable {
  checkList("stackAdapters", "adapters", adapters);
  if (adapters.length === 0) throw new OptionError("stackAdapters needs at least one adapter");
  const flat = adapters.map((adapter) => flatten<Leaf>(adapter));
  const stacked = flat[0].leaves.map((_, i) =>
    concat(flat.map(({ leaves }) => reshape(leaves[i], [1, ...leaves[i].shape])), 0)
  );
  return flat[0].unflatten(stacked) as Trainable;
}

/** A batch, and which adapter each of its rows uses. */
export interface PerExampleOptions<P, I> {
  /** What {@link stackAdapters} gives. */
  readonly adapters: Trainable;
  /** The base. */
  readonly frozen: P;
  /** A tree whose leaves all begin with the batch's axis [rows, …]; so do the outputs. */
  readonly inputs: I;
  /** i32[rows]. */
  readonly adapterOf: Operand;
  /** u32[2], for dropout. */
  readonly key?: Operand;
}

const perExampleOptions: OptionNames<PerExampleOptions<unknown, unknown>> = {
  ...{ adapters: true, frozen: true, inputs: true, adapterOf: true, key: true },
};

/**
 * The adapted function where row i of the batch uses adapter `adapterOf[i]`: one product with each weight of the base serves
 * all rows. A gradient with respect to `adapters` is that of each adapter by its own rows.
 *
 * @throws {ShapeError} when the inputs do not have as many rows as `adapterOf` names
 */
export function applyPerExample<P, I, O>(
  tuned: Pick<Tuned<P, I, O>, "apply">,
  options: PerExampleOptions<P, I>,
): O {
  checkOptions("applyPerExample", options, perExampleOptions);
  const { adapters, frozen, inputs, adapterOf, key } = options;
  const rows = asValue(adapterOf, "i32");
  const [count] = rows.shape;
  const chosen = mapTree<Leaf, Value>(adapters, (leaf) => gather(leaf, rows));
  const apart = mapTree<Leaf, Value>(inputs, (leaf, path) => {
    if (leaf.shape[0] !== count) {
      throw new ShapeError(`${path || "the input"} is ${formatAval(leaf.aval)}, but adapterOf names ${count} rows`);
    }
    return reshape(leaf, [count, 1, ...leaf.shape.slice(1)]);
  });
  const keys = key === undefined ? null : randomBits(key, [count, 2]);
  const one = (t: Trainable, x: I, key?: Value) => tuned.apply(t, frozen, x, { key });
  const all = keys === null
    ? vmap(one)(chosen as Trainable, apart as I)
    : vmap(one)(chosen as Trainable, apart as I, keys);
  return mapTree<Value, Value>(all, (y) => reshape(y, [count * y.shape[1], ...y.shape.slice(2)])) as O;
}
