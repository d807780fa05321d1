import { formatAval } from "../aval.ts";
import { isFloat } from "../dtype.ts";
import { LowrankError, OptionError, ShapeError } from "../errors.ts";
import { bind, type Graph, type Node, nodesOf, rebuild, type Value } from "../ir/graph.ts";
import { constant } from "../ops/constant.ts";
import { full } from "../ops/broadcast.ts";
import { add, convert } from "../ops/elementwise.ts";
import { expand } from "../passes/expand.ts";
import type { Operand } from "../tensor.ts";
import { leafValues, trace } from "../trace.ts";
import { flatten } from "../tree.ts";
import type { Arguments, Scalar, Values } from "../tree_types.ts";
import { checkFunction, checkOptions, type OptionNames } from "../options.ts";

/** The nodes of a graph that pass a derivative on from `wrt` to their outputs. */
function dependents(graph: Graph, wrt: ReadonlySet<Value>): Set<Node> {
  const found = new Set<Node>();
  for (const node of nodesOf(graph.outputs)) {
    const reached = node.inputs.some((v) => wrt.has(v) || found.has(v.node));
    if (reached && node.prim.vjp !== "nondifferentiable" && node.outs.some((v) => isFloat(v.dtype))) found.add(node);
  }
  return found;
}

/**
 * Runs a graph forward and back: its outputs, and for each input in `wrt` the pullback of `cts` (one per output, null where
 * none is asked), or null where nothing depends on it. Only what leads from `wrt` to an asked-for output is differentiated.
 */
export function vjp(
  graph: Graph,
  wrt: readonly Value[],
  makeCts: (outputs: readonly Value[]) => (Value | null)[],
): { outputs: Value[]; grads: (Value | null)[] } {
  const roots = new Set(wrt);
  const open = expandForGradient(graph, roots);
  const on = dependents(open, roots);

  const env = new Map<Value, Value>();
  const active = new Set<Value>(wrt);
  const tape: { outs: readonly Value[]; inputs: Value[]; pull: (cts: (Value | null)[]) => (Value | null)[] }[] = [];
  for (const node of nodesOf(open.outputs)) {
    const inputs = node.inputs.map((v) => env.get(v) ?? v);
    const changed = inputs.some((v, i) => v !== node.inputs[i]);
    if (!on.has(node)) {
      if (changed) bind(node.prim, inputs, node.params).forEach((v, i) => env.set(node.outs[i], v));
      continue;
    }
    const needs = inputs.map((v) => active.has(v));
    const { prim, params } = node;
    if (prim.linearize) {
      const { outs, pullback } = prim.linearize(inputs, params, needs);
      tape.push({ outs, inputs, pull: pullback });
      outs.forEach((v, i) => env.set(node.outs[i], v));
      for (const v of outs) if (isFloat(v.dtype)) active.add(v);
    } else {
      const rule = prim.vjp;
      if (typeof rule === "string") {
        throw new LowrankError(`${prim.name} is on the way of a gradient but has no rule for one`);
      }
      const outs = changed ? bind(prim, inputs, params) : node.outs;
      tape.push({ outs, inputs, pull: (cts) => rule({ cts, needs, inputs, outs, params }) });
      if (changed) outs.forEach((v, i) => env.set(node.outs[i], v));
      for (const v of outs) if (isFloat(v.dtype)) active.add(v);
    }
  }

  const outputs = open.outputs.map((v) => env.get(v) ?? v);
  const sums = new Map<Value, Value>();
  const accumulate = (v: Value, ct: Value | null) => {
    if (ct === null || !active.has(v)) return;
    if (formatAval(ct.aval) !== formatAval(v.aval)) {
      throw new LowrankError(
        `a gradient of ${formatAval(ct.aval)} came back for ${v.toString()}: this is a bug of its rule`,
      );
    }
    const sum = sums.get(v);
    sums.set(v, sum ? addUp(sum, ct) : ct);
  };
  makeCts(outputs).forEach((ct, i) => accumulate(outputs[i], ct));
  for (const { outs, inputs, pull } of tape.reverse()) {
    const cts = outs.map((v) => sums.get(v) ?? null);
    if (cts.every((ct) => ct === null)) continue;
    pull(cts).forEach((ct, i) => accumulate(inputs[i], ct));
  }
  return { outputs, grads: wrt.map((v) => sums.get(v) ?? null) };
}

/** The sum of two cotangents of one dtype; what is stored narrower is added in f32. */
function addUp(a: Value, b: Value): Value {
  return a.dtype === "f32" ? add(a, b) : convert(add(convert(a, "f32"), convert(b, "f32")), a.dtype);
}

/** Composites without a rule of their own are differentiated through their definition. */
function expandForGradient(graph: Graph, roots: ReadonlySet<Value>): Graph {
  const reached = dependents(graph, roots);
  const due = ({ prim }: Node) => prim.vjp === "expand" && prim.linearize === undefined;
  const open = expand(graph, (node) => due(node) && reached.has(node));
  return open === graph ? graph : expandForGradient(open, roots);
}

/** Which arguments to differentiate by, and whether the function returns `[loss, aux]`. */
export interface GradOptions<N extends number | readonly number[] = number | readonly number[]> {
  /** Which arguments to differentiate by; one number, or several for a list of gradients. Default 0. */
  readonly argnums?: N;
  /** Whether `f` returns `[loss, more]`, of which `more` is passed through. Default false. */
  readonly hasAux?: boolean;
}

/** The gradients by arguments A at positions N: a tree of values like the argument, or a list of such trees. */
export type Gradients<A extends readonly unknown[], N extends number | readonly number[]> = N extends number
  ? Values<A[N]>
  : { -readonly [I in keyof N]: Values<A[N[I] & number]> };

/**
 * The function that returns a scalar function's value and its gradient: `[value, grad]`, or `[[value, aux], grad]` with
 * `hasAux`. The gradient has the tree of the argument (a list of trees when `argnums` is a list); leaves that are not
 * floats, and those the value does not depend on, get zeros.
 *
 * @throws {ShapeError} when the value is not a scalar f32, or an argument to differentiate by holds no floats
 * @throws {OptionError} when `argnums` names an argument that is not there
 *
 * @example
 * ```ts
 * import { evaluate, mul, openDevice, reduceSum, tensor, type Value, valueAndGrad } from "@lowrank/lowrank";
 *
 * using device = await openDevice("cpu");
 * const sumOfSquares = (x: Value) => reduceSum(mul(x, x));
 * const [value, gradient] = await evaluate(valueAndGrad(sumOfSquares)(tensor(device, [1, 2, 3])));
 * console.log(value, gradient); // 14, and f32[3] with the data 2, 4, 6
 * ```
 */
export function valueAndGrad<A extends readonly unknown[], X, const N extends number | readonly number[] = 0>(
  f: (...args: A) => readonly [Operand, X],
  options: GradOptions<N> & { readonly hasAux: true },
): (...args: Arguments<A>) => [[Scalar, Values<X>], Gradients<A, NoInfer<N>>];
/** {@link valueAndGrad} of a function that returns its value alone. */
export function valueAndGrad<A extends readonly unknown[], const N extends number | readonly number[] = 0>(
  f: (...args: A) => Operand,
  options?: GradOptions<N> & { readonly hasAux?: false },
): (...args: Arguments<A>) => [Scalar, Gradients<A, NoInfer<N>>];
export function valueAndGrad(
  f: (...args: never[]) => unknown,
  options: GradOptions = {},
): (...args: never[]) => unknown {
  return gradientOf("valueAndGrad", f, options);
}

const gradOptions: OptionNames<GradOptions> = { argnums: true, hasAux: true };

function gradientOf(
  who: string,
  f: (...args: never[]) => unknown,
  options: GradOptions,
): (...args: never[]) => [unknown, unknown] {
  checkOptions(who, options, gradOptions);
  checkFunction(who, f);
  const { argnums = 0, hasAux = false } = options;
  const list = typeof argnums === "number" ? [argnums] : argnums;
  return (...args: unknown[]) => {
    const traced = trace(f, args);
    const spans: { start: number; flat: ReturnType<typeof flatten> }[] = [];
    let start = 0;
    for (const arg of args) {
      const flat = flatten(arg);
      spans.push({ start, flat });
      start += flat.leaves.length;
    }
    const wrt = list.flatMap((n) => {
      if (spans[n] === undefined) throw new OptionError(noArgument(n, args.length));
      const { start, flat } = spans[n];
      const inputs = traced.graph.inputs.slice(start, start + flat.leaves.length);
      if (inputs.length > 0 && !inputs.some((v) => isFloat(v.dtype))) throw new ShapeError(noFloats(n, inputs));
      return inputs;
    });
    const loss = traced.graph.outputs[0];
    if (loss === undefined || formatAval(loss.aval) !== "f32[]") {
      throw new ShapeError(
        `a gradient needs a scalar f32 value, but ${f.name || "the function"} returned ${
          loss ? formatAval(loss.aval) : "nothing"
        }: add it up with reduceSum or mean`,
      );
    }
    if (!hasAux && traced.graph.outputs.length > 1) {
      throw new ShapeError(
        `a gradient needs one value, but ${f.name || "the function"} returned ${traced.graph.outputs.length}: ` +
          `return [loss, aux] and pass { hasAux: true }`,
      );
    }
    const floats = wrt.filter((v) => isFloat(v.dtype));
    const { outputs, grads } = vjp(
      traced.graph,
      floats,
      (outs) => outs.map((_, i) => i === 0 ? constant(1) : null),
    );
    const zeroed = wrt.map((v) => {
      const i = floats.indexOf(v);
      return (i >= 0 ? grads[i] : null) ?? full(v.shape, 0, v.dtype);
    });
    const inlined = rebuild({ inputs: traced.graph.inputs, outputs: [...outputs, ...zeroed] }, leafValues(args));
    const value = traced.unflatten(inlined.slice(0, outputs.length));
    let at = outputs.length;
    const trees = list.map((n) => {
      const { flat } = spans[n];
      const part = inlined.slice(at, at += flat.leaves.length);
      return flat.unflatten(part);
    });
    return [value, typeof argnums === "number" ? trees[0] : trees];
  };
}

function noArgument(n: number, count: number): string {
  return `a gradient is asked for by argument ${n}, but there are ${count}: argnums counts them from 0`;
}

function noFloats(n: number, inputs: readonly Value[]): string {
  return `a gradient is asked for by argument ${n}, which holds no floats (${
    inputs.map((v) => formatAval(v.aval)).join(", ")
  }): differentiate by another one (argnums), or make it f32`;
}

/**
 * {@link valueAndGrad} without the value: the tree of the argument, of gradients.
 *
 * @example
 * ```ts
 * import { evaluate, grad, mul, openDevice, tensor, type Value } from "@lowrank/lowrank";
 *
 * using device = await openDevice("cpu");
 * const cube = (x: Value) => mul(x, mul(x, x));
 * console.log(await evaluate(grad(grad(cube))(tensor(device, 2)))); // 12
 * ```
 */
export function grad<A extends readonly unknown[], const N extends number | readonly number[] = 0>(
  f: (...args: A) => readonly [Operand, unknown],
  options: GradOptions<N> & { readonly hasAux: true },
): (...args: Arguments<A>) => Gradients<A, NoInfer<N>>;
/** {@link grad} of a function that returns its value alone. */
export function grad<A extends readonly unknown[], const N extends number | readonly number[] = 0>(
  f: (...args: A) => Operand,
  options?: GradOptions<N> & { readonly hasAux?: false },
): (...args: Arguments<A>) => Gradients<A, NoInfer<N>>;
export function grad(f: (...args: never[]) => unknown, options: GradOptions = {}): (...args: never[]) => unknown {
  const both = gradientOf("grad", f, options);
  return (...args) => both(...args)[1];
}
