/** Tensors on the host: whether they are whole, and in another dtype. */
import { type DType, hostArray } from "../core/dtype.ts";
import type { HostTensor } from "../core/tensor.ts";
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
