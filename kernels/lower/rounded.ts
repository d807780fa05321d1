/** Which roundings of rows to bytes are done by the products that read them. */
import { sizeOf } from "../../core/aval.ts";
import { type Graph, type Node, nodesOf } from "../../core/ir/graph.ts";

/** Columns below which a product is not one of rows with rows. */
const minColumns = 4;

/** The roundings of at most `maxRows` rows that only products with whole packed matrices read. */
export function roundedByProducts({ outputs }: Graph, maxRows: number): ReadonlySet<Node> {
  const nodes = nodesOf(outputs);
  const kept = new Set(
    nodes.filter(({ prim, outs: [rows] }) =>
      prim.lowering.kind === "rounded" && sizeOf(rows.shape.slice(0, -1)) <= maxRows && !outputs.includes(rows)
    ),
  );
  for (const { prim, inputs } of nodes) {
    const [, matrix] = inputs;
    const multiplies = prim.lowering.kind === "contract" && matrix.shape[0] >= minColumns &&
      matrix.node.inputs[0]?.node.prim.lowering.kind === "leaf";
    if (!multiplies) inputs.forEach((v) => kept.delete(v.node));
  }
  return kept;
}
