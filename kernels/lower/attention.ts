/** Attention's three passes: every operand of rank 4 through a window whose last axis is contiguous. */
import { sizeOf, stridesOf } from "../../core/aval.ts";
import type { Node, Value } from "../../core/ir/graph.ts";
import { opOf } from "../ir/expr.ts";
import { type AttentionKernel, attentionOperands, type HeadLayout } from "../ir/kernel.ts";
import type { Context } from "./context.ts";
import { copyOf } from "./copy.ts";
import type { Groups } from "./groups.ts";
import { type Buffer, exprOf, isBuffer, isWhole, type Repr } from "./repr.ts";

/** Operands are [batch, token, head, width]; see `AttentionKernel` for their order. */
export function lowerAttention(ctx: Context, groups: Groups, node: Node, pass: AttentionKernel["pass"]): void {
  const inputs = ctx.inputs(node);
  const { base } = groups.repr(inputs[4]);
  const offset = typeof base === "object" && !isBuffer(base) ? base.constant : null;
  // Statistics are f32: i32 of rank 2 is `first`.
  const bounded = inputs[5]?.dtype === "i32";
  const given = inputs.filter((_, i) => i !== 4 || offset === null);
  const reprs = given.map((v) => operandOf(ctx, groups, v));
  let outs = node.outs.map((out) => ctx.destination(out).repr);
  const tooMany = () => new Set([...reprs, ...outs].map(({ base }) => base)).size > groups.most;
  if (outs.length > 1 && tooMany()) outs = sideBySide(ctx, node.outs);
  let starts: AttentionKernel["starts"];
  if (tooMany()) {
    const names = attentionOperands({ pass, bounded, offset });
    const small = names.flatMap((name, i) => smallNames.has(name) ? [i] : []);
    const values = small.map((i) => given[i]);
    const at = small.map((_, i) => values.slice(0, i).reduce((sum, v) => sum + sizeOf(v.shape), 0));
    const buffer = joined(ctx, groups, values, at);
    small.forEach((i) => reprs[i] = { ...reprs[i], base: buffer });
    starts = Object.fromEntries(small.map((i, n) => [names[i], at[n]]));
  }
  node.outs.forEach((out, i) => ctx.reprs.set(out, outs[i]));
  const operands = [...reprs, ...outs];
  const buffers = operands.map((repr) => repr.base as Buffer);
  const [q, k] = inputs;
  const kernel: AttentionKernel = {
    kind: "attention",
    operands: operands.map(({ dtype }, i) => ({
      dtype,
      size: buffers[i].size,
      access: i < given.length ? "read" : "write",
    })),
    layouts: operands.map((repr, i) =>
      (i < given.length ? given[i] : node.outs[i - given.length]).shape.length === 4 ? layoutOf(repr) : null
    ),
    pass,
    batch: q.shape[0],
    queries: q.shape[1],
    heads: q.shape[2],
    width: q.shape[3],
    keys: k.shape[1],
    kvHeads: k.shape[2],
    scale: node.params.scale,
    ...(node.params.cap !== undefined && { cap: node.params.cap }),
    causal: node.params.causal,
    bounded,
    offset,
    ...(starts && { starts }),
  };
  ctx.launch({ kernel, buffers });
}

/** A value as attention reads it: of rank 4 as a window with a contiguous last axis, any other whole. */
function operandOf(ctx: Context, groups: Groups, v: Value): Repr {
  const repr = groups.repr(v);
  const fits = v.shape.length === 4
    ? isBuffer(repr.base) && (repr.view.strides[3] === 1 || v.shape[3] === 1)
    : isWhole(repr, v.aval);
  return fits ? repr : ctx.wholeOnce(v, copyOf);
}

function layoutOf({ view }: Repr): HeadLayout {
  const [batch, token, head] = view.strides;
  return { offset: view.offset, batch, token, head };
}

/** Windows on one new buffer that holds all of the values: fewer buffers to bind. */
function sideBySide(ctx: Context, values: readonly Value[]): Repr[] {
  const buffer = ctx.newBuffer(values[0].dtype, values.reduce((sum, v) => sum + sizeOf(v.shape), 0));
  let offset = 0;
  return values.map(({ shape, dtype }) => {
    const view = { shape, offset, strides: stridesOf(shape) };
    offset += sizeOf(shape);
    return { base: buffer, view, dtype };
  });
}

/** What says which keys are seen: words that may share a buffer. */
const smallNames: ReadonlySet<string> = new Set(["mask", "offset", "first"]);

/** Values written one behind the other, from the elements `starts` on, as i32: once for all layers that share them. */
function joined(ctx: Context, groups: Groups, values: readonly Value[], starts: readonly number[]): Buffer {
  const key = values.map(({ node, index }) => `${node.serial}.${index}`).join();
  const known = ctx.joined.get(key);
  if (known) return known;
  const buffer = ctx.newBuffer("i32", starts.at(-1)! + sizeOf(values.at(-1)!.shape));
  values.forEach((v, i) => {
    const expr = exprOf(groups.repr(v));
    const index = { offset: starts[i], strides: stridesOf(v.shape) };
    const value = expr.type === "i32" ? expr : opOf("convert", "i32", expr);
    ctx.launch({ kind: "map", shape: v.shape, stores: [{ operand: buffer, index, value }] });
  });
  ctx.joined.set(key, buffer);
  return buffer;
}
