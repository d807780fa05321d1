import { type Graph, type Node, nodesOf, rebuild } from "../ir/graph.ts";

/** The graph with every composite for which `which` holds replaced by its definition, until none is left. */
export function expand(graph: Graph, which: (node: Node) => boolean): Graph {
  let current = graph;
  const due = (node: Node) => node.prim.define !== undefined && which(node);
  while (nodesOf(current.outputs).some(due)) {
    const outputs = rebuild(
      current,
      current.inputs,
      (node, inputs) => due(node) ? node.prim.define!(inputs, node.params) : null,
      { all: true },
    );
    current = { inputs: current.inputs, outputs };
  }
  return current;
}
