/** Which roundings of rows to bytes are done by the products that read them. */
import { sizeOf } from "../../core/aval.ts";
import { type Graph, type Node, nodesOf } from "../../core/ir/graph.ts";

/** Columns below which a product is not one of rows with rows. */
const leastColumns = 4;

/** The roundings of at most `mostRows` rows that only products with whole packed matrices read. */
export function roundedByProducts({ outputs }: Graph, mostRows: number): ReadonlySet<Node> {
  const nodes = nodesOf(outputs);
  const kept = new Set(
    nodes.filter(({ prim, outs: [rows] }) =>
      prim.lowering.kind === "rounded" && sizeOf(rows.shape.slice(0, -1)) <= mostRows && !outputs.includes(rows)
    ),
  );
  for (const { prim, inputs } of nodes) {
    const [, matrix] = inputs;
    const multiplies = prim.lowering.kind === "contract" && matrix.shape[0] >= leastColumns &&
      matrix.node.inputs[0]?.node.prim.lowering.kind === "leaf";
    if (!multiplies) inputs.forEach((v) => kept.delete(v.node));
  }
  return kept;
}
