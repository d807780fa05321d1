/** Arrays whose axes have names, and products over the names that two of them share. */
import { bind1, type Value } from "../../core/ir/graph.ts";
import { broadcastPrim } from "../../core/ops/broadcast.ts";
import { dot } from "../../core/ops/contract.ts";
import { transpose } from "../../core/ops/structure.ts";

/** One factor: its axes but r's, in order, are the axes `axes` of the value that is followed. */
export interface Side {
  readonly value: Value;
  /** Where its r axis is. */
  readonly r: "first" | "last";
  readonly axes: readonly number[];
}

/** An array whose axes have names. */
export interface Named {
  readonly value: Value;
  readonly axes: readonly string[];
}

/** Σ a·b over the names that both have and `keep` does not. `swap` puts b's free axes first. */
export function product(a: Named, b: Named, keep: ReadonlySet<string>, swap: boolean): Named {
  if (swap) [a, b] = [b, a];
  const shared = a.axes.filter((name) => b.axes.includes(name));
  const [batch, contract] = [shared.filter((n) => keep.has(n)), shared.filter((n) => !keep.has(n))];
  const places = (x: Named, names: readonly string[]) => names.map((name) => x.axes.indexOf(name));
  const free = (x: Named) => x.axes.filter((name) => !shared.includes(name));
  return {
    value: dot(a.value, b.value, {
      contract: [places(a, contract), places(b, contract)],
      batch: [places(a, batch), places(b, batch)],
    }),
    axes: [...batch, ...free(a), ...free(b)],
  };
}

/** The axes in a given order; those that are missing are new ones, of the sizes in `shape`. */
export function arrange(x: Named, names: readonly string[], shape: readonly number[]): Value {
  const present = names.filter((name) => x.axes.includes(name));
  const ordered = transpose(x.value, present.map((name) => x.axes.indexOf(name)));
  if (present.length === names.length) return ordered;
  return bind1(broadcastPrim, [ordered], { shape, dims: present.map((name) => names.indexOf(name)) });
}
