import { type BatchRule, newInput, type Primitive, type Value, type VjpRule } from "./graph.ts";
import type { Lowering } from "./lowering.ts";

/** What defines a composite; rules that it leaves out are derived from its definition. */
export interface CompositeSpec<P> {
  readonly name: string;
  /** Its meaning, in primitives: the oracle of its kernels and the default of every rule. */
  define(inputs: readonly Value[], params: P): Value[];
  readonly vjp?: VjpRule<P> | "nondifferentiable";
  readonly batch?: BatchRule<P>;
  /** `row`: its definition is lowered as one row kernel. By default it is replaced by its definition. */
  readonly lowering?: Lowering<P>;
}

/** An operation defined by other operations: a name that rules and kernels can be given to. */
export function defineComposite<P>(spec: CompositeSpec<P>): Primitive<P> {
  return {
    name: spec.name,
    define: spec.define,
    infer: (avals, params) => spec.define(avals.map((a) => newInput(a)), params).map((v) => v.aval),
    vjp: spec.vjp ?? "expand",
    batch: spec.batch ?? "expand",
    lowering: spec.lowering ?? { kind: "expand" },
  };
}
