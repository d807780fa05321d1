/** Between storage and registers: f16 and bf16 are widened on load and rounded to nearest even on store. */
import type { DType } from "../../core/dtype.ts";
import type { Code } from "./assembler.ts";

/** Turns four stored words on the stack (16-bit types zero-extended to 32) into register form. */
export function emitWiden(code: Code, dtype: DType): void {
  if (dtype === "bool") code.i32x4(0, 0, 0, 0).op("i32x4.ne");
  else if (dtype === "bf16") code.i32(16).op("i32x4.shl");
  else if (dtype === "f16") {
    const h = code.local("v128"), magnitude = code.local("v128");
    // The half's exponent and mantissa at their place in an f32, times 2^112 to move the bias; subnormals come right too.
    code.tee(h).i32x4(...four(0x7fff)).op("v128.and").i32(13).op("i32x4.shl").tee(magnitude);
    code.f32x4(2 ** 112).op("f32x4.mul");
    // Infinity and NaN need the whole exponent.
    code.get(magnitude).i32x4(...four(0x0f7fffff)).op("i32x4.gt_s").i32x4(...four(0x7f800000)).op(
      "v128.and",
      "v128.or",
    );
    code.get(h).i32x4(...four(0x8000)).op("v128.and").i32(16).op("i32x4.shl", "v128.or");
    code.release("v128", h, magnitude);
  }
}

/** Turns a register value on the stack into words to store; 16-bit types lie in the low half of each lane. */
export function emitNarrow(code: Code, dtype: DType): void {
  if (dtype === "bool") code.i32x4(1, 1, 1, 1).op("v128.and");
  else if (dtype === "bf16") {
    const x = code.local("v128");
    code.tee(x).i32(16).op("i32x4.shr_u").i32x4(...four(0x40)).op("v128.or");
    code.get(x).get(x).i32(16).op("i32x4.shr_u").i32x4(...four(1)).op("v128.and", "i32x4.add");
    code.i32x4(...four(0x7fff)).op("i32x4.add").i32(16).op("i32x4.shr_u");
    code.get(x).get(x).op("f32x4.ne", "v128.bitselect");
    code.release("v128", x);
  } else if (dtype === "f16") {
    const x = code.local("v128"), sign = code.local("v128"), half = code.local("v128");
    code.tee(x).get(x).i32x4(...four(-0x80000000)).op("v128.and").tee(sign).op("v128.xor").tee(x);
    // Normal range: move the bias, round at bit 13 to nearest even; overflow carries into infinity.
    code.i32(13).op("i32x4.shr_u").i32x4(...four(1)).op("v128.and").get(x).op("i32x4.add");
    code.i32x4(...four(((15 - 127) << 23) + 0xfff)).op("i32x4.add").i32(13).op("i32x4.shr_u").set(half);
    // Below 2^-14: adding ½ in f32 leaves the subnormal's rounded bits at the bottom.
    code.get(x).f32x4(0.5).op("f32x4.add").f32x4(0.5).op("i32x4.sub").get(half);
    code.get(x).f32x4(2 ** -14).op("f32x4.lt", "v128.bitselect").set(half);
    // From 65536 up infinity, NaN stays NaN.
    code.i32x4(...four(0x7e00)).i32x4(...four(0x7c00)).get(x).get(x).op("f32x4.ne", "v128.bitselect").get(half);
    code.get(x).i32x4(...four(0x477fffff)).op("i32x4.gt_s", "v128.bitselect");
    code.get(sign).i32(16).op("i32x4.shr_u", "v128.or");
    code.release("v128", x, sign, half);
  }
}

function four(x: number): [number, number, number, number] {
  return [x, x, x, x];
}
