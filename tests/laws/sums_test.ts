/**
 * Sums of very many terms. Added one to the other, n terms may be off by γₙ; every kernel adds them in blocks and blocks of
 * blocks, so that the error grows with the logarithm of n: at most 16 roundings a level of 16, and 40 where accumulators,
 * lanes and parts of a row are joined and what follows is computed. The same bits on any number of threads.
 */
import { assert, assertEquals } from "@std/assert";
import type { Value } from "../../core/ir/graph.ts";
import { crossEntropyRows, logSoftmax, rmsNorm, softmax } from "../../core/nn/mod.ts";
import { broadcastTo, full, reduceSum } from "../../core/ops/broadcast.ts";
import { exp, mul } from "../../core/ops/elementwise.ts";
import { mean } from "../../core/ops/reduce.ts";
import { upload } from "../../core/tensor.ts";
import { grad } from "../../core/transforms/grad.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { read } from "../../kernels/runtime/read.ts";
import { gamma } from "../../lora/bound.ts";
import { runtimes } from "../runtimes.ts";

const x = Math.fround(0.1);
/** How far a sum of n equal terms may be off, relative to itself. */
const bound = (n: number) => gamma(16 * Math.ceil(Math.log2(n) / 4) + 40);

/** What is summed of an array filled with 0.1, and what every element of it is. */
const sums: Record<
  string,
  { shape: number[]; terms: number; f: (v: Value) => Value; want: number; relative?: number }
> = {
  "of all": { shape: [3_000_000], terms: 3_000_000, f: (v) => reduceSum(v), want: 3_000_000 * x },
  "of all of a matrix": { shape: [300_003, 7], terms: 2_100_021, f: (v) => reduceSum(v), want: 2_100_021 * x },
  "of columns": { shape: [100_003, 5], terms: 100_003, f: (v) => reduceSum(v, 0), want: 100_003 * x },
  "of many columns": { shape: [20_003, 50], terms: 20_003, f: (v) => reduceSum(v, 0), want: 20_003 * x },
  "of rows": { shape: [33, 50_021], terms: 50_021, f: (v) => reduceSum(v, 1), want: 50_021 * x },
  "over scattered axes": { shape: [300, 5, 700], terms: 210_000, f: (v) => reduceSum(v, [0, 2]), want: 210_000 * x },
  "of squares": { shape: [2, 300_001], terms: 300_001, f: (v) => reduceSum(mul(v, v), 1), want: 300_001 * x * x },
  "the mean": { shape: [1_000_003], terms: 1_000_003, f: (v) => mean(v), want: x },
  "a norm": { shape: [2, 200_003], terms: 200_003, f: (v) => rmsNorm(v, full([200_003], 1), 0), want: 1 },
  "softmax's": { shape: [2, 200_003], terms: 200_003, f: (v) => softmax(v), want: 1 / 200_003 },
  // The logarithm of a sum that is off by a part of itself is off by that part.
  "log softmax's": {
    shape: [2, 200_003],
    terms: 200_003,
    f: (v) => logSoftmax(v),
    want: -Math.log(200_003),
    relative: 1,
  },
  "cross-entropy's": {
    shape: [2, 200_003],
    terms: 200_003,
    f: (v) => crossEntropyRows(v, full([2], 7, "i32")),
    want: Math.log(200_003),
    relative: 1,
  },
  "of a gradient's broadcast": {
    shape: [5],
    terms: 200_003,
    f: (v) => grad((v: Value) => reduceSum(mul(broadcastTo(v, [200_003, 5]), x)))(v) as Value,
    want: 200_003 * x,
  },
};

for (const { name, open } of runtimes.slice(1)) {
  Deno.test(`${name}: long sums keep their digits`, async (t) => {
    using runtime = await open();
    for (const [what, { shape, terms, f, want, relative = want }] of Object.entries(sums)) {
      await t.step(what, async () => {
        const data = new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(x);
        using v = upload(runtime.home, { shape, dtype: "f32", data });
        const got = await runtime.read(runtime.jit(f)(v));
        const off = (typeof got === "number" ? [got] : [...got.data as Float32Array]).map((y) => Math.abs(y - want));
        const worst = off.reduce((a, b) => Math.max(a, b));
        const allowed = bound(terms) * Math.max(Math.abs(relative), Math.abs(want) * 2 ** -3);
        assert(worst <= allowed, `off by ${worst}, where ${allowed} is allowed`);
      });
    }
  });
}

Deno.test("long sums have the same bits on any number of threads", async () => {
  const shape = [6, 123_457];
  const data = Float32Array.from({ length: shape[0] * shape[1] }, (_, i) => Math.sin(i * i));
  const f = (v: Value) => [reduceSum(v), reduceSum(v, 0), reduceSum(exp(v), 1), softmax(v)];
  const all = await Promise.all([1, 2, 3].map(async (threads) => {
    using device = await openCpu({ threads, blas: false });
    return await read(jit(f)(upload(device, { shape, dtype: "f32", data })));
  }));
  for (const other of all.slice(1)) assertEquals(other, all[0]);
});
