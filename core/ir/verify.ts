import { formatAval } from "../aval.ts";
import { LowrankError } from "../errors.ts";
import { type Graph, inputPrim, nodesOf } from "./graph.ts";

/**
 * Checks that a graph depends on no inputs but its own, as a whole program must. `f` names the traced function in the error.
 *
 * @throws {LowrankError} when a value escaped from another traced function
 */
export function checkInputs(graph: Graph, f = "the traced function"): void {
  const own = new Set(graph.inputs.map((v) => v.node));
  for (const node of nodesOf(graph.outputs)) {
    if (node.prim !== inputPrim || own.has(node)) continue;
    const { name, aval } = node.params;
    const argument = name === "" ? formatAval(aval) : `"${name}" (${formatAval(aval)})`;
    throw new LowrankError(
      `${f} uses the argument ${argument} of another traced function, whose call is over: a value must not be kept ` +
        `outside the function it was made in; return it from there and pass it to ${f}`,
    );
  }
}

/**
 * Checks what every graph keeps: it depends on no inputs but its own, each node's avals are what its shape rule says, and
 * each value is made before it is read. For tests of transforms: it runs every shape rule again.
 *
 * @throws {LowrankError} that names the first value out of place
 */
export function verifyGraph(graph: Graph, f?: string): void {
  checkInputs(graph, f);
  for (const node of nodesOf(graph.outputs)) {
    const { prim, params } = node;
    if (prim === inputPrim) continue;
    const inferred = prim.infer(node.inputs.map((v) => v.aval), params).map(formatAval).join(", ");
    const built = node.outs.map((v) => formatAval(v.aval)).join(", ");
    if (inferred !== built) {
      throw new LowrankError(
        `${prim.name} was built as ${built}, but its shape rule says ${inferred}: a bug of a transform`,
      );
    }
    for (const v of node.inputs) {
      if (v.node.serial >= node.serial || v.node.outs[v.index] !== v) {
        throw new LowrankError(`${prim.name} reads ${v.toString()}, which is not made before it: a bug of a transform`);
      }
    }
    for (const x of Object.values(params ?? {})) {
      if (typeof x === "object" && x !== null && "inputs" in x && "outputs" in x) verifyGraph(x as Graph, prim.name);
    }
  }
}
