/** Where a function is small it keeps its digits, and where its argument is large nothing overflows: on every device. */
import { assert } from "@std/assert";
import type { Value } from "../../core/ir/graph.ts";
import { crossEntropyRows, logSigmoid, logSumExp, sigmoid, silu } from "../../core/nn/mod.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { upload } from "../../core/tensor.ts";
import { grad } from "../../core/transforms/grad.ts";
import { runtimes } from "../runtimes.ts";

const points = Float32Array.of(-1000, -100, -88, -87, -80, -20, -3, -1, -1e-3, -0, 0, 1e-30, 0.5, 2, 20, 80, 100, 1000);

const logistic = (x: number) => x < 0 ? Math.exp(x) / (1 + Math.exp(x)) : 1 / (1 + Math.exp(-x));
const slope = (x: number) => logistic(x) * logistic(-x);

/** A function, what it is in float64, and its derivative. */
const functions: Record<string, [(x: Value) => Value, (x: number) => number, (x: number) => number]> = {
  sigmoid: [sigmoid, logistic, slope],
  "its logarithm": [
    logSigmoid,
    (x) => Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x))),
    (x) => logistic(-x),
  ],
  silu: [silu, (x) => x * logistic(x), (x) => logistic(x) * (1 + x * logistic(-x))],
};

/** Rows whose exponentials overflow, vanish, or do both: their logarithms are as exact as their size allows. */
const wide = [[100, -100], [-100, -100], [1000, 999], [-1000, 0], [88.5, 90]];

for (const { name, open } of runtimes) {
  Deno.test(`${name}: logarithms of probabilities at the ends`, async () => {
    using runtime = await open();
    const x = upload(runtime.home, { shape: [wide.length, 2], dtype: "f32", data: Float32Array.from(wide.flat()) });
    const labels = upload(runtime.home, { shape: [wide.length], dtype: "i32", data: new Int32Array(wide.length) });
    const run = (x: Value, y: Value) => ({
      sum: logSumExp(x),
      slope: grad((x: Value) => reduceSum(logSumExp(x)))(x),
      loss: crossEntropyRows(x, y),
      smooth: crossEntropyRows(x, y, { labelSmoothing: 0.5, zLoss: 1e-6 }),
    });
    const { sum, slope, loss, smooth } = await runtime.read(runtime.jit(run)(x, labels));
    wide.forEach(([a, b], i) => {
      const high = Math.max(a, b), total = high + Math.log1p(Math.exp(-Math.abs(a - b)));
      // Some ten operations and two exponentials, against the largest of the numbers that are added.
      const size = Math.max(1, Math.abs(a), Math.abs(b)), bound = 32 * 2 ** -23 * size;
      const near = (what: string, have: number, want: number, bound: number) =>
        assert(Math.abs(have - want) <= bound, `${what} of ${a}, ${b} is ${have}, not ${want} ± ${bound}`);
      near("sum", sum.data[i], total, bound);
      near("loss", loss.data[i], total - a, bound);
      near("smooth", smooth.data[i], total - 0.75 * a - 0.25 * b + 1e-6 * total ** 2, 2 * bound);
      near("slope", slope.data[2 * i], Math.exp(a - total), bound);
    });
  });

  Deno.test(`${name}: tails of sigmoids`, async (t) => {
    using runtime = await open();
    for (const [what, [f, value, derivative]] of Object.entries(functions)) {
      await t.step(what, async () => {
        const both = (x: Value) => [f(x), grad((x: Value) => reduceSum(f(x)))(x)];
        const x = upload(runtime.home, { shape: [points.length], dtype: "f32", data: points });
        const got = await runtime.read(runtime.jit(both)(x));
        [value, derivative].forEach((want, i) =>
          points.forEach((p, at) => {
            const [have, y] = [got[i].data[at], want(p)];
            // Some six operations of 2.5 ulp, and one exponential, which WGSL allows 3 + 2|x| of. silu's derivative is a sum
            // of two terms that cancel, each below |x|·sigmoid(x). Below 2^-126 a sigmoid may be 0.
            const exponential = name.startsWith("webgpu") ? 3 + 2 * Math.min(90, Math.abs(p)) : 3;
            const terms = Math.max(Math.abs(y), what === "silu" ? Math.abs(p) * logistic(p) : 0);
            const bound = (16 + 2 * exponential) * 2 ** -23 * terms + 2 ** -125 * Math.max(1, Math.abs(p));
            assert(Math.abs(have - y) <= bound, `${i ? "derivative" : what} at ${p} is ${have}, not ${y} ± ${bound}`);
          })
        );
      });
    }
  });
}
