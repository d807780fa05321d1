/** Where a model adds what a part of it gives to its stream: the places between which bottleneck layers stand. */
import { sameShape } from "../../core/aval.ts";
import { bind, type Graph, newInput, type Node, nodesOf, type Value } from "../../core/ir/graph.ts";
import type { Leaf, Model } from "../../core/model.ts";
import { add } from "../../core/ops/elementwise.ts";
import { trace } from "../../core/trace.ts";
import { flatten } from "../../core/tree.ts";
import { side } from "./analyse.ts";
import { type Followed, rewriteGraph } from "./rewrite.ts";

/** A linear layer whose output is added to the stream. */
export interface Sublayer {
  /** Its weight among the graph's inputs. */
  readonly leaf: number;
  /** Whether it ends an attention, or else a feed-forward part. */
  readonly ends: "attention" | "feedforward";
  /** @ignore What gives its output, its bias in it. */
  readonly output: Node;
  /** @ignore What adds that to the stream. */
  readonly sum: Node;
  /** @ignore The norm of that sum, where nothing else reads the sum. */
  readonly norm: Node | null;
}

/** Operations that only move numbers about, or store them otherwise. */
const passing = new Set(["reshape", "transpose", "convert", "slice"]);
const norms = new Set(["layerNorm", "rmsNorm"]);

/** The graphs of a graph: itself, and its nodes' bodies. */
function graphsOf(graph: Graph): Graph[] {
  const bodies = nodesOf(graph.outputs).flatMap(({ params }) =>
    params?.body === undefined ? [] : [params.body as Graph]
  );
  return [graph, ...bodies.flatMap(graphsOf)];
}

/** Which nodes read each value, in the graph or one of its bodies. */
function readersOf(graph: Graph): Map<Value, Node[]> {
  const readers = new Map<Value, Node[]>();
  for (const { outputs } of graphsOf(graph)) {
    for (const node of nodesOf(outputs)) {
      for (const v of new Set(node.inputs)) readers.set(v, [...readers.get(v) ?? [], node]);
    }
  }
  return readers;
}

/** Whether numbers along the last axis alone are repeated: a bias. */
function isBias(v: Value): boolean {
  let at = v;
  while (["convert", "broadcast", "reshape"].includes(at.node.prim.name)) at = at.node.inputs[0];
  return at !== v && at.shape.length === 1;
}

/** Whether a value is what an attention gives, moved about. */
function isAttended(v: Value): boolean {
  let at = v;
  while (passing.has(at.node.prim.name)) at = at.node.inputs[0];
  return at.node.prim.name === "attention";
}

/** The sublayers of a graph whose first inputs are a model's parameters, so many. */
export function sublayersOf(graph: Graph, count: number): Sublayer[] {
  const leaves = graph.inputs.slice(0, count).flatMap(({ shape, dtype }, i) =>
    shape.length === 2 && dtype !== "i32" ? [i] : []
  );
  const readers = readersOf(graph), found: Sublayer[] = [];
  /** The one addition that reads a value, and what it adds. */
  const added = (v: Value): readonly [Node, Value] | null => {
    const adds = (readers.get(v) ?? []).filter(({ prim }) => prim.name === "add");
    return adds.length === 1 ? [adds[0], adds[0].inputs.find((x) => x !== v) ?? v] : null;
  };
  const weights = new Map<number, readonly Followed[]>();
  for (const leaf of leaves) {
    const [rows, columns] = graph.inputs[leaf].shape;
    const [u, v] = [newInput({ shape: [rows, 1], dtype: "f32" }), newInput({ shape: [1, columns], dtype: "f32" })];
    weights.set(leaf, [{
      factors: { pair: [side(u, "last", 0), side(v, "first", 1)] },
      use: () => ({ scaling: 1 }),
      met: (kind, _inSide, node) => {
        if (kind !== "product") return;
        const [y] = node.outs;
        let output = node, sum = added(y);
        if (sum !== null && isBias(sum[1])) [output, sum] = [sum[0], added(sum[0].outs[0])];
        if (sum === null || !sameShape(sum[1].shape, y.shape) || isBias(sum[1])) return;
        const after = readers.get(sum[0].outs[0]) ?? [];
        found.push({
          ...{ leaf, output, sum: sum[0] },
          ends: node.inputs.some(isAttended) ? "attention" : "feedforward",
          norm: after.length === 1 && norms.has(after[0].prim.name) ? after[0] : null,
        });
      },
      refuse: () => {},
    }]);
  }
  rewriteGraph(graph, graph.inputs, weights);
  // The last sum of a model that norms what its sublayers read is read by its last norm alone, too.
  return found.every(({ norm }) => norm !== null) ? found : found.map((one) => ({ ...one, norm: null }));
}

/** The sublayers of a model, by the paths of the weights that end them. */
export function sublayersOfModel<P, I>(model: Model<P, I, unknown>): ReadonlyMap<string, Sublayer> {
  const { paths } = flatten<Leaf>(model.params);
  const { graph } = trace((p: P, x: I) => model.apply(p, x), [model.params, model.sample]);
  return new Map(sublayersOf(graph, paths.length).map((one) => [paths[one.leaf], one]));
}

/** What stands after a sublayer, added to what it gives or to the stream that it is added to. */
export function branched(
  { output, sum, norm }: Sublayer,
  { of, branch }: { readonly of: "output" | "sum"; branch(x: Value): Value },
): readonly [Node, (y: Value, given: (v: Value) => Value) => Value] {
  if (of === "output") return [output, (y) => add(y, branch(y))];
  // Where the sum is read by a norm alone, the layer reads what that makes of it.
  const read = (y: Value, given: (v: Value) => Value) =>
    norm === null ? y : bind(norm.prim, [y, ...norm.inputs.slice(1).map(given)], norm.params)[0];
  return [sum, (y, given) => add(y, branch(read(y, given)))];
}
