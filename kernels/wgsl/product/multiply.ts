import type { ShaderWriter } from "../shader.ts";

/** Declares the product of two blocks: fused multiply-adds, which `c + q * p` would leave to the compiler. */
export function declareMultiply(shader: ShaderWriter): void {
  shader.declare(
    "multiply",
    `
fn multiply_row(c: vec4<f32>, p: vec4<f32>, q: mat4x4<f32>) -> vec4<f32> {
  let half = fma(q[1], p.yyyy, fma(q[0], p.xxxx, c));
  return fma(q[3], p.wwww, fma(q[2], p.zzzz, half));
}
// c plus four rows of p, each along k, times four k of q, each along columns.
fn multiply(c: mat4x4<f32>, p: mat4x4<f32>, q: mat4x4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(
    multiply_row(c[0], p[0], q), multiply_row(c[1], p[1], q),
    multiply_row(c[2], p[2], q), multiply_row(c[3], p[3], q));
}`,
  );
}
