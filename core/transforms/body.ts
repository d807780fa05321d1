import { type Aval, formatAval } from "../aval.ts";
import { ShapeError } from "../errors.ts";
import { type Graph, newInput, type Node, nodesOf, rebuild, serialNow, type Value } from "../ir/graph.ts";
import { tensorPrim } from "../tensor.ts";

/** A graph that depends on nothing but its inputs: what a node can carry as its body. */
export interface Closed {
  readonly graph: Graph;
  /** The values that the body mentioned from outside, in the order of the graph's last inputs. */
  readonly captures: readonly Value[];
}

/**
 * Traces `f` on fresh inputs of `avals`, and turns every outside value that it mentions, tensors included, into one more
 * input. With `known` the captures start with those, in that order.
 */
export function closeOver(
  f: (inputs: readonly Value[]) => readonly Value[],
  avals: readonly Aval[],
  known: readonly Value[] = [],
): Closed {
  const start = serialNow();
  const inputs = avals.map((aval) => newInput(aval));
  const outputs = f(inputs);
  const outside = (node: Node) => node.serial < start || node.prim === tensorPrim;
  const captures = new Set(known);
  for (const node of nodesOf(outputs, outside)) {
    for (const v of node.inputs) if (outside(v.node)) captures.add(v);
  }
  for (const v of outputs) if (outside(v.node)) captures.add(v);
  const formal = [...captures].map((v) => newInput(v.aval));
  const graph = { inputs: [...inputs, ...formal], outputs: close(inputs, outputs, [...captures], formal) };
  return { graph, captures: [...captures] };
}

/** The outputs with each capture replaced by its formal input. */
function close(
  inputs: readonly Value[],
  outputs: readonly Value[],
  captures: readonly Value[],
  formal: readonly Value[],
): Value[] {
  if (captures.length === 0) return [...outputs];
  // Constants made inside the body depend on nothing and are shared, which `rebuild` does by itself.
  return rebuild({ inputs: [...inputs, ...captures], outputs }, [...inputs, ...formal]);
}

/** The avals of a body's outputs, after its arguments were checked against its inputs. */
export function inferBody(name: string, graph: Graph, args: readonly Aval[]): Aval[] {
  args.forEach((aval, i) => {
    const want = formatAval(graph.inputs[i].aval);
    if (formatAval(aval) !== want) {
      throw new ShapeError(`Cannot ${name}: operand ${i} is ${formatAval(aval)}, but its body takes ${want}`);
    }
  });
  return graph.outputs.map((v) => v.aval);
}
