import type { DType } from "../dtype.ts";
import { exactText, Identities } from "../identity.ts";
import { bind, bind1, type Graph, type Node, rebuild, type Value } from "../ir/graph.ts";
import { broadcastPrim, broadcastTo, reshape, reshapePrim } from "../ops/broadcast.ts";
import { constant, constantPrim } from "../ops/constant.ts";
import { convertPrim, primitives } from "../ops/elementwise.ts";
import { transpose, transposePrim } from "../ops/structure.ts";

/** The number that stands in every place of a value, or null. */
function constantOf(v: Value): number | null {
  while (v.node.prim === broadcastPrim || v.node.prim === reshapePrim || v.node.prim === transposePrim) {
    v = v.node.inputs[0];
  }
  return v.node.prim === constantPrim ? v.node.params.value : null;
}

/**
 * One walk that folds what is trivially known and shares equal nodes: the arithmetic of neutral elements, views of views,
 * conversions to the same dtype. Values, not their bits, are kept: x + 0 becomes x.
 */
export function simplify(graph: Graph): Graph {
  const ids = new Identities();
  const known = new Map<string, readonly Value[]>();
  // Nodes made by the folding itself are looked up too, so that equal foldings are shared.
  const share = (node: Node, inputs: readonly Value[]): readonly Value[] => {
    const key = `${node.prim.name} ${exactText(node.params, ids)} ${inputs.map((v) => ids.of(v))}`;
    const found = known.get(key);
    if (found) return found;
    // Every node is built again, changed or not: that keeps the order of creation, which is the order things are run in.
    const outs = node.prim.lowering.kind === "leaf" ? node.outs : bind(node.prim, inputs, node.params);
    known.set(key, outs);
    return outs;
  };
  const outputs = rebuild(graph, graph.inputs, (node, inputs) => {
    const folded = fold(node, inputs);
    return folded ? [folded] : share(node, inputs);
  }, { all: true });
  return { inputs: graph.inputs, outputs };
}

/** a·b as a kernel computes it. */
function product(a: number, b: number, dtype: DType): number {
  if (dtype === "f32") return Math.fround(a * b);
  return dtype === "u32" ? Math.imul(a, b) >>> 0 : Math.imul(a, b);
}

function fold(node: Node, inputs: readonly Value[]): Value | null {
  const { prim, params } = node;
  const [a, b] = inputs;
  switch (prim) {
    case primitives.add:
      return constantOf(b) === 0 ? a : constantOf(a) === 0 ? b : null;
    case primitives.sub:
      return constantOf(b) === 0 ? a : null;
    case primitives.mul: {
      const [ca, cb] = [constantOf(a), constantOf(b)];
      if (ca !== null && cb !== null) return broadcastTo(constant(product(ca, cb, a.dtype), a.dtype), a.shape);
      return cb === 1 ? a : ca === 1 ? b : null;
    }
    case primitives.div:
      return constantOf(b) === 1 ? a : null;
    case primitives.neg:
      return a.node.prim === primitives.neg ? a.node.inputs[0] : null;
    case convertPrim: {
      const c = constantOf(a);
      if (params.dtype === a.dtype) return a;
      return c !== null && params.dtype === "f32" && a.dtype !== "bool"
        ? broadcastTo(constant(Math.fround(c)), a.shape)
        : null;
    }
    case transposePrim: {
      if (a.node.prim !== transposePrim) return null;
      const first: readonly number[] = a.node.params.permutation;
      return transpose(a.node.inputs[0], params.permutation.map((i: number) => first[i]));
    }
    case reshapePrim:
      return a.node.prim === reshapePrim ? reshape(a.node.inputs[0], params.shape) : null;
    case broadcastPrim: {
      if (a.node.prim !== broadcastPrim) return null;
      const inner: { dims: readonly number[] } = a.node.params;
      return bind1(broadcastPrim, [a.node.inputs[0]], {
        shape: params.shape,
        dims: inner.dims.map((d) => params.dims[d]),
      });
    }
    default:
      return null;
  }
}
