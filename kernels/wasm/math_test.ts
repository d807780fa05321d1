import { assert } from "@std/assert";
import { numbers, runKernel } from "../../testing/check_kernel.ts";
import { applyScalar } from "../../testing/kernel_interpreter.ts";
import { openCpu } from "../device/cpu/cpu.ts";
import type { Expr } from "../ir/expr.ts";
import type { Kernel, ScalarOp } from "../ir/kernel.ts";

const count = 200_003;

/** The least distance of neighbouring f32 numbers about `x`. */
function ulp(x: number): number {
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(x))), -126);
  return 2 ** (exponent - 23);
}

/** The worst error of an operation over given arguments, in ulp and absolute, where the result is a normal number. */
async function errors(op: ScalarOp, args: readonly Float32Array<ArrayBuffer>[], relaxed?: boolean) {
  using device = await openCpu({ threads: 1, relaxed });
  const load = (operand: number): Expr => ({ kind: "load", type: "f32", operand, index: { offset: 0, strides: [1] } });
  const kernel: Kernel = {
    kind: "map",
    operands: [...args, args[0]].map((x, i) => ({
      dtype: "f32",
      size: x.length,
      access: i < args.length ? "read" : "write",
    })),
    shape: [args[0].length],
    stores: [{
      operand: args.length,
      index: { offset: 0, strides: [1] },
      value: { kind: "op", type: "f32", op, args: args.map((_, i) => load(i)) },
    }],
  };
  const results = await runKernel(device, kernel, [...args, new Float32Array(args[0].length)]);
  const got = results[args.length];
  let ulps = 0, absolute = 0;
  for (let i = 0; i < got.length; i++) {
    const want = applyScalar(op, "f32", args.map(() => "f32"), args.map((x) => x[i]));
    const rounded = Math.fround(want);
    if (Object.is(rounded, got[i]) || (Number.isNaN(want) && Number.isNaN(got[i]))) continue;
    if (Math.abs(want) < 2 ** -126 && Math.abs(got[i]) <= 2 ** -126) continue;
    const error = Math.abs(want - got[i]);
    assert(Number.isFinite(error), `${op}(${args.map((x) => x[i])}) gives ${got[i]}, not ${want}`);
    ulps = Math.max(ulps, error / ulp(want));
    absolute = Math.max(absolute, error);
  }
  return { ulps, absolute };
}

/** Arguments spread evenly over [low, high], with the edges that floats have. */
function spread(low: number, high: number, edges: readonly number[] = []): Float32Array<ArrayBuffer> {
  const next = numbers(low + high);
  return Float32Array.from({ length: count }, (_, i) => i < edges.length ? edges[i] : low + (high - low) * next());
}

/** Positive arguments of every magnitude. */
function magnitudes(): Float32Array<ArrayBuffer> {
  const next = numbers(3);
  return Float32Array.from({ length: count }, () => 2 ** (-149 + 276 * next()));
}

const edges = [0, -0, 1, -1, Infinity, -Infinity, NaN, 1e-40, -1e-40, 3e38, -3e38, 2 ** -126];

for (const relaxed of [undefined, false]) {
  const kind = relaxed === false ? "without fused multiply-add" : "as the engine has it";
  Deno.test(`math: stated errors hold over each range, ${kind}`, async () => {
    assert((await errors("exp", [spread(-104, 89.5, edges)], relaxed)).ulps <= 2);
    assert((await errors("log", [magnitudes()], relaxed)).ulps <= 2);
    assert((await errors("log", [spread(0.5, 2, edges)], relaxed)).ulps <= 2);
    for (const op of ["tanh", "erf"] as const) {
      for (const range of [0.01, 1.2, 12]) {
        const { ulps, absolute } = await errors(op, [spread(-range, range, edges)], relaxed);
        assert(ulps <= 4 && absolute <= 1.5e-7, `${op} within ${range}: ${ulps} ulp, ${absolute}`);
      }
    }
    for (const op of ["sin", "cos"] as const) {
      for (const range of [4, 1e3, 1e6]) {
        const { absolute } = await errors(op, [spread(-range, range)], relaxed);
        assert(absolute <= 1.5e-7, `${op} within ${range}: ${absolute}`);
      }
    }
    assert((await errors("pow", [spread(0, 50), spread(-20, 20)], relaxed)).ulps <= 1);
    assert((await errors("pow", [spread(0.9, 1), spread(0, 1000)], relaxed)).ulps <= 1);
    const integers = spread(-9, 9).map(Math.round);
    assert((await errors("pow", [spread(-5, 5, [0, 0, -0.5, 1, NaN, 2]), integers], relaxed)).ulps <= 1);
    for (const op of ["sqrt", "recip", "floor", "neg", "abs", "sign"] as const) {
      assert((await errors(op, [spread(-9, 9, edges)], relaxed)).ulps <= 0.5, op);
    }
    assert((await errors("rsqrt", [magnitudes()], relaxed)).ulps <= 1.5);
  });
}
