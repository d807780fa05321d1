import { byteSize, type DType, type HostArray } from "../../core/dtype.ts";
import { FileError } from "../../core/errors.ts";

/** Numeric types of weight files that are read as values, with their size in bytes and what they are read as. */
export const storedTypes: Readonly<Record<string, { readonly bytes: number; readonly as: DType }>> = {
  F64: { bytes: 8, as: "f32" },
  F32: { bytes: 4, as: "f32" },
  F16: { bytes: 2, as: "f16" },
  BF16: { bytes: 2, as: "bf16" },
  I64: { bytes: 8, as: "i32" },
  I32: { bytes: 4, as: "i32" },
  I16: { bytes: 2, as: "i32" },
  I8: { bytes: 1, as: "i32" },
  U64: { bytes: 8, as: "u32" },
  U32: { bytes: 4, as: "u32" },
  U16: { bytes: 2, as: "u32" },
  U8: { bytes: 1, as: "u32" },
  BOOL: { bytes: 1, as: "bool" },
};

const sameBits: Readonly<Record<string, DType>> = { F32: "f32", F16: "f16", BF16: "bf16", I32: "i32", U32: "u32" };

/**
 * Converts `bytes` (little-endian elements of the file type `stored`, aligned to their size) to `dtype` and puts them at
 * `out[at]` on. Floats are rounded once, to nearest even; an integer that does not fit is an error, not wrapped.
 * `what` names the tensor in errors.
 */
export function convertInto(
  stored: string,
  bytes: Uint8Array,
  dtype: DType,
  out: HostArray,
  at: number,
  what: string,
): void {
  if (sameBits[stored] === dtype) {
    const size = byteSize[dtype];
    new Uint8Array(out.buffer, out.byteOffset + at * size, bytes.length).set(bytes);
    return;
  }
  const values = numbersOf(stored, bytes);
  if (dtype === "f32" || dtype === "f16" || dtype === "bf16") {
    narrowInto(values instanceof Float32Array ? values : Float32Array.from(values, Number), dtype, out, at);
    return;
  }
  for (let i = 0; i < values.length; i++) out[at + i] = exact(Number(values[i]), dtype, what);
}

/** Rounds f32 values to `dtype` (f32, f16 or bf16) and puts them at `out[at]` on. */
export function narrowInto(values: Float32Array, dtype: DType, out: HostArray, at: number): void {
  if (dtype === "f32") {
    (out as Float32Array).set(values, at);
  } else if (dtype === "f16") {
    new Float16Array(out.buffer as ArrayBuffer, out.byteOffset + at * 2, values.length).set(values);
  } else {
    const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
    for (let i = 0; i < bits.length; i++) {
      const b = bits[i];
      // Ties to even; a NaN keeps a set bit in the half that stays.
      out[at + i] = (b & 0x7fffffff) > 0x7f800000 ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
    }
  }
}

/** f16 words as f32 values. */
export function widenF16(words: Uint16Array, out: Float32Array): void {
  const halves = new Float16Array(words.buffer as ArrayBuffer, words.byteOffset, words.length);
  for (let i = 0; i < halves.length; i++) out[i] = halves[i];
}

/** bf16 words as f32 values. */
export function widenBf16(words: Uint16Array, out: Float32Array): void {
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = 0; i < words.length; i++) bits[i] = words[i] << 16;
}

type Numbers =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

function numbersOf(stored: string, bytes: Uint8Array): Numbers {
  const buffer = bytes.buffer as ArrayBuffer, offset = bytes.byteOffset;
  const count = bytes.length / storedTypes[stored].bytes;
  switch (stored) {
    case "F64":
      return new Float64Array(buffer, offset, count);
    case "F32":
      return new Float32Array(buffer, offset, count);
    case "F16": {
      const out = new Float32Array(count);
      widenF16(new Uint16Array(buffer, offset, count), out);
      return out;
    }
    case "BF16": {
      const out = new Float32Array(count);
      widenBf16(new Uint16Array(buffer, offset, count), out);
      return out;
    }
    case "I64":
      return new BigInt64Array(buffer, offset, count);
    case "U64":
      return new BigUint64Array(buffer, offset, count);
    case "I32":
      return new Int32Array(buffer, offset, count);
    case "U32":
      return new Uint32Array(buffer, offset, count);
    case "I16":
      return new Int16Array(buffer, offset, count);
    case "U16":
      return new Uint16Array(buffer, offset, count);
    case "I8":
      return new Int8Array(buffer, offset, count);
    default:
      return bytes;
  }
}

function exact(value: number, dtype: DType, what: string): number {
  const [low, high] = dtype === "i32" ? [-(2 ** 31), 2 ** 31 - 1] : dtype === "u32" ? [0, 2 ** 32 - 1] : [0, 1];
  if (Number.isInteger(value) && value >= low && value <= high) return value;
  throw new FileError(`${what} holds ${value}, which is no ${dtype} (${low} to ${high}): ask for another dtype.`);
}
