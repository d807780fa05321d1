/** Graph to Program: the passes of steps 3 to 6, in order. */
import { type Graph, nodesOf, type Value } from "../core/ir/graph.ts";
import { expand } from "../core/passes/expand.ts";
import { simplify } from "../core/passes/simplify.ts";
import { type Tensor, tensorPrim } from "../core/tensor.ts";
import type { Device } from "./device/device.ts";
import { maxOperands, type Program } from "./kernel.ts";
import { lower } from "./lower/lower.ts";
import { roundedByProducts } from "./lower/rounded.ts";
import { plan } from "./plan.ts";

/** A program, and the tensors it takes as hidden arguments after its inputs. */
export interface Built {
  readonly graph: Graph;
  readonly program: Program;
  readonly captured: readonly Tensor[];
}

/** What of a device decides which kernels there are. */
export type Target = Pick<Device, "maxOperands" | "roundedRows">;

/**
 * The graph as it is lowered: composites replaced by what they mean, but for those with kernels of their own and what the
 * device's products do themselves, then simplified.
 */
export function optimise(graph: Graph, { roundedRows = 0 }: Target = {}): Graph {
  const opened = expand(graph, (node) => node.prim.lowering.kind === "expand");
  const kept = roundedByProducts(opened, roundedRows);
  return simplify(expand(opened, (node) => node.prim.lowering.kind === "rounded" && !kept.has(node)));
}

/**
 * Builds the program of a traced graph; `donated` names the inputs whose memory it may reuse. Without `fuse` each node is a
 * kernel of its own: what fusion is measured against.
 */
export function build(
  graph: Graph,
  donated: ReadonlySet<number> = new Set(),
  fuse = true,
  target: Target = {},
): Built {
  const optimised = optimise(graph, target);
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
    program: plan(lower(optimised, values, fuse, target.maxOperands ?? maxOperands), args),
    captured: [...captures.keys()],
  };
}
