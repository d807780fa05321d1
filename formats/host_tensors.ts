/** Tensors on the host: whether they are whole, in another dtype, and where a model's are. */
import { type DType, hostArray } from "../core/dtype.ts";
import { newInput } from "../core/ir/graph.ts";
import type { Leaf } from "../core/model.ts";
import { type HostTensor, Tensor, upload } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { narrowInto, widenBf16, widenF16 } from "../models/load/convert.ts";

/** A float tensor as f32. */
export function toF32(tensor: HostTensor): HostTensor & { readonly data: Float32Array } {
  if (tensor.dtype === "f32") return tensor as HostTensor & { readonly data: Float32Array };
  const data = new Float32Array(tensor.data.length);
  const widen = tensor.dtype === "f16" ? widenF16 : widenBf16;
  widen(tensor.data as Uint16Array, data);
  return { shape: tensor.shape, dtype: "f32", data };
}

/** A float tensor in another float dtype: rounded once, to nearest even. */
export function toDType(tensor: HostTensor, dtype: DType): HostTensor {
  if (tensor.dtype === dtype) return tensor;
  const data = hostArray(dtype, tensor.data.length);
  narrowInto(toF32(tensor).data, dtype, data, 0);
  return { shape: tensor.shape, dtype, data };
}

/** Whether no value is an infinity or a NaN: those have every bit of the exponent set. */
export function isFinite({ dtype, data }: HostTensor): boolean {
  const exponent = dtype === "f16" ? 0x7c00 : dtype === "bf16" ? 0x7f80 : null;
  return exponent === null ? data.every(Number.isFinite) : data.every((word) => (word & exponent) !== exponent);
}

/** What puts a tensor where a tree's tensors are; a placeholder where that has none. */
export function placerBeside(tree: unknown): (tensor: HostTensor) => Leaf {
  const held = flatten<Leaf>(tree).leaves.find((leaf) => leaf instanceof Tensor);
  return (tensor) => held ? upload(held.home, tensor) : newInput({ shape: tensor.shape, dtype: tensor.dtype });
}
