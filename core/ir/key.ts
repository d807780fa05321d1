import { formatAval } from "../aval.ts";
import { exactText, type Identities } from "../identity.ts";
import { type Tensor, tensorPrim } from "../tensor.ts";
import { type Graph, type Node, nodesOf } from "./graph.ts";

/**
 * Text that is equal for graphs that compute the same from their inputs and captured tensors: nodes in their order, params to
 * the bit, tensors by their avals and by which of them are one.
 */
export function graphKey(graph: Graph, ids: Identities): string {
  const numbers = new Map<Node, number>();
  const tensors = new Map<Tensor, number>();
  graph.inputs.forEach(({ node }) => numbers.set(node, numbers.size));
  const params = ({ prim, params }: Node) => {
    if (prim !== tensorPrim) return exactText(params, ids);
    const tensor: Tensor = params.tensor;
    if (!tensors.has(tensor)) tensors.set(tensor, tensors.size);
    return `${tensors.get(tensor)} ${formatAval(tensor.aval)}`;
  };
  const use = ({ node, index }: Graph["outputs"][number]) => `${numbers.get(node)}.${index}`;
  const lines = graph.inputs.map((v) => formatAval(v.aval));
  for (const node of nodesOf(graph.outputs)) {
    if (numbers.has(node)) continue;
    lines.push(`${node.prim.name}#${ids.of(node.prim)} ${params(node)} ${node.inputs.map(use)}`);
    numbers.set(node, numbers.size);
  }
  return `${lines.join("\n")}\n${graph.outputs.map(use)}`;
}
