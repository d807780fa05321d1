/** Copies: of a window, and of a packed array as it is. */
import { type Aval, stridesOf } from "../../core/aval.ts";
import { isPacked, packedLayout, type PackedType } from "../../core/packed/blocks.ts";
import type { Context } from "./context.ts";
import { type Buffer, exprOf, type Repr } from "./repr.ts";

/** A fresh row-major copy of a window; of a packed array, its values. */
export function copyOf(ctx: Context, repr: Repr): Repr {
  const aval: Aval = { shape: repr.view.shape, dtype: isPacked(repr.dtype) ? "f32" : repr.dtype };
  const { buffer, repr: whole } = ctx.newWhole(aval);
  const index = { offset: 0, strides: stridesOf(aval.shape) };
  ctx.launch({ kind: "map", shape: aval.shape, stores: [{ operand: buffer, index, value: exprOf(repr) }] });
  return whole;
}

/** A copy of a packed array as it is, word by word: an argument that is returned. */
export function copyWords(ctx: Context, packed: Buffer): Buffer {
  const aval: Aval = { shape: [packedLayout(packed.dtype as PackedType, packed.size).words], dtype: "u32" };
  const { buffer, repr } = ctx.newWhole(aval);
  const from: Buffer = { ...packed, dtype: "u32", size: aval.shape[0] };
  const index = { offset: 0, strides: [1] };
  const value = exprOf({ ...repr, base: from });
  ctx.launch({ kind: "map", shape: aval.shape, stores: [{ operand: buffer, index, value }] });
  return buffer;
}
