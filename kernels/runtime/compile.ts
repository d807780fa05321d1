/** Graph to Program: the passes of steps 3 to 6, in order. */
import { sizeOf } from "../../core/aval.ts";
import { type Graph, nodesOf, type Value } from "../../core/ir/graph.ts";
import { expand } from "../../core/passes/expand.ts";
import { simplify } from "../../core/passes/simplify.ts";
import { type Tensor, tensorPrim } from "../../core/tensor.ts";
import { defaultTrips } from "../plan/costs.ts";
import { cpuCosts } from "../wasm/scalar.ts";
import type { Device } from "../device/device.ts";
import { maxOperands, type Program } from "../ir/kernel.ts";
import { lower } from "../lower/lower.ts";
import { roundedByProducts } from "../lower/rounded.ts";
import { plan } from "../plan/plan.ts";
import { liveAt, rematerialise, type Rematerialised } from "../plan/rematerialise.ts";

/** A program, and the tensors it takes as hidden arguments after its inputs. */
export interface Built {
  readonly graph: Graph;
  readonly program: Program;
  readonly captured: readonly Tensor[];
  readonly memory: MemoryUse;
}

/** What is live at a program's peak memory, and what is rematerialised to lower that peak. */
export interface MemoryUse {
  /** The step at which memory use peaks. */
  readonly step: number;
  readonly live: readonly Value[];
  readonly rematerialised: readonly Rematerialised[];
}

/** What of a device decides which kernels there are. */
export type Target = Pick<Device, "maxOperands" | "roundedRows" | "costs">;

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
 * kernel of its own: what fusion is measured against. What costs at most `trips` times a trip to memory and back is made
 * again where that makes the arena smaller.
 */
export function build(
  graph: Graph,
  donated: ReadonlySet<number> = new Set(),
  fuse = true,
  target: Target = {},
  trips: number = defaultTrips,
): Built {
  return buildOptimised(optimise(graph, target), donated, fuse, target, trips);
}

/** The tensors that a graph mentions, in the order in which it does. */
export function capturesOf(graph: Graph): Map<Tensor, Value> {
  const captures = new Map<Tensor, Value>();
  for (const node of nodesOf(graph.outputs)) {
    if (node.prim === tensorPrim && !captures.has(node.params.tensor)) captures.set(node.params.tensor, node.outs[0]);
  }
  return captures;
}

/** {@link build} of a graph that has gone through {@link optimise}. */
export function buildOptimised(
  optimised: Graph,
  donated: ReadonlySet<number> = new Set(),
  fuse = true,
  target: Target = {},
  trips: number = defaultTrips,
): Built {
  const { inputs } = optimised;
  const captures = capturesOf(optimised);
  const values = [...inputs, ...captures.values()];
  const args = values.map((v, i) => ({
    dtype: v.dtype,
    size: sizeOf(v.shape),
    donated: donated.has(i),
  }));
  const arrange = (graph: Graph, whole: ReadonlySet<Value>, rematerialised: readonly Rematerialised[]) => {
    const lowered = lower(graph, values, fuse, target.maxOperands ?? maxOperands, whole);
    return { graph, whole, rematerialised, lowered, ...plan(lowered, args) };
  };
  const { costs = cpuCosts } = target;
  let best = arrange(optimised, new Set(), []);
  for (let most = Infinity; fuse && best.program.arenaBytes < most;) {
    most = best.program.arenaBytes;
    const { graph, lowered, peak, whole, rematerialised } = best;
    const leaner = rematerialise(graph, lowered, { ...peak, arenaBytes: most }, { costs, trips, whole });
    if (leaner === null) break;
    const next = arrange(leaner.graph, leaner.whole, [...rematerialised, ...leaner.rematerialised]);
    if (next.program.arenaBytes < most) best = next;
  }
  return {
    graph: best.graph,
    program: best.program,
    captured: [...captures.keys()],
    memory: {
      step: best.peak.step,
      // Listed for whoever explains the program, not at every compilation.
      get live() {
        return liveAt(best.lowered, best.peak.launch);
      },
      rematerialised: best.rematerialised,
    },
  };
}
