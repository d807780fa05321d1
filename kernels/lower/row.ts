/** Row kernels: plain reductions, and composites whose whole definition runs along one row at a time. */
import type { ScalarOp } from "../../core/ops/elementwise.ts";
import { sameShape, stridesOf } from "../../core/aval.ts";
import { arithmeticType } from "../../core/dtype.ts";
import { LowrankError } from "../../core/errors.ts";
import { newInput, type Node, nodesOf, type Value } from "../../core/ir/graph.ts";
import type { View } from "../../core/ir/lowering.ts";
import { type Expr, opOf, type Store } from "../ir/expr.ts";
import { isOneAxis } from "../ir/fold.ts";
import type { Phase } from "../ir/kernel.ts";
import { indicesOf } from "./body.ts";
import type { Context } from "./context.ts";
import { copyOf } from "./copy.ts";
import type { Groups } from "./groups.ts";
import { exprOf, type Memory, type Repr } from "./repr.ts";

/** A reduction over neighbouring axes; the elementwise work that leads to it runs inside. */
export function lowerReduce(
  ctx: Context,
  groups: Groups,
  node: Node,
  op: "sum" | "max" | "argmax",
  axes: readonly number[],
): void {
  const [x] = ctx.inputs(node);
  const out = node.outs[0];
  const { buffer, repr } = ctx.newWhole(out.aval);
  const rowAxes = x.shape.map((_, i) => i).filter((i) => !axes.includes(i));
  const outStrides = stridesOf(out.shape);
  const strides = x.shape.map((_, i) => rowAxes.includes(i) ? outStrides[rowAxes.indexOf(i)] : 0);
  // Axes that do not read as one need the input in a buffer of its own.
  let value = groups.expr(x);
  if (!isOneAxis(x.shape, axes, indicesOf([value], []))) value = exprOf(copyOf(ctx, groups.repr(x)));
  const result: Expr<Memory> = { kind: "result", type: arithmeticType[out.dtype], phase: 0 };
  const stores = [{ operand: buffer, index: { offset: 0, strides }, value: result }];
  const phases: Phase<Memory>[] = [{ kind: "reduce", op, value }, { kind: "once", stores }];
  ctx.launch({ kind: "row", shape: x.shape, rows: rowAxes, columns: axes, phases });
  ctx.reprs.set(out, repr);
}

/** What is known of a value inside a composite: a window on something outside, or an expression along the row. */
type Inner = { repr: Repr } | { expr: Expr<Memory> };

/** One kernel for a composite: its reductions as phases, then its outputs. */
export function lowerRowComposite(ctx: Context, groups: Groups, node: Node): void {
  const outer = ctx.inputs(node);
  const inputs = outer.map((v) => newInput(v.aval));
  const outputs = node.prim.define!(inputs, node.params);
  const nodes = nodesOf(outputs);
  const full = fullShape(node, nodes, outputs);
  const rank = full.length;
  const env = new Map<Value, Inner>();
  inputs.forEach((v, i) => {
    const inlined = ctx.inlined.has(outer[i]) && sameShape(outer[i].shape, full);
    env.set(v, inlined ? { expr: groups.expr(outer[i]) } : { repr: groups.repr(outer[i]) });
  });
  const reduces: Phase<Memory>[] = [];

  const exprAt = (v: Value): Expr<Memory> => {
    const inner = env.get(v)!;
    if ("expr" in inner) return inner.expr;
    const expr = exprOf(inner.repr, rowStrides(v, inner.repr.view, full));
    env.set(v, { expr });
    return expr;
  };

  for (const n of nodes) {
    const { lowering } = n.prim;
    n.outs.forEach((out, index) => {
      if (env.has(out)) return;
      switch (lowering.kind) {
        case "constant":
          return env.set(out, {
            repr: {
              base: { constant: lowering.value(n.params) },
              view: { shape: [], offset: 0, strides: [] },
              dtype: out.dtype,
            },
          });
        case "iota": {
          const strides = out.shape.map((_, i) => i === lowering.axis(n.params) ? 1 : 0);
          return env.set(out, {
            repr: { base: "counter", view: { shape: out.shape, offset: 0, strides }, dtype: out.dtype },
          });
        }
        case "alias":
          return env.set(out, env.get(n.inputs[index])!);
        case "view": {
          const source = env.get(n.inputs[0])!;
          if ("repr" in source) {
            const view = lowering.view(source.repr.view, n.params, out.aval, index);
            if (!view) throw bug(node, out);
            return env.set(out, { repr: { ...source.repr, view } });
          }
          // A computed value may only gain or lose the axis along the row.
          const rows = full.slice(0, -1);
          if (![full, rows, [...rows, 1]].some((s) => sameShape(s, out.shape))) throw bug(node, out);
          return env.set(out, source);
        }
        case "scalar": {
          const args = n.inputs.map(exprAt);
          const type = arithmeticType[out.dtype];
          const same = lowering.op === "convert" && args[0].type === type;
          return env.set(out, { expr: same ? args[0] : opOf(lowering.op as ScalarOp, type, ...args) });
        }
        case "reduce": {
          const axes = lowering.axes(n.params);
          if (axes.length !== 1 || axes[0] !== rank - 1) throw bug(node, out);
          reduces.push({ kind: "reduce", op: lowering.op, value: exprAt(n.inputs[0]) });
          return env.set(out, {
            expr: { kind: "result", type: arithmeticType[out.dtype], phase: reduces.length - 1 },
          });
        }
        default:
          throw bug(node, out);
      }
    });
  }

  const each: Store<Memory>[] = [], once: Store<Memory>[] = [];
  outputs.forEach((v, i) => {
    const { buffer, repr } = ctx.newWhole(v.aval);
    ctx.reprs.set(node.outs[i], repr);
    const alongRow = sameShape(v.shape, full);
    const strides = alongRow ? stridesOf(full) : [...stridesOf(full.slice(0, -1)), 0];
    (alongRow ? each : once).push({ operand: buffer, index: { offset: 0, strides }, value: exprAt(v) });
  });
  const stores: Phase<Memory>[] = [];
  if (each.length > 0) stores.push({ kind: "each", stores: each });
  if (once.length > 0) stores.push({ kind: "once", stores: once });
  const rows = full.slice(0, -1).map((_, i) => i);
  ctx.launch({ kind: "row", shape: full, rows, columns: [rank - 1], phases: [...reduces, ...stores] });
}

/** The shape that a composite's reductions run over, or of its widest output where it has none. */
function fullShape(node: Node, nodes: readonly Node[], outputs: readonly Value[]): readonly number[] {
  const reduced = nodes.filter((n) => n.prim.lowering.kind === "reduce").map((n) => n.inputs[0].shape);
  const shape = reduced[0] ?? outputs[0].shape;
  if (reduced.some((s) => !sameShape(s, shape))) throw bug(node, outputs[0]);
  return shape;
}

/** Strides over the full shape for a window of the full shape, of the rows, or of the rows with a last axis of 1. */
function rowStrides(v: Value, view: View, full: readonly number[]): number[] {
  if (sameShape(v.shape, full)) return [...view.strides];
  if (v.shape.length === full.length && v.shape.at(-1) === 1) return [...view.strides.slice(0, -1), 0];
  if (v.shape.length === full.length - 1) return [...view.strides, 0];
  if (v.shape.length === 0) return full.map(() => 0);
  throw new LowrankError(`${v.toString()} does not run along rows of [${full}]: this is a bug of lowering`);
}

function bug(node: Node, v: Value): LowrankError {
  return new LowrankError(
    `the definition of ${node.prim.name} does not run along rows at ${v.toString()}: lower it by expansion`,
  );
}
