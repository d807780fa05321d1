import { ShapeError } from "./errors.ts";
import { isPacked, packedLayout, type PackedType } from "./packed/blocks.ts";

/**
 * Element types. `bool` is stored as a u32 (0 or 1); `f16` and `bf16` are storage types: arithmetic is f32. So are the
 * packed ones, which are only computed with through `dequantize`.
 */
export type DType = "f32" | "f16" | "bf16" | "i32" | "u32" | "bool" | PackedType;

/** A dtype that arithmetic is done in. */
export type ScalarType = "f32" | "i32" | "u32" | "bool";

/** The typed array that holds a dtype on the host; f16 and bf16 travel as their raw 16 bits. */
export type HostArray = Float32Array | Int32Array | Uint32Array | Uint16Array;

/** Bytes per element; NaN for packed types, whose elements have no address of their own. */
export const byteSize: Record<DType, number> = {
  f32: 4,
  f16: 2,
  bf16: 2,
  i32: 4,
  u32: 4,
  bool: 4,
  q4_0: NaN,
  q4_1: NaN,
  q8_0: NaN,
  q4_k: NaN,
  q6_k: NaN,
  nf4: NaN,
  nf4_f32: NaN,
  fp4_f32: NaN,
};

/** Bytes of an array of `size` elements. */
export function storageBytes(dtype: DType, size: number): number {
  return isPacked(dtype) ? packedLayout(dtype, size).words * 4 : size * byteSize[dtype];
}

/** The arithmetic type that loads of a dtype are widened to. */
export const arithmeticType: Record<DType, ScalarType> = {
  f32: "f32",
  f16: "f32",
  bf16: "f32",
  i32: "i32",
  u32: "u32",
  bool: "bool",
  q4_0: "f32",
  q4_1: "f32",
  q8_0: "f32",
  q4_k: "f32",
  q6_k: "f32",
  nf4: "f32",
  nf4_f32: "f32",
  fp4_f32: "f32",
};

/** Whether a dtype is a floating-point one. */
export function isFloat(dtype: DType): boolean {
  return dtype === "f32" || dtype === "f16" || dtype === "bf16";
}

/** A host array of `length` elements of `dtype` (of a packed one, its words), over `buffer` when one is given. */
export function hostArray(dtype: DType, length: number, buffer?: ArrayBufferLike, byteOffset = 0): HostArray {
  if (isPacked(dtype)) return hostArray("u32", packedLayout(dtype, length).words, buffer, byteOffset);
  const Elements = hostArrays[dtype];
  return buffer === undefined ? new Elements(length) : new Elements(buffer as ArrayBuffer, byteOffset, length);
}

/** The class and the length of the host array that holds `size` elements of a dtype. */
export function hostForm(dtype: DType, size: number): { readonly Elements: HostArrayClass; readonly length: number } {
  if (isPacked(dtype)) return { Elements: Uint32Array, length: packedLayout(dtype, size).words };
  return { Elements: hostArrays[dtype], length: size };
}

type HostArrayClass = typeof hostArrays[keyof typeof hostArrays];

const hostArrays = {
  f32: Float32Array,
  f16: Uint16Array,
  bf16: Uint16Array,
  i32: Int32Array,
  u32: Uint32Array,
  bool: Uint32Array,
};

const scratch = new DataView(new ArrayBuffer(4));

/** The bfloat16 bits nearest to `x`, ties to even; NaN stays NaN. */
export function toBf16(x: number): number {
  scratch.setFloat32(0, x);
  const bits = scratch.getUint32(0);
  if (x !== x) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** The value of bfloat16 bits. */
export function fromBf16(bits: number): number {
  scratch.setUint32(0, bits << 16);
  return scratch.getFloat32(0);
}

/** The IEEE half-precision bits nearest to `x`, ties to even. */
export function toF16(x: number): number {
  scratch.setFloat16(0, x);
  return scratch.getUint16(0);
}

/** The value of half-precision bits. */
export function fromF16(bits: number): number {
  scratch.setUint16(0, bits);
  return scratch.getFloat16(0);
}

/** The number that an element of a host array stands for. */
export function numberOf(dtype: DType, element: number): number {
  return dtype === "f16" ? fromF16(element) : dtype === "bf16" ? fromBf16(element) : element;
}

const wholeRange: Partial<Record<DType, readonly [number, number]>> = {
  i32: [-(2 ** 31), 2 ** 31 - 1],
  u32: [0, 2 ** 32 - 1],
  bool: [0, 1],
};

/**
 * @throws {ShapeError} that begins with `what`, unless a dtype has a value for a number: i32 and u32 have whole ones
 */
export function checkHolds(what: string, dtype: DType, value: number): void {
  const range = wholeRange[dtype];
  if (typeof value === "number" && (!range || (Number.isInteger(value) && value >= range[0] && value <= range[1]))) {
    return;
  }
  if (typeof value !== "number") throw new ShapeError(`${what}: ${JSON.stringify(value)} is not a number`);
  const remedy = dtype === "bool"
    ? "give 0 or 1"
    : Number.isInteger(value)
    ? `give one from ${range![0]} to ${range![1]}`
    : `convert(x, "f32") first, or give a whole number`;
  throw new ShapeError(`${what}: ${value} is not a number of ${dtype}; ${remedy}`);
}
