import { bind, type Graph, newInput, type Node, nodesOf, type Value } from "../core/ir/graph.ts";
import { add, convert } from "../core/ops/elementwise.ts";
import { type Factors, type UseKind, type UseOptions, useRules, viewRules, widens } from "./rules.ts";

/** One weight that is followed through a graph. */
export interface Followed {
  readonly factors: Factors;
  /**
   * Asked at each use: how to add the change there, or null to leave this use as it is. `inside` says that the use is in a
   * body that runs once per chunk.
   */
  use(kind: UseKind, inside: boolean): UseOptions | null;
  /** Told after a use was changed: which factor the input met. */
  met?(kind: UseKind, inSide: 0 | 1): void;
  /** The weight came to something that has no rule: nothing further of it is followed. */
  refuse(primitive: string): void;
}

/** What is known of a value beside its base: the weights it is a view of, or a change that is still to be added. */
type Beside = { readonly weights: readonly Followed[] } | { readonly delta: Value };

/**
 * The graph's outputs for `args`, with every use of a followed weight changed. `weights` tells which inputs are followed.
 * Bodies of nodes are rewritten too; composites that a weight goes into are replaced by their definitions.
 */
export function rewriteGraph(
  graph: Graph,
  args: readonly Value[],
  weights: ReadonlyMap<number, readonly Followed[]>,
  inside = false,
): Value[] {
  const env = new Map<Value, Value>();
  const beside = new Map<Value, Beside>();
  graph.inputs.forEach((input, i) => {
    env.set(input, args[i]);
    const followed = weights.get(i);
    if (followed?.length) beside.set(input, { weights: followed });
  });
  /** A value in full: its base and a change that is still open. */
  const settled = (v: Value): Value => {
    const base = env.get(v) ?? v;
    const state = beside.get(v);
    return state && "delta" in state ? convert(add(convert(base, "f32"), state.delta), base.dtype) : base;
  };
  const plain = (node: Node, inputs: readonly Value[]) => {
    if (inputs.every((v, i) => v === node.inputs[i])) return;
    bind(node.prim, inputs, node.params).forEach((v, i) => env.set(node.outs[i], v));
  };
  const visit = (node: Node): void => {
    const { prim, params } = node;
    const states = node.inputs.map((v) => beside.get(v));
    if (widens(node) && states[0] && "delta" in states[0]) {
      // The base is stored narrower than the change: they are added in f32, before anything is rounded.
      const base = env.get(node.inputs[0]) ?? node.inputs[0];
      env.set(node.outs[0], add(convert(base, "f32"), states[0].delta));
      return;
    }
    const inputs = node.inputs.map(settled);
    const of = new Map<number, readonly Followed[]>();
    states.forEach((state, i) => state && "weights" in state && of.set(i, state.weights));
    if (of.size === 0) {
      plain(node, inputs);
    } else if (prim.rebody !== undefined) {
      const bodied = prim.rebody(inputs, params, (body, given) => {
        const whole = new Map([...of].filter(([i, followed]) => {
          const same = given[i].shape.every((d, axis) => d === inputs[i].shape[axis]);
          if (!same) { for (const f of followed) f.refuse(prim.name); }
          return same;
        }));
        return rewriteGraph(body, given, whole, inside || given.some((v, i) => v.shape[0] !== inputs[i]?.shape[0]));
      });
      bodied.forEach((v, i) => env.set(node.outs[i], v));
    } else if (prim.define !== undefined && prim.linearize === undefined) {
      const formal = node.inputs.map((v) => newInput(v.aval));
      const body = { inputs: formal, outputs: prim.define(formal, params) };
      rewriteGraph(body, inputs, of, inside).forEach((v, i) => env.set(node.outs[i], v));
    } else if (viewRules[prim.name] !== undefined && of.size === 1) {
      plain(node, inputs);
      view(node, [...of.values()][0]);
    } else if (useRules[prim.name] !== undefined && of.size === 1) {
      use(node, inputs, ...[...of][0]);
    } else {
      for (const followed of of.values()) for (const f of followed) f.refuse(prim.name);
      plain(node, inputs);
    }
  };
  const view = (node: Node, followed: readonly Followed[]): void => {
    const carried = followed.map((f) => ({ f, outs: viewRules[node.prim.name](f.factors, node) }));
    node.outs.forEach((out, i) => {
      const weights: Followed[] = [];
      for (const { f, outs } of carried) {
        const factors = outs[i];
        if (factors === null) f.refuse(node.prim.name);
        else weights.push({ ...f, factors });
      }
      if (weights.length > 0) beside.set(out, { weights });
    });
  };
  const use = (node: Node, inputs: readonly Value[], operand: number, followed: readonly Followed[]): void => {
    plain(node, inputs);
    const [out] = node.outs;
    const { kind, change } = useRules[node.prim.name];
    for (const f of followed) {
      const options = f.use(kind, inside);
      if (options === null) continue;
      const changed = change(f.factors, operand, inputs, node, options);
      if (changed === null) {
        f.refuse(node.prim.name);
        continue;
      }
      f.met?.(kind, changed.inSide);
      const open = beside.get(out);
      if (out.dtype === "f32") env.set(out, add(env.get(out) ?? out, changed.delta));
      else beside.set(out, { delta: open && "delta" in open ? add(open.delta, changed.delta) : changed.delta });
    }
  };

  const inputs = new Set(graph.inputs.map((v) => v.node));
  const oldest = Math.min(...graph.inputs.map((v) => v.node.serial));
  for (const node of nodesOf(graph.outputs, (n) => inputs.has(n) || n.serial < oldest)) visit(node);
  for (const v of graph.outputs) {
    const state = beside.get(v);
    if (state && "weights" in state) { for (const f of state.weights) f.refuse("the function's result"); }
  }
  return graph.outputs.map(settled);
}
