/** Row kernels: plain reductions, and composites whose whole definition runs along one row at a time. */
import { formatAval, sameShape, stridesOf } from "../../core/aval.ts";
import { arithmeticType } from "../../core/dtype.ts";
import { LowrankError } from "../../core/errors.ts";
import { newInput, type Node, nodesOf, type Value } from "../../core/ir/graph.ts";
import type { View } from "../../core/ir/lowering.ts";
import type { Phase, RowKernel } from "../ir/kernel.ts";
import { finisher, foldAxes, indicesOf } from "./axes.ts";
import type { Context } from "./context.ts";
import { copyOf, Operands } from "./emit.ts";
import type { Groups } from "./groups.ts";
import { splitLongRow } from "./long_row.ts";
import { type Draft, draftOf, type DraftStore, type Repr } from "./repr.ts";

type DraftPhase =
  | { kind: "reduce"; op: "sum" | "max" | "argmax"; value: Draft }
  | { kind: "each" | "once"; stores: DraftStore[] };

/** Launches phases over `shape`, whose axes are split into those of rows and those along a row. */
function launchRow(
  ctx: Context,
  shape: readonly number[],
  rowAxes: readonly number[],
  along: readonly number[],
  phases: readonly DraftPhase[],
): boolean {
  const drafts = phases.flatMap((p) => p.kind === "reduce" ? [p.value] : []);
  const stores = phases.flatMap((p) => p.kind === "reduce" ? [] : p.stores);
  const indices = indicesOf(drafts, stores);
  const columns = foldAxes(shape, along, indices);
  if (columns.keep.length > 1) return false;
  const rows = foldAxes(shape, rowAxes, indices);
  const operands = new Operands();
  const { expr, index } = finisher([...rows.keep, columns.keep[0] ?? -1], (b) => operands.read(b));
  const finished: Phase[] = phases.map((p) =>
    p.kind === "reduce" ? { ...p, value: expr(p.value) } : {
      kind: p.kind,
      stores: p.stores.map((s) => ({
        value: expr(s.value),
        index: index(s.index),
        operand: operands.write(s.buffer),
      })),
    }
  );
  const kernel: RowKernel = {
    kind: "row",
    operands: operands.list(),
    rows: rows.shape,
    cols: columns.shape[0] ?? 1,
    phases: finished,
  };
  const launch = { kernel, buffers: operands.buffers };
  for (const each of splitLongRow(ctx, launch) ?? [launch]) ctx.launch(each);
  return true;
}

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
  const result: Draft = { kind: "result", type: arithmeticType[out.dtype], phase: 0 };
  const launch = (value: Draft) =>
    launchRow(ctx, x.shape, rowAxes, axes, [
      { kind: "reduce", op, value },
      { kind: "once", stores: [{ buffer, index: { offset: 0, strides }, value: result }] },
    ]);
  // Axes that do not read as one need the input in a buffer of its own.
  if (!launch(groups.draft(x))) {
    const copy = copyOf(ctx, groups.repr(x));
    if (!launch(draftOf(copy))) throw new LowrankError(`${formatAval(x.aval)} over axes [${axes}]: a bug of lowering`);
  }
  ctx.reprs.set(out, repr);
}

/** What is known of a value inside a composite: a window on something outside, or an expression along the row. */
type Inner = { repr: Repr } | { draft: Draft };

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
    env.set(v, inlined ? { draft: groups.draft(outer[i]) } : { repr: groups.repr(outer[i]) });
  });
  const reduces: DraftPhase[] = [];

  const draft = (v: Value): Draft => {
    const inner = env.get(v)!;
    if ("draft" in inner) return inner.draft;
    const made = draftOf(inner.repr, rowStrides(v, inner.repr.view, full));
    env.set(v, { draft: made });
    return made;
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
          const args = n.inputs.map(draft);
          const type = arithmeticType[out.dtype];
          const same = lowering.op === "convert" && args[0].type === type;
          return env.set(out, { draft: same ? args[0] : { kind: "op", type, op: lowering.op, args } });
        }
        case "reduce": {
          const axes = lowering.axes(n.params);
          if (axes.length !== 1 || axes[0] !== rank - 1) throw bug(node, out);
          reduces.push({ kind: "reduce", op: lowering.op, value: draft(n.inputs[0]) });
          return env.set(out, {
            draft: { kind: "result", type: arithmeticType[out.dtype], phase: reduces.length - 1 },
          });
        }
        default:
          throw bug(node, out);
      }
    });
  }

  const each: DraftStore[] = [], once: DraftStore[] = [];
  outputs.forEach((v, i) => {
    const { buffer, repr } = ctx.newWhole(v.aval);
    ctx.reprs.set(node.outs[i], repr);
    const alongRow = sameShape(v.shape, full);
    const strides = alongRow ? stridesOf(full) : [...stridesOf(full.slice(0, -1)), 0];
    (alongRow ? each : once).push({ buffer, index: { offset: 0, strides }, value: draft(v) });
  });
  const stores: DraftPhase[] = [];
  if (each.length > 0) stores.push({ kind: "each", stores: each });
  if (once.length > 0) stores.push({ kind: "once", stores: once });
  launchRow(ctx, full, full.slice(0, -1).map((_, i) => i), [rank - 1], [...reduces, ...stores]);
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
