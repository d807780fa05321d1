/** Graph to Program: the passes of steps 3 to 6, in order. */
import { type Graph, nodesOf, type Value } from "../core/ir/graph.ts";
import { expand } from "../core/passes/expand.ts";
import { simplify } from "../core/passes/simplify.ts";
import { type Tensor, tensorPrim } from "../core/tensor.ts";
import { maxOperands, type Program } from "./kernel.ts";
import { lower } from "./lower/lower.ts";
import { plan } from "./plan.ts";

/** A program, and the tensors it takes as hidden arguments after its inputs. */
export interface Built {
  readonly graph: Graph;
  readonly program: Program;
  readonly captured: readonly Tensor[];
}

/** The graph as it is lowered: composites without a kernel of their own replaced by what they mean, then simplified. */
export function optimise(graph: Graph): Graph {
  return simplify(expand(graph, (node) => node.prim.lowering.kind === "expand"));
}

/**
 * Builds the program of a traced graph; `donated` names the inputs whose memory it may reuse. Without `fuse` each node is a
 * kernel of its own: what fusion is measured against.
 */
export function build(graph: Graph, donated: ReadonlySet<number> = new Set(), fuse = true, most = maxOperands): Built {
  const optimised = optimise(graph);
  const captures = new Map<Tensor, Value>();
  for (const node of nodesOf(optimised.outputs)) {
    if (node.prim === tensorPrim && !captures.has(node.params.tensor)) captures.set(node.params.tensor, node.outs[0]);
  }
  const values = [...graph.inputs, ...captures.values()];
  const args = values.map((v, i) => ({
    dtype: v.dtype,
    size: v.shape.reduce((n, d) => n * d, 1),
    donated: donated.has(i),
  }));
  return {
    graph: optimised,
    program: plan(lower(optimised, values, fuse, most), args),
    captured: [...captures.keys()],
  };
}
