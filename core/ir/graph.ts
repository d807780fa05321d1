/**
 * The graph that every transform reads and makes: nodes apply primitives to values, values are outputs of nodes. Nodes are
 * immutable; a transform builds new ones and reuses what it does not change.
 */
import { type Aval, checkAval, formatAval } from "../aval.ts";
import { LowrankError, ShapeError } from "../errors.ts";
import { refusePrimitives } from "../opaque.ts";
import type { Lowering } from "./lowering.ts";

/** Cotangents in, cotangents out: null where an output was not asked for, or an input does not need one. */
export type VjpRule<P> = (rule: {
  readonly cts: readonly (Value | null)[];
  readonly needs: readonly boolean[];
  readonly inputs: readonly Value[];
  readonly outs: readonly Value[];
  readonly params: P;
}) => (Value | null)[];

/** The same operation with a new leading axis of `size` on every input whose `batched` is true, and on every output. */
export type BatchRule<P> = (rule: {
  readonly inputs: readonly Value[];
  readonly batched: readonly boolean[];
  readonly params: P;
  readonly size: number;
}) => Value[];

/** Everything that is known about one operation. All rules are required, so that a missing one does not compile. */
export interface Primitive<P = any> {
  /** What graphs print, unique in the registry. */
  readonly name: string;
  /** The avals of the outputs, or a ShapeError that names the values and the demand. */
  infer(inputs: readonly Aval[], params: P): Aval[];
  /** The cotangents of the inputs from those of the outputs; `expand`: by the definition. */
  readonly vjp: VjpRule<P> | "nondifferentiable" | "expand";
  /** The same with a new leading axis on some inputs. */
  readonly batch: BatchRule<P> | "expand";
  /** What the operation is made of, where it is a composite: its meaning, and the default of every rule. */
  readonly define?: (inputs: readonly Value[], params: P) => Value[];
  /**
   * The forward operation when a gradient will be taken, where it saves more than its own outputs: the outputs, and the
   * pullback from their cotangents.
   */
  readonly linearize?: (inputs: readonly Value[], params: P, needs: readonly boolean[]) => {
    outs: Value[];
    pullback: (cts: readonly (Value | null)[]) => (Value | null)[];
  };
  /**
   * Where params carry a traced body: the same operation with `rewrite(body, args)` in its place, which gives the outputs
   * for args that stand for the body's inputs, one per input of the node. What it mentions becomes further inputs.
   */
  readonly rebody?: (inputs: readonly Value[], params: P, rewrite: BodyRewrite) => readonly Value[];
  /** How it becomes part of a kernel. */
  readonly lowering: Lowering<P>;
}

/** A body's new outputs, for arguments that stand for its inputs. */
export type BodyRewrite = (body: Graph, args: readonly Value[]) => readonly Value[];

/** One application of a primitive. `serial` grows with creation, so creation order is a topological order. */
export class Node {
  readonly serial: number;
  readonly outs: readonly Value[];
  constructor(
    readonly prim: Primitive,
    readonly inputs: readonly Value[],
    readonly params: any,
    avals: readonly Aval[],
  ) {
    this.serial = nextSerial++;
    this.outs = avals.map((aval, index) => new Value(this, index, aval));
  }
}

// The one counter of the process: it only orders nodes, nothing is ever looked up by it.
let nextSerial = 1;

/** The serial that the next node will get: what was made before a trace began is older than this. */
export function serialNow(): number {
  return nextSerial;
}

/**
 * Output `index` of a node: an array whose contents are not yet computed. JavaScript's own operators, conditions and loops
 * can't use it: it throws where they ask for a number, and `x.toString()` describes it.
 */
export class Value {
  /** @ignore */
  readonly node: Node;
  /** Which of the node's outputs it is. */
  readonly index: number;
  /** Shape and dtype. */
  readonly aval: Aval;
  /** @ignore */
  constructor(node: Node, index: number, aval: Aval) {
    this.node = node;
    this.index = index;
    this.aval = aval;
  }
  /** Sizes, outermost first. */
  get shape(): readonly number[] {
    return this.aval.shape;
  }
  /** What each element is. */
  get dtype(): Aval["dtype"] {
    return this.aval.dtype;
  }
  /** Shape, dtype and the operation that makes it. */
  toString(): string {
    const name = this.node.prim === inputPrim && this.node.params.name;
    return `Value(${formatAval(this.aval)} = ${this.node.prim.name}${name ? ` "${name}"` : ""})`;
  }
  /** For `console.log`. */
  [Symbol.for("Deno.customInspect")](): string {
    return this.toString();
  }
}

refusePrimitives(Value, (x) => {
  const open = nodesOf([x]).some((node) => node.prim === inputPrim);
  return "but it is not computed: write add, mul, lt, select and the like, " +
    (open
      ? "or pass what is a setting and no data as one of jit's static arguments"
      : "or wait for its contents with await evaluate(x)");
});

/** A traced function: outputs as a function of inputs. Values older than the trace are captures and are left as they are. */
export interface Graph {
  /** What stands for the arguments. */
  readonly inputs: readonly Value[];
  /** What it computes. */
  readonly outputs: readonly Value[];
}

/** Applies a primitive; the shape rule decides the avals of what comes out. */
export function bind<P>(prim: Primitive<P>, inputs: readonly Value[], params: P): readonly Value[] {
  const avals = prim.infer(inputs.map((v) => v.aval), params);
  for (const aval of avals) checkAval(`Cannot ${prim.name} to`, aval);
  return new Node(prim, inputs, params, avals).outs;
}

/** {@link bind} for the many primitives with one output. */
export function bind1<P>(prim: Primitive<P>, inputs: readonly Value[], params: P): Value {
  return bind(prim, inputs, params)[0];
}

const never = (what: string) => () => {
  throw new LowrankError(`${what} has no such rule: this is a bug of lowrank`);
};

/** A graph's input: it stands for an argument. */
export const inputPrim: Primitive<{ aval: Aval; name: string }> = {
  name: "input",
  infer: (_, { aval }) => [aval],
  vjp: "nondifferentiable",
  batch: never("input"),
  lowering: { kind: "leaf" },
};

/** A fresh input of the given aval. */
export function newInput(aval: Aval, name = ""): Value {
  return bind1(inputPrim, [], { aval, name });
}

/**
 * The nodes that `outputs` need, in topological order. Nodes for which `stop` holds are left out, with what only they need.
 * Iterative: a recursive walk overflows the stack at some thirty layers.
 */
export function nodesOf(outputs: readonly Value[], stop?: (node: Node) => boolean): Node[] {
  const seen = new Set<Node>();
  const stack: Node[] = [];
  const visit = (node: Node) => {
    if (seen.has(node) || stop?.(node)) return;
    seen.add(node);
    stack.push(node);
  };
  for (const v of outputs) visit(v.node);
  while (stack.length > 0) for (const v of stack.pop()!.inputs) visit(v.node);
  return [...seen].sort((a, b) => a.serial - b.serial);
}

/** What a rebuild does at a node: the values that stand for its outputs, or null to apply the same primitive again. */
export type Rewrite = (node: Node, inputs: readonly Value[]) => readonly Value[] | null;

/**
 * The graph's outputs with its inputs replaced by `args`, each node passed through `rewrite` on the way. Nodes that depend
 * on no input, and that `rewrite` leaves alone, are shared, not copied. With `all`, `rewrite` sees those nodes too.
 */
export function rebuild(
  graph: Graph,
  args: readonly Value[],
  rewrite?: Rewrite,
  options: { all?: boolean } = {},
): Value[] {
  const env = new Map<Value, Value>();
  graph.inputs.forEach((input, i) => {
    const [got, want] = [args[i].aval, input.aval];
    if (formatAval(got) !== formatAval(want)) {
      throw new ShapeError(`argument ${i} is ${formatAval(got)}, but the traced function takes ${formatAval(want)}`);
    }
    env.set(input, args[i]);
  });
  const inputs = new Set(graph.inputs.map((v) => v.node));
  const oldest = Math.min(...graph.inputs.map((v) => v.node.serial));
  const stop = options.all ? (n: Node) => inputs.has(n) : (n: Node) => inputs.has(n) || n.serial < oldest;
  for (const node of nodesOf(graph.outputs, stop)) {
    const mapped = node.inputs.map((v) => env.get(v) ?? v);
    const changed = mapped.some((v, i) => v !== node.inputs[i]);
    if (!changed && !options.all) continue;
    const outs = rewrite?.(node, mapped) ?? (changed ? bind(node.prim, mapped, node.params) : null);
    outs?.forEach((v, i) => env.set(node.outs[i], v));
  }
  return graph.outputs.map((v) => env.get(v) ?? v);
}
