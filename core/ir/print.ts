/** Graphs as text: one line per node, names that depend on the graph alone. */
import { formatAval } from "../aval.ts";
import { type Graph, inputPrim, type Node, nodesOf, type Value } from "./graph.ts";
import { checkMembers } from "../options.ts";

/**
 * A graph as text. Values are %0, %1, … in the order of the inputs and then of creation, so equal programs print equally; a
 * value from outside is a `capture`. Bodies of nodes are printed below them, indented.
 *
 * ```text
 * %0: f32[2,3] = input x
 * %1: f32[3,4] = input w
 * %2: f32[2,4] = dot %0, %1 contract=[[1],[0]] batch=[[],[]]
 * return %2
 * ```
 *
 * @example
 * ```ts
 * import { matmul, newInput, printGraph } from "@lowrank/lowrank";
 *
 * const inputs = [newInput({ shape: [2, 3], dtype: "f32" }, "x"), newInput({ shape: [3, 4], dtype: "f32" }, "w")];
 * console.log(printGraph({ inputs, outputs: [matmul(inputs[0], inputs[1])] }));
 * ```
 */
export function printGraph(graph: Graph): string {
  checkMembers("printGraph", "a graph", graph, ["inputs", "outputs"]);
  const names = new Map<Value, string>();
  const lines: string[] = [];
  const own = new Set(graph.inputs.map((v) => v.node));
  const emit = (node: Node, text: string) => {
    for (const v of node.outs) names.set(v, `%${names.size}`);
    lines.push(`${node.outs.map((v) => `${names.get(v)}: ${formatAval(v.aval)}`).join(", ")} = ${text}`);
  };
  for (const { node } of graph.inputs) if (!names.has(node.outs[0])) emit(node, `input ${node.params.name}`.trimEnd());
  for (const node of nodesOf(graph.outputs, (n) => own.has(n))) {
    const { prim, params } = node;
    if (prim === inputPrim) {
      emit(node, `capture ${params.name}`.trimEnd());
      continue;
    }
    const bodies: string[] = [];
    const text = [
      prim.name,
      node.inputs.map((v) => names.get(v)).join(", "),
      ...Object.entries(params ?? {}).map(([key, x]) => {
        if (!isGraph(x)) return `${key}=${printParam(x)}`;
        bodies.push(`  ${key}:\n` + printGraph(x).replace(/^/gm, "    "));
        return "";
      }),
    ];
    emit(node, text.filter((part) => part !== "").join(" "));
    lines.push(...bodies);
  }
  lines.push(`return ${graph.outputs.map((v) => names.get(v)).join(", ")}`);
  return lines.join("\n");
}

function isGraph(x: unknown): x is Graph {
  return typeof x === "object" && x !== null && "inputs" in x && "outputs" in x;
}

function printParam(x: unknown): string {
  if (typeof x === "function") return "function";
  // A tensor is shown by its shape and dtype; its contents are not part of the program.
  if (typeof x === "object" && x !== null && !Array.isArray(x) && "aval" in x) return x.toString();
  return typeof x === "object" ? JSON.stringify(x) : String(x);
}
