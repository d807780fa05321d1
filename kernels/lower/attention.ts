/** Attention's three passes: every operand of rank 4 through a window whose last axis is contiguous. */
import type { Node, Value } from "../../core/ir/graph.ts";
import type { AttentionKernel, HeadLayout } from "../kernel.ts";
import type { Context } from "./context.ts";
import { copyOf } from "./emit.ts";
import type { Groups } from "./groups.ts";
import { type Buffer, isBuffer, isWhole, type Repr } from "./repr.ts";

/** Operands are [batch, token, head, width]; see `AttentionKernel` for their order. */
export function lowerAttention(ctx: Context, groups: Groups, node: Node, pass: AttentionKernel["pass"]): void {
  const buffers: Buffer[] = [];
  const layouts: (HeadLayout | null)[] = [];
  const take = (v: Value) => {
    let repr: Repr = groups.repr(v);
    if (v.shape.length === 4) {
      const { strides } = repr.view;
      if (!isBuffer(repr.base) || (strides[3] !== 1 && v.shape[3] !== 1)) repr = ctx.wholeOnce(v, copyOf);
      layouts.push(layoutOf(repr));
    } else {
      if (!isWhole(repr, v.aval)) repr = ctx.wholeOnce(v, copyOf);
      layouts.push(null);
    }
    buffers.push(repr.base as Buffer);
  };
  const inputs = ctx.inputs(node);
  const { base } = groups.repr(inputs[4]);
  const offset = typeof base === "object" && !isBuffer(base) ? base.constant : null;
  inputs.forEach((v, i) => i === 4 && offset !== null || take(v));
  const given = buffers.length;
  for (const out of node.outs) {
    const { buffer, repr } = ctx.destination(out);
    ctx.reprs.set(out, repr);
    buffers.push(buffer);
    layouts.push(out.shape.length === 4 ? layoutOf(repr) : null);
  }
  const [q, k] = inputs;
  const kernel: AttentionKernel = {
    kind: "attention",
    operands: buffers.map((b, i) => ({ dtype: b.dtype, size: b.size, access: i < given ? "read" : "write" })),
    layouts,
    pass,
    batch: q.shape[0],
    queries: q.shape[1],
    heads: q.shape[2],
    width: q.shape[3],
    keys: k.shape[1],
    kvHeads: k.shape[2],
    scale: node.params.scale,
    causal: node.params.causal,
    // Statistics are f32: i32 of rank 2 is `first`.
    bounded: inputs[5]?.dtype === "i32",
    offset,
  };
  ctx.launch({ kernel, buffers });
}

function layoutOf({ view }: Repr): HeadLayout {
  const [batch, token, head] = view.strides;
  return { offset: view.offset, batch, token, head };
}
