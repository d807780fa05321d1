/** Graph to launches: one pass over the nodes in order, each dispatched on the kind of its lowering. */
import { sizeOf } from "../../core/aval.ts";
import { LowrankError } from "../../core/errors.ts";
import type { Graph, Node, Value } from "../../core/ir/graph.ts";
import { freeAxes } from "../../core/ops/contract.ts";
import { reshapePrim, reshapeView, wholeView } from "../../core/ops/broadcast.ts";
import { isPacked } from "../../core/packed/blocks.ts";
import { constOf } from "../ir/expr.ts";
import { maxOperands } from "../ir/kernel.ts";
import { lowerAttention } from "./attention.ts";
import type { Launch } from "./body.ts";
import { Context } from "./context.ts";
import { copyOf, copyWords } from "./copy.ts";
import { clamp, Groups } from "./groups.ts";
import { limitInlined } from "./inline_limit.ts";
import { type Buffer, exprOf, isBuffer, isWhole, type Repr } from "./repr.ts";
import { lowerReduce, lowerRowComposite } from "./row.ts";

/** What a graph became: launches in order, and the buffer of each output. */
export interface Lowered {
  readonly launches: readonly Launch[];
  readonly outputs: readonly Buffer[];
  /** How each value is represented. */
  readonly reprs: ReadonlyMap<Value, Repr>;
}

/** Elementwise kinds, which fuse. */
const fusable = new Set(["scalar", "random", "gather", "dynamicSlice"]);

/**
 * Lowers a graph whose composites have been expanded but for those with kernels of their own. `args` are the values that
 * become arguments 0, 1, …: inputs and tensors. Without `fuse` every node is launched as soon as it is met. The values in
 * `whole` are written to memory even if only one kernel reads them.
 */
export function lower(
  graph: Graph,
  args: readonly Value[],
  fuse = true,
  most = maxOperands,
  whole: ReadonlySet<Value> = new Set(),
): Lowered {
  const ctx = new Context(graph);
  const groups = new Groups(ctx, most);
  args.forEach((v, i) => {
    const buffer = ctx.newBuffer(v.dtype, sizeOf(v.shape), i);
    ctx.reprs.set(v, { base: buffer, view: wholeView(v.shape), dtype: v.dtype });
  });
  if (fuse) markInlined(ctx, whole);
  limitInlined(ctx, most);
  placePieces(ctx);
  for (const node of ctx.nodes) {
    lowerNode(ctx, groups, node);
    const { kind } = node.prim.lowering;
    if (!fuse && (kind === "contract" || fusable.has(kind))) groups.repr(node.outs[0]);
  }
  const taken = new Set<Buffer>();
  const outputs = graph.outputs.map((value) => {
    const v = ctx.resolve(value);
    let repr = groups.repr(v);
    if (isPacked(v.dtype)) return copyWords(ctx, repr.base as Buffer);
    const own = isBuffer(repr.base) && repr.base.argument === undefined && isWhole(repr, v.aval);
    if (!own || taken.has(repr.base as Buffer)) repr = copyOf(ctx, repr);
    taken.add(repr.base as Buffer);
    return repr.base as Buffer;
  });
  return { launches: ctx.launches, outputs, reprs: ctx.reprs };
}

/**
 * Elementwise values whose one consumer is a reduction, a row composite, a concat or a pad, or another such value, are
 * computed there: no buffer is written for them.
 */
function markInlined(ctx: Context, whole: ReadonlySet<Value>): void {
  for (const node of ctx.nodes.toReversed()) {
    const kind = node.prim.lowering.kind;
    if (kind !== "scalar" && kind !== "random") continue;
    const v = node.outs[0];
    const users = ctx.consumers.get(v) ?? [];
    if (users.length !== 1 || ctx.outputs.has(v) || whole.has(v) || v.dtype === "f16" || v.dtype === "bf16") continue;
    const [user] = users;
    const into = user.prim.lowering.kind;
    const reads = user.inputs.filter((x) => ctx.resolve(x) === v).length;
    const alone = into === "reduce" || into === "concat" || into === "pad" ||
      (into === "row" && user.inputs.every((x) => x.shape.length <= v.shape.length)) ||
      (into === "scalar" && ctx.inlined.has(user.outs[0]));
    // What reads a product may ride in the epilogue of its kernel, unless the product is stored for later readers anyway.
    const epilogue = ctx.inputs(node).some((x) =>
      x.node.prim.lowering.kind === "contract" && !ctx.consumers.get(x)!.some((n) => n.serial > user.serial)
    );
    if (alone && reads === 1 && !epilogue) ctx.inlined.add(v);
  }
}

/**
 * Pieces of a concatenation that products, elementwise groups or attention make for it alone are written where they
 * belong, instead of being copied there.
 */
function placePieces(ctx: Context): void {
  for (const node of ctx.nodes) {
    const { lowering } = node.prim;
    if (lowering.kind !== "concat") continue;
    const out = node.outs[0];
    const axis = lowering.axis(node.params);
    const { buffer, repr } = ctx.newWhole(out.aval);
    ctx.reprs.set(out, repr);
    let at = 0;
    const pieces = ctx.inputs(node);
    for (const piece of pieces) {
      const window = { shape: piece.shape, offset: at * repr.view.strides[axis], strides: repr.view.strides };
      at += piece.shape[axis];
      const maker = pieces.indexOf(piece) === pieces.lastIndexOf(piece) ? soleMaker(ctx, piece) : null;
      const view = maker && reshapeView(window, maker.shape);
      if (maker && view) ctx.destinations.set(maker, { base: buffer, view, dtype: out.dtype });
    }
  }
}

/** The value that a kernel makes for `v` alone, through nothing but reshapes; null where others read it too. */
function soleMaker(ctx: Context, v: Value): Value | null {
  for (;;) {
    if (ctx.consumers.get(v)!.length !== 1 || ctx.outputs.has(v) || ctx.inlined.has(v)) return null;
    const { node } = v;
    const { kind } = node.prim.lowering;
    if (kind === "attention" || kind === "contract" || kind === "scalar") return v;
    if (node.prim !== reshapePrim) return null;
    v = ctx.resolve(node.inputs[0]);
  }
}

function lowerNode(ctx: Context, groups: Groups, node: Node): void {
  const { lowering } = node.prim;
  const out = node.outs[0];
  if (ctx.inlined.has(out)) return;
  if (fusable.has(lowering.kind)) return groups.join(node);
  switch (lowering.kind) {
    case "alias":
    case "rounded":
      // The products that read it round its input.
      return;
    case "leaf":
      if (!ctx.reprs.has(out)) {
        throw new LowrankError(
          `a value of another trace was used here (${out.toString()}): a traced function must return what it computes, ` +
            `not store it for later`,
        );
      }
      return;
    case "constant":
      ctx.reprs.set(out, {
        base: { constant: lowering.value(node.params) },
        view: { shape: [], offset: 0, strides: [] },
        dtype: out.dtype,
      });
      return;
    case "iota": {
      const axis = lowering.axis(node.params);
      const strides = out.shape.map((_, i) => i === axis ? 1 : 0);
      ctx.reprs.set(out, { base: "counter", view: { shape: out.shape, offset: 0, strides }, dtype: out.dtype });
      return;
    }
    case "view": {
      const [x] = ctx.inputs(node);
      let source: Repr = groups.repr(x);
      node.outs.forEach((v, index) => {
        let view = lowering.view(source.view, node.params, v.aval, index);
        if (!view) {
          source = copyOf(ctx, source);
          view = lowering.view(source.view, node.params, v.aval, index)!;
        }
        ctx.reprs.set(v, { ...source, view });
      });
      return;
    }
    case "contract": {
      const [left, b] = ctx.inputs(node);
      const rounded = left.node.prim.lowering.kind === "rounded";
      const a = rounded ? ctx.inputs(left.node)[0] : left;
      let rows = groups.repr(a);
      // Rounded rows are read in place.
      if (rounded && rows.view.strides.at(-1) !== 1) rows = copyOf(ctx, rows);
      const dims = node.params;
      groups.addContraction(out, {
        batch: dims.batch[0].length,
        free: freeAxes(a.shape.length, dims.contract[0], dims.batch[0]).length,
        segments: [{ a: rows, b: groups.repr(b), dims, rounded }],
      });
      return;
    }
    case "reduce":
      return lowerReduce(ctx, groups, node, lowering.op, lowering.axes(node.params));
    case "row":
      return lowerRowComposite(ctx, groups, node);
    case "concat": {
      const axis = lowering.axis(node.params);
      const { base, view } = ctx.reprs.get(out)!;
      let at = 0;
      for (const x of ctx.inputs(node)) {
        const index = { offset: at * view.strides[axis], strides: view.strides };
        at += x.shape[axis];
        // A piece that was written in place has nothing left to do.
        const placed = !ctx.inlined.has(x) && groups.repr(x).base === base;
        if (placed) continue;
        const stores = [{ operand: base as Buffer, index, value: groups.expr(x) }];
        ctx.launch({ kind: "map", shape: x.shape, stores });
      }
      return;
    }
    case "pad": {
      const [x] = ctx.inputs(node);
      const { buffer, repr } = ctx.newWhole(out.aval);
      const { strides } = repr.view;
      const value = groups.expr(x);
      const nothing = constOf(value.type, 0);
      const all = [{ operand: buffer, index: { offset: 0, strides }, value: nothing }];
      ctx.launch({ kind: "map", shape: out.shape, stores: all });
      const offset = lowering.low(node.params).reduce((sum, n, i) => sum + n * strides[i], 0);
      ctx.launch({ kind: "map", shape: x.shape, stores: [{ operand: buffer, index: { offset, strides }, value }] });
      ctx.reprs.set(out, repr);
      return;
    }
    case "dynamicUpdate":
      return lowerDynamicUpdate(ctx, groups, node);
    case "scatter":
      return lowerScatter(ctx, groups, node);
    case "attention":
      return lowerAttention(ctx, groups, node, lowering.pass);
    default:
      throw new LowrankError(
        `${node.prim.name} (${lowering.kind}) has no kernel and was not expanded: a bug of lowering`,
      );
  }
}

/** A copy, which a plan leaves out where it can, then a write over the window. */
function lowerDynamicUpdate(ctx: Context, groups: Groups, node: Node): void {
  const [x, update, ...starts] = ctx.inputs(node);
  const out = node.outs[0];
  const source = groups.repr(x);
  const { buffer, repr } = ctx.newWhole(out.aval);
  const { strides } = repr.view;
  const zeros = update.shape.map(() => 0);
  const dynamic = starts.map((s, axis) => ({
    value: clamp(exprOf(groups.repr(s), zeros), x.shape[axis] - update.shape[axis]),
    stride: strides[axis],
  }));
  const value = groups.expr(update);
  const elidable = isWhole(source, x.aval) ? { from: source.base as Buffer, to: buffer } : undefined;
  const copied = [{ operand: buffer, index: { offset: 0, strides }, value: exprOf(source) }];
  ctx.launch({ kind: "map", shape: out.shape, stores: copied, elidable });
  const written = [{ operand: buffer, index: { offset: 0, strides, dynamic }, value }];
  ctx.launch({ kind: "map", shape: update.shape, stores: written });
  ctx.reprs.set(out, repr);
}

function lowerScatter(ctx: Context, groups: Groups, node: Node): void {
  const [indices, updates] = ctx.inputs(node);
  const out = node.outs[0];
  const whole = (v: Value): Buffer => {
    const repr = groups.repr(v);
    return ctx.wholeBuffer(isWhole(repr, v.aval) ? repr : copyOf(ctx, repr), v.aval);
  };
  const inputs = [whole(indices), whole(updates)];
  const { buffer, repr } = ctx.newWhole(out.aval);
  const [targets, ...rest] = out.shape;
  ctx.launch({
    kernel: {
      kind: "scatter",
      operands: [...inputs, buffer].map((b, i) => ({
        dtype: b.dtype,
        size: b.size,
        access: i === 2 ? "write" : "read",
      })),
      count: sizeOf(indices.shape),
      cols: sizeOf(rest),
      targets,
    },
    buffers: [...inputs, buffer],
  });
  ctx.reprs.set(out, repr);
}
