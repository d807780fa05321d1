import { bind, type Graph, newInput, type Node, nodesOf, type Rewrite, type Value } from "../../core/ir/graph.ts";
import { broadcastTo, reshape } from "../../core/ops/broadcast.ts";
import { add, convert, mul, sub } from "../../core/ops/elementwise.ts";
import { type Change, type Factors, type UseKind, type UseOptions, useRules, viewRules, widens } from "./rules.ts";

/** One weight that is followed through a graph. */
export interface Followed {
  readonly factors: Factors;
  /**
   * Asked at each use: how to add the change there, or null to leave this use as it is. `inside` says that the use is in a
   * body that runs once per chunk.
   */
  use(kind: UseKind, inside: boolean): UseOptions | null;
  /** Called after a use was changed: which factor the input met, in which node, and that input as rows where there is a pair. */
  met?(kind: UseKind, inSide: 0 | 1, node: Node, met?: () => Value): void;
  /** The weight came to something that has no rule: nothing further of it is followed. */
  refuse(primitive: string): void;
}

/** What is known about a value besides its base: the weights it is a view of, or a change that is still to be added. */
type SideState = { readonly weights: readonly Followed[] } | { readonly delta: Value };

/** What else happens on the walk. */
export interface WalkOptions {
  /** What stands for a node's outputs, given what stands for its inputs; null to leave it as it is. Bodies are asked, too. */
  readonly rule?: Rewrite;
  /** What becomes of what some nodes give, changes of weights in it; `given` is what stands for another value there. */
  readonly after?: ReadonlyMap<Node, (y: Value, given: (v: Value) => Value) => Value>;
  /** Bodies are written out, so that what a rule finds in one may be used outside. */
  readonly flat?: boolean;
  /** The graph is a body that runs once per chunk. */
  readonly inside?: boolean;
}

/**
 * The graph's outputs for `args`, with every use of a followed weight changed. `weights` tells which inputs are followed.
 * Bodies of nodes are rewritten too; composites that a weight goes into are replaced by their definitions.
 */
export function rewriteGraph(
  graph: Graph,
  args: readonly Value[],
  weights: ReadonlyMap<number, readonly Followed[]>,
  options: WalkOptions = {},
): Value[] {
  const walk = new Walk(options);
  graph.inputs.forEach((input, i) => walk.enter(input, args[i], weights.get(i) ?? []));
  const inputs = new Set(graph.inputs.map((v) => v.node));
  const oldest = Math.min(...graph.inputs.map((v) => v.node.serial));
  for (const node of nodesOf(graph.outputs, (n) => inputs.has(n) || n.serial < oldest)) walk.visit(node);
  return graph.outputs.map((v) => walk.leave(v));
}

/** One pass over a graph: what stands for each value, and what is known beside it. */
class Walk {
  readonly #env = new Map<Value, Value>();
  readonly #side = new Map<Value, SideState>();
  constructor(readonly options: WalkOptions) {}

  enter(input: Value, arg: Value, weights: readonly Followed[]): void {
    this.#env.set(input, arg);
    if (weights.length > 0) this.#side.set(input, { weights });
  }

  leave(output: Value): Value {
    for (const f of this.#weights(output)) f.refuse("the function's result");
    return this.#whole(output);
  }

  visit(node: Node): void {
    this.#visit(node);
    const change = this.options.after?.get(node);
    if (change === undefined) return;
    const [out] = node.outs, changed = change(this.#whole(out), (v) => this.#whole(v));
    this.#side.delete(out);
    this.#env.set(out, changed);
  }

  #visit(node: Node): void {
    const open = this.#delta(node.inputs[0]);
    if (open !== null && widens(node)) {
      // The base is stored narrower than the change: they are added in f32, before anything is rounded.
      return this.#bindOutputs(node, [add(convert(this.#base(node.inputs[0]), "f32"), open)]);
    }
    const inputs = node.inputs.map((v) => this.#whole(v));
    const operands = node.inputs.map((_, i) => i).filter((i) => this.#weights(node.inputs[i]).length > 0);
    const { prim } = node, { rule, flat } = this.options;
    const ruled = rule?.(node, inputs) ?? null;
    if (ruled !== null) return this.#bindOutputs(node, ruled);
    if (prim.rebody !== undefined && (operands.length > 0 || rule !== undefined || this.options.after !== undefined)) {
      return flat ? this.#definition(node, inputs) : this.#body(node, inputs);
    }
    if (operands.length === 0) return this.#plain(node, inputs);
    if (operands.length === 1 && viewRules[prim.name] !== undefined) return this.#view(node, inputs, operands[0]);
    if (operands.length === 1 && useRules[prim.name] !== undefined) return this.#use(node, inputs, operands[0]);
    if (prim.define !== undefined && prim.linearize === undefined) return this.#definition(node, inputs);
    for (const i of operands) for (const f of this.#weights(node.inputs[i])) f.refuse(prim.name);
    this.#plain(node, inputs);
  }

  #base(v: Value): Value {
    return this.#env.get(v) ?? v;
  }

  /** A value in full: its base, and a change that is still open. */
  #whole(v: Value): Value {
    const [base, delta] = [this.#base(v), this.#delta(v)];
    return delta === null ? base : convert(add(convert(base, "f32"), delta), base.dtype);
  }

  #weights(v: Value): readonly Followed[] {
    const state = this.#side.get(v);
    return state && "weights" in state ? state.weights : [];
  }

  #delta(v: Value | undefined): Value | null {
    const state = v && this.#side.get(v);
    return state && "delta" in state ? state.delta : null;
  }

  #bindOutputs(node: Node, outs: readonly Value[]): void {
    outs.forEach((v, i) => this.#env.set(node.outs[i], v));
  }

  /** The same operation on what stands for its inputs. */
  #plain(node: Node, inputs: readonly Value[]): void {
    if (inputs.some((v, i) => v !== node.inputs[i])) this.#bindOutputs(node, bind(node.prim, inputs, node.params));
  }

  #body(node: Node, inputs: readonly Value[]): void {
    const outs = node.prim.rebody!(inputs, node.params, (body, args) => {
      const cut = args.map((arg, i) => i < inputs.length && arg.shape[0] !== inputs[i].shape[0]);
      const weights = new Map(node.inputs.map((v, i) => [i, this.#weights(v)]));
      weights.forEach((followed, i) => {
        if (!cut[i]) return;
        for (const f of followed) f.refuse(node.prim.name);
        weights.delete(i);
      });
      return rewriteGraph(body, args, weights, { ...this.options, inside: this.options.inside || cut.includes(true) });
    });
    this.#bindOutputs(node, outs);
  }

  #definition(node: Node, inputs: readonly Value[]): void {
    const formal = node.inputs.map((v) => newInput(v.aval));
    const body = { inputs: formal, outputs: node.prim.define!(formal, node.params) };
    this.#bindOutputs(
      node,
      rewriteGraph(body, inputs, new Map(node.inputs.map((v, i) => [i, this.#weights(v)])), this.options),
    );
  }

  #view(node: Node, inputs: readonly Value[], operand: number): void {
    this.#plain(node, inputs);
    const views = this.#weights(node.inputs[operand]).map((f) => ({
      f,
      outs: viewRules[node.prim.name](f.factors, node),
    }));
    node.outs.forEach((out, i) => {
      const weights = views.flatMap(({ f, outs }) => {
        const factors = outs[i];
        if (factors === null) f.refuse(node.prim.name);
        return factors === null ? [] : [{ ...f, factors }];
      });
      if (weights.length > 0) this.#side.set(out, { weights });
    });
  }

  #use(node: Node, inputs: readonly Value[], operand: number): void {
    this.#plain(node, inputs);
    const [out] = node.outs;
    const { kind, change } = useRules[node.prim.name];
    const changes = this.#weights(node.inputs[operand]).flatMap((f): Change[] => {
      const options = f.use(kind, this.options.inside ?? false);
      if (options === null) return [];
      const changed = at(options.acts, change(f.factors, operand, inputs, node, options), out, this.#base(out));
      if (changed === null) f.refuse(node.prim.name);
      else f.met?.(kind, changed.inSide, node, changed.met);
      return changed === null ? [] : [changed];
    });
    if (changes.length === 0) return;
    const base = this.#base(out);
    const [{ delta, gain, whole }] = changes;
    if (changes.length === 1 && out.dtype === "f32" && (gain ?? whole) !== undefined) {
      this.#env.set(out, whole ?? mul(gain!, delta === undefined ? base : add(base, delta)));
      return;
    }
    const sum = changes.map((one) => additive(one, base)).reduce((a, b) => add(a, b));
    if (out.dtype === "f32") this.#env.set(out, add(base, sum));
    else this.#side.set(out, { delta: sum });
  }
}

/** The change at some places only, each of which is a row of what the use gives; null where it has no such rows. */
function at(acts: Value | undefined, change: Change | null, { shape }: Value, y: Value): Change | null {
  if (acts === undefined || change === null) return change;
  if (acts.shape.some((size, axis) => size !== shape[axis])) return null;
  const places = reshape(acts, [...acts.shape, ...shape.slice(2).map(() => 1)]);
  return { delta: mul(broadcastTo(places, shape), additive(change, y)), inSide: change.inSide };
}

/** What is added to y so that it becomes gain ⊙ (y + delta): changes of several adapters are independent, and add up. */
function additive({ delta, gain, whole }: Change, y: Value): Value {
  const wide = convert(y, "f32");
  if (whole !== undefined) return sub(whole, wide);
  if (gain === undefined) return delta!;
  const more = mul(sub(gain, 1), wide);
  return delta === undefined ? more : add(more, mul(gain, delta));
}
