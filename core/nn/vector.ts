import type { Value } from "../ir/graph.ts";
import { broadcastTo } from "../ops/broadcast.ts";
import { constant } from "../ops/constant.ts";
import { lt, select } from "../ops/elementwise.ts";
import { iota } from "../ops/structure.ts";

/** A short vector of constants f32[n], rounded, picked by a tree of comparisons: the graph has constants of rank 0 only. */
export function vector(values: ArrayLike<number>): Value {
  const place = iota([values.length]);
  const pick = (from: number, to: number): Value => {
    if (to - from === 1) return broadcastTo(constant(Math.fround(values[from])), [values.length]);
    const middle = (from + to) >> 1;
    return select(lt(place, middle), pick(from, middle), pick(middle, to));
  };
  return pick(0, values.length);
}
