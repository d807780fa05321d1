/** Making map kernels: axes merged, buffers numbered. */
import type { Aval } from "../../core/aval.ts";
import { stridesOf } from "../../core/aval.ts";
import { isPacked, packedLayout, type PackedType } from "../../core/packed/blocks.ts";
import type { MapKernel, Operand, Store } from "../ir/kernel.ts";
import { finisher, foldAxes, indicesOf } from "./axes.ts";
import type { Context } from "./context.ts";
import { type Buffer, draftOf, type DraftStore, type Repr } from "./repr.ts";

/** Numbers the buffers of a kernel as it mentions them. */
export class Operands {
  readonly buffers: Buffer[] = [];
  readonly #written = new Set<Buffer>();
  readonly #read = new Set<Buffer>();

  read(buffer: Buffer): number {
    this.#read.add(buffer);
    return this.#place(buffer);
  }

  write(buffer: Buffer): number {
    this.#written.add(buffer);
    return this.#place(buffer);
  }

  #place(buffer: Buffer): number {
    const at = this.buffers.indexOf(buffer);
    return at >= 0 ? at : this.buffers.push(buffer) - 1;
  }

  list(): Operand[] {
    return this.buffers.map((buffer) => ({
      dtype: buffer.dtype,
      size: buffer.size,
      access: !this.#written.has(buffer) ? "read" : this.#read.has(buffer) ? "inout" : "write",
    }));
  }
}

/** Launches the stores at every point of `shape`. */
export function launchMap(
  ctx: Context,
  shape: readonly number[],
  stores: readonly DraftStore[],
  elidable?: { from: Buffer; to: Buffer },
): void {
  const folding = foldAxes(shape, shape.map((_, i) => i), indicesOf([], stores));
  const operands = new Operands();
  const { expr, index } = finisher(folding.keep, (b) => operands.read(b));
  const finished: Store[] = stores.map((s) => ({
    value: expr(s.value),
    index: index(s.index),
    operand: operands.write(s.buffer),
  }));
  const kernel: MapKernel = { kind: "map", operands: operands.list(), shape: folding.shape, stores: finished };
  ctx.launch({ kernel, buffers: operands.buffers, ...(elidable && { elidable }) });
}

/** A fresh row-major copy of a window; of a packed array, its values. */
export function copyOf(ctx: Context, repr: Repr): Repr {
  const aval: Aval = { shape: repr.view.shape, dtype: isPacked(repr.dtype) ? "f32" : repr.dtype };
  const { buffer, repr: whole } = ctx.newWhole(aval);
  launchMap(ctx, aval.shape, [{
    buffer,
    index: { offset: 0, strides: stridesOf(aval.shape) },
    value: draftOf(repr),
  }]);
  return whole;
}

/** A copy of a packed array as it is, word by word: an argument that is returned. */
export function copyWords(ctx: Context, packed: Buffer): Buffer {
  const aval: Aval = { shape: [packedLayout(packed.dtype as PackedType, packed.size).words], dtype: "u32" };
  const { buffer } = ctx.newWhole(aval);
  const from: Buffer = { ...packed, dtype: "u32", size: aval.shape[0] };
  const index = { offset: 0, strides: [1] };
  launchMap(ctx, aval.shape, [{ buffer, index, value: { kind: "load", type: "u32", buffer: from, index } }]);
  return buffer;
}
