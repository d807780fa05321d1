/** What a layer reads of the tokens before each: for convolutions, over whole sequences or step by step. */
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf } from "../../core/model.ts";
import { broadcastTo, reshape } from "../../core/ops/broadcast.ts";
import { add, ge, select } from "../../core/ops/elementwise.ts";
import { concat, iota, pad, slice } from "../../core/ops/structure.ts";

/**
 * A value [B,T,D] at each token itself, at the one before, and so on up to `count` before: count + 1 values [B,T,D], which are
 * 0 where there is no such token, or padding. A layer asks at most once, for as many as it keeps.
 */
export type Recall = (x: Value, count: number) => readonly Value[];

/** Zeros where a mask bool[B,T] is false. */
function shown(x: Value, seen: Value): Value {
  const [b, t] = seen.shape;
  return select(broadcastTo(reshape(seen, [b, t, 1]), x.shape), x, 0);
}

/** Over whole sequences; nothing is read from another document. */
export const recallWhole =
  ({ seen, documentStart }: { readonly seen?: Value; readonly documentStart?: Value }): Recall => (x, count) => {
    const real = seen === undefined ? x : shown(x, seen);
    const [b, t] = x.shape;
    return Array.from({ length: count + 1 }, (_, back) => {
      const far = Math.min(back, t);
      if (far === 0) return real;
      const moved = pad(slice(real, 1, 0, t - far), [0, far, 0], [0, 0, 0]);
      return documentStart === undefined ? moved : shown(moved, ge(iota([b, t], 1), add(documentStart, back)));
    });
  };

/** Of the next few tokens, after those whose last values `last` [B,count,D] were kept; with what is to be kept now. */
export function recallStep(
  x: Value,
  count: number,
  last: Leaf,
  seen: Value,
): { readonly values: readonly Value[]; readonly last: Value } {
  const t = x.shape[1], all = concat([last, shown(x, seen)], 1);
  const values = Array.from({ length: count + 1 }, (_, back) => slice(all, 1, count - back, count - back + t));
  return { values, last: slice(all, 1, t, t + count) };
}
