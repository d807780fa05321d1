/**
 * Scalar operations of the oracle, by dtype (floats are reals, i32 and u32 wrap, bool is 0 or 1), and how exact devices are.
 */
import { type DType, fromBf16, fromF16, isFloat, toBf16, toF16 } from "../core/dtype.ts";
import type { ScalarOp } from "../core/ops/elementwise.ts";

/** erf by its all-positive series 2/√π e^(-x²) Σ 2ⁿ x^(2n+1) / (2n+1)!!, to a few ulp of float64. */
export function erf(x: number): number {
  if (x !== x) return x;
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x, sum = x;
  for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n++) sum += term *= 2 * x * x / (2 * n + 1);
  return 2 / Math.sqrt(Math.PI) * Math.exp(-x * x) * sum;
}

/** A number as the dtype holds it; reals stay as they are. */
export function wrap(x: number, dtype: DType): number {
  if (dtype === "i32") return x | 0;
  if (dtype === "u32" || dtype === "bool") return x >>> 0;
  return x;
}

/** A real converted to a dtype: to integers it truncates and saturates, to bool it is "not 0". */
export function convertTo(x: number, to: DType, from: DType): number {
  if (to === "bool") return x !== 0 ? 1 : 0;
  if (to === "f16") return fromF16(toF16(x));
  if (to === "bf16") return fromBf16(toBf16(x));
  if (to === "f32") return x;
  if (!isFloat(from)) return wrap(x, to);
  if (x !== x) return 0;
  const [low, high] = to === "i32" ? [-(2 ** 31), 2 ** 31 - 1] : [0, 2 ** 32 - 1];
  return Math.min(high, Math.max(low, Math.trunc(x)));
}

/** The same 32 bits under another dtype. */
export function bitcastTo(x: number, to: DType, from: DType): number {
  const bits = new DataView(new ArrayBuffer(4));
  if (from === "f32") bits.setFloat32(0, x);
  else bits.setInt32(0, x | 0);
  return to === "f32" ? bits.getFloat32(0) : to === "i32" ? bits.getInt32(0) : bits.getUint32(0);
}

export const unary: Record<string, (x: number, dtype: DType) => number> = {
  neg: (x) => -x,
  abs: Math.abs,
  sign: Math.sign,
  floor: Math.floor,
  exp: Math.exp,
  log: Math.log,
  sqrt: Math.sqrt,
  rsqrt: (x) => 1 / Math.sqrt(x),
  recip: (x) => 1 / x,
  tanh: Math.tanh,
  erf,
  sin: Math.sin,
  cos: Math.cos,
  isFinite: (x) => Number.isFinite(x) ? 1 : 0,
  not: (x, dtype) => dtype === "bool" ? 1 - x : ~x,
};

/** As C99 has it: 1 to any power is 1, and -1 to an infinite one. */
export function pow(x: number, y: number): number {
  return x === 1 || (x === -1 && Math.abs(y) === Infinity) ? 1 : Math.pow(x, y);
}

export const binary: Record<string, (a: number, b: number, dtype: DType) => number> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b, dtype) => isFloat(dtype) ? a * b : Math.imul(a, b),
  div: (a, b, dtype) => isFloat(dtype) ? a / b : b === 0 ? -1 : Math.trunc(a / b),
  rem: (a, b, dtype) => !isFloat(dtype) && b === 0 ? a : a % b,
  pow,
  max: (a, b) => Math.max(a, b),
  min: (a, b) => Math.min(a, b),
  eq: (a, b) => a === b ? 1 : 0,
  ne: (a, b) => a !== b ? 1 : 0,
  lt: (a, b) => a < b ? 1 : 0,
  le: (a, b) => a <= b ? 1 : 0,
  gt: (a, b) => a > b ? 1 : 0,
  ge: (a, b) => a >= b ? 1 : 0,
  and: (a, b) => a & b,
  or: (a, b) => a | b,
  xor: (a, b) => a ^ b,
  shl: (a, b) => a << b,
  shr: (a, b, dtype) => dtype === "i32" ? a >> b : a >>> b,
};

/** threefry2x32 with 20 rounds (Salmon et al. 2011) at a counter of two words. */
export function threefry(key: ArrayLike<number>, low: number, high = 0): [number, number] {
  const [k0, k1] = [key[0], key[1]];
  const keys = [k0 | 0, k1 | 0, k0 ^ k1 ^ 0x1bd11bda];
  const turns = [[13, 15, 26, 6], [17, 29, 16, 24]];
  let x0 = (low + keys[0]) | 0, x1 = (high + keys[1]) | 0;
  for (let group = 0; group < 5; group++) {
    for (const turn of turns[group % 2]) {
      x0 = (x0 + x1) | 0;
      x1 = ((x1 << turn) | (x1 >>> (32 - turn))) ^ x0;
    }
    x0 = (x0 + keys[(group + 1) % 3]) | 0;
    x1 = (x1 + keys[(group + 2) % 3] + group + 1) | 0;
  }
  return [x0 >>> 0, x1 >>> 0];
}

/**
 * Units in the last place (2^-23, relative to the result or to 1 where `absolute`) that a scalar operation may be off by;
 * what is not listed is exact. `webgpu` is for operands up to 2, `webgpuAt` for any, where it grows with them. WGSL allows exp
 * 3 + 2|x|, division 2.5, inverseSqrt 2; sqrt is made of it, pow is exp2(b·log2(a)).
 */
export const ulps: Partial<
  Record<ScalarOp, {
    readonly cpu: number;
    readonly webgpu: number;
    readonly webgpuAt?: (...args: number[]) => number;
    readonly absolute?: true;
  }>
> = {
  exp: { cpu: 2, webgpu: 7, webgpuAt: (x) => 3 + 2 * Math.abs(x) },
  log: { cpu: 2, webgpu: 4, absolute: true },
  sqrt: { cpu: 0.5, webgpu: 5 },
  rsqrt: { cpu: 1.5, webgpu: 2 },
  recip: { cpu: 0.5, webgpu: 2.5 },
  tanh: { cpu: 4, webgpu: 8 },
  erf: { cpu: 4, webgpu: 8 },
  sin: { cpu: 2, webgpu: 4, absolute: true },
  cos: { cpu: 2, webgpu: 4, absolute: true },
  add: { cpu: 0.5, webgpu: 0.5 },
  sub: { cpu: 0.5, webgpu: 0.5 },
  mul: { cpu: 0.5, webgpu: 0.5 },
  div: { cpu: 0.5, webgpu: 2.5 },
  // x - y·trunc(x / y), of values up to 4.
  rem: { cpu: 2, webgpu: 4, absolute: true },
  pow: { cpu: 8, webgpu: 16, webgpuAt: (a, b) => 3 + 8 * Math.abs(b * Math.log(Math.abs(a) || 1)) },
};
