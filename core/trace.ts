import type { Aval } from "./aval.ts";
import { LowrankError } from "./errors.ts";
import { type Graph, newInput, Value } from "./ir/graph.ts";
import { asValue } from "./ops/constant.ts";
import { Tensor } from "./tensor.ts";
import { flatten } from "./tree.ts";

/** A traced function over trees: its graph, and the shape of what it returns. */
export interface Traced {
  readonly graph: Graph;
  /** Puts output leaves back into the returned tree. */
  unflatten(outputs: readonly unknown[]): unknown;
}

type Leaf = Value | Tensor | number;

/** What a leaf looks like to a trace. A number is rank-0 f32 data. */
export function avalOf(leaf: Leaf): Aval {
  return typeof leaf === "number" ? { shape: [], dtype: "f32" } : leaf.aval;
}

/** Calls `f` on fresh inputs with the avals of `args`, and keeps what it returns as a graph. */
export function trace(f: (...args: any[]) => unknown, args: readonly unknown[]): Traced {
  const flat = flatten<Leaf>(args);
  const inputs = flat.leaves.map((leaf, i) => newInput(avalOf(leaf), flat.paths[i]));
  const returned = f(...flat.unflatten(inputs) as unknown[]);
  if (returned instanceof Promise) {
    throw new LowrankError(`${f.name || "the traced function"} is async, but a traced function only builds a graph`);
  }
  const out = flatten<Leaf>(returned);
  return { graph: { inputs, outputs: out.leaves.map((x) => asValue(x)) }, unflatten: (o) => out.unflatten(o) };
}

/** The leaves of a tree of arguments, as values. */
export function leafValues(args: readonly unknown[]): Value[] {
  return flatten<Leaf>(args).leaves.map((x) => asValue(x));
}
