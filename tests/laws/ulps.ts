/** How exact each scalar operation is on each kind of device. */
import type { ScalarOp } from "../../core/ops/elementwise.ts";

/**
 * Units in the last place (2^-23, relative to the result or to 1 where `absolute`) that a scalar operation may be off by;
 * what is not listed is exact. WGSL allows exp 3 + 2|x| (here |x| ≤ 2), division 2.5, inverseSqrt 2; sqrt is made of it, pow
 * is exp2(b·log2(a)).
 */
export const ulps: Partial<
  Record<ScalarOp, { readonly cpu: number; readonly webgpu: number; readonly absolute?: true }>
> = {
  exp: { cpu: 2, webgpu: 7 },
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
  pow: { cpu: 8, webgpu: 16 },
};
