import { OptionError, ShapeError } from "../errors.ts";
import { formatAval } from "../aval.ts";
import { bind, type Graph, newInput, nodesOf, type Value } from "../ir/graph.ts";
import { broadcastTo } from "../ops/broadcast.ts";
import { axisOf } from "../ops/arguments.ts";
import { asValue } from "../ops/constant.ts";
import { moveAxis } from "../ops/structure.ts";
import { leafValues } from "../trace.ts";
import { flatten } from "../tree.ts";
import type { Arguments, WithLeaves } from "../tree_types.ts";
import { checkFunction, checkOptions } from "../options.ts";

/**
 * A graph over `args`, some of which have one more axis of `size` in front. What depends on none of those stays as it is,
 * computed once for all. `batched` says which outputs have the new axis.
 */
export function batchGraph(
  graph: Graph,
  args: readonly Value[],
  batched: readonly boolean[],
  size: number,
): { outputs: Value[]; batched: boolean[] } {
  const env = new Map<Value, Value>();
  // Values of the graph, not what stands for them: one value may be mapped over here and shared there.
  const lifted = new Set<Value>();
  graph.inputs.forEach((input, i) => {
    env.set(input, args[i]);
    if (batched[i]) lifted.add(input);
  });
  const inputs = new Set(graph.inputs.map((v) => v.node));
  const oldest = Math.min(...graph.inputs.map((v) => v.node.serial));
  for (const node of nodesOf(graph.outputs, (n) => inputs.has(n) || n.serial < oldest)) {
    const mapped = node.inputs.map((v) => env.get(v) ?? v);
    const flags = node.inputs.map((v) => lifted.has(v));
    const { prim, params } = node;
    if (!flags.includes(true)) {
      if (mapped.some((v, i) => v !== node.inputs[i])) {
        bind(prim, mapped, params).forEach((v, i) => env.set(node.outs[i], v));
      }
      continue;
    }
    let outs: readonly Value[];
    if (prim.batch === "expand") {
      const formal = node.inputs.map((v) => newInput(v.aval));
      const body = { inputs: formal, outputs: prim.define!(formal, params) };
      outs = batchGraph(body, mapped, flags, size).outputs;
    } else {
      outs = prim.batch({ inputs: mapped, batched: flags, params, size });
    }
    outs.forEach((v, i) => {
      env.set(node.outs[i], v);
      // A rule may leave an output that depends on no batched input as it was.
      if (v.shape.length > node.outs[i].shape.length) lifted.add(node.outs[i]);
    });
  }
  return { outputs: graph.outputs.map((v) => env.get(v) ?? v), batched: graph.outputs.map((v) => lifted.has(v)) };
}

/** What is mapped over. */
export interface VmapOptions {
  /**
   * The axis of every leaf of an argument (from the end where it is negative), null for an argument that all share; one for
   * all arguments, or one each.
   */
  readonly inAxes?: number | null | readonly (number | null)[];
}

/**
 * `f` over one more axis: `vmap(f)(xs)` is `f` of each `xs[i]`, stacked along a new axis 0 of every output. Arguments with
 * axis null are shared: what depends on them alone is computed once, and a product of a mapped with a shared operand stays
 * one product.
 *
 * @throws {ShapeError} when the mapped axes differ in size
 * @throws {OptionError} when nothing is mapped, or the axes are not one per argument
 *
 * @example
 * ```ts
 * import { evaluate, matmul, openDevice, type Operand, tensor, vmap } from "@lowrank/lowrank";
 *
 * using device = await openDevice("cpu");
 * const [rows, w] = [tensor(device, [[1, 2], [3, 4], [5, 6]]), tensor(device, [[1, 0], [0, 2]])];
 * const product = vmap((row: Operand, w: Operand) => matmul(row, w), { inAxes: [0, null] });
 * console.log(await evaluate(product(rows, w))); // f32[3,2], by one product
 * ```
 */
export function vmap<A extends readonly unknown[], R>(
  f: (...args: A) => R,
  options: VmapOptions = {},
): (...args: Arguments<A>) => WithLeaves<R, Value> {
  checkOptions("vmap", options, { inAxes: true });
  checkFunction("vmap", f);
  const { inAxes = 0 } = options;
  return (...args) => {
    const axes = typeof inAxes === "object" && inAxes !== null ? inAxes : args.map(() => inAxes);
    if (axes.length !== args.length) {
      throw new OptionError(
        `vmap has ${axes.length} inAxes for ${args.length} arguments: give one each, null to share`,
      );
    }
    const flat = flatten(args);
    const leafAxes = args.flatMap((arg, i) => flatten(arg).leaves.map(() => axes[i]));
    let size: number | null = null, first = 0;
    const values = leafValues(args).map((v, i) => {
      const given = leafAxes[i];
      if (given === null) return v;
      const at = axisOf(`map "${flat.paths[i]}" (null in inAxes shares it),`, v.aval, given);
      const n = v.shape[at];
      if (size !== null && n !== size) {
        throw new ShapeError(
          `vmap maps axis ${given} of ${formatAval(v.aval)} at "${flat.paths[i]}", which is ${n}, and ` +
            `"${flat.paths[first]}" is mapped over ${size}: sizes must be equal`,
        );
      }
      if (size === null) [size, first] = [n, i];
      return moveAxis(v, at, 0);
    });
    if (size === null) throw new OptionError("vmap has no argument to map over: every axis in inAxes is null");
    const inputs = values.map((v, i) =>
      newInput(leafAxes[i] === null ? v.aval : { shape: v.shape.slice(1), dtype: v.dtype }, flat.paths[i])
    );
    const out = flatten<Value>(f(...flat.unflatten(inputs) as unknown as A));
    const graph = { inputs, outputs: out.leaves.map((x) => asValue(x)) };
    const all = batchGraph(graph, values, leafAxes.map((a) => a !== null), size);
    const n: number = size;
    return out.unflatten(
      all.outputs.map((v, i) => all.batched[i] ? v : broadcastTo(v, [n, ...v.shape], { leading: true })),
    ) as WithLeaves<R, Value>;
  };
}
