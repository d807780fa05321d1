/**
 * Arrays of no elements: a sum of nothing is 0, the greatest and the mean of nothing are refused, all else has no elements
 * either. Each device agrees with the oracle, and is as good as before.
 */
import { assertEquals, assertThrows } from "@std/assert";
import { ShapeError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import {
  attention,
  causalLoss,
  crossEntropyRows,
  gelu,
  layerNorm,
  logSoftmax,
  rmsNorm,
  softmax,
} from "../../core/nn/mod.ts";
import { broadcastTo, full, reduceSum, reshape } from "../../core/ops/broadcast.ts";
import { matmul } from "../../core/ops/contract.ts";
import { add, convert, mul } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { dropout, randomNormal } from "../../core/ops/random.ts";
import { argmax, cumsum, mean, reduceMax } from "../../core/ops/reduce.ts";
import { concat, iota, split } from "../../core/ops/structure.ts";
import { randomKey } from "../../core/random.ts";
import { upload } from "../../core/tensor.ts";
import { grad } from "../../core/transforms/grad.ts";
import { sumOver } from "../../core/transforms/sum_over.ts";
import { vmap } from "../../core/transforms/vmap.ts";
import { assertAllClose } from "../../testing/all_close.ts";
import { fromHost, type OracleTensor, runOracle, toHost } from "../../testing/oracle.ts";
import { runtimes } from "../runtimes.ts";
import { drawInput } from "./primitive_cases.ts";

const f32 = (...shape: number[]) => drawInput({ shape, dtype: "f32", range: [-2, 2] }, 3);
const i32 = (...shape: number[]) => drawInput({ shape, dtype: "i32", range: [0, 2] }, 5);

const heads = (queries: number, keys: number, batch = 1) => [
  f32(batch, queries, 2, 4),
  f32(batch, keys, 1, 4),
  f32(batch, keys, 1, 4),
];

const functions: Record<string, { inputs: OracleTensor[]; apply: (...xs: Value[]) => Value }> = {
  "the sum of nothing": { inputs: [f32(0)], apply: (x) => reduceSum(x) },
  "sums over two of three axes": { inputs: [f32(2, 0, 3)], apply: (x) => reduceSum(x, [0, 1]) },
  "a kept sum": { inputs: [f32(2, 0)], apply: (x) => add(reduceSum(x, 1, { keep: true }), 1) },
  "a sum of an expression": { inputs: [f32(2, 0), f32(2)], apply: (x, y) => add(reduceSum(mul(x, x), -1), y) },
  "a product over nothing with an epilogue": {
    inputs: [f32(2, 0), f32(0, 3), f32(3)],
    apply: (x, w, b) => gelu(add(matmul(x, w), b)),
  },
  "two products, one over nothing": {
    inputs: [f32(2, 4), f32(4, 3), f32(2, 0), f32(0, 3)],
    apply: (x, w, a, b) => add(matmul(x, w), matmul(a, b)),
  },
  "a product with no rows": { inputs: [f32(0, 2), f32(2, 3)], apply: (x, w) => matmul(x, w) },
  "no products": { inputs: [f32(0, 2, 3), f32(0, 3, 4)], apply: (x, w) => matmul(x, w) },
  "a concatenation with nothing": { inputs: [f32(2, 0), f32(2, 3)], apply: (x, y) => concat([mul(x, 2), y], 1) },
  "a split of nothing": { inputs: [f32(0, 4)], apply: (x) => add(...split(x, 1, 2) as [Value, Value]) },
  "other shapes of nothing": { inputs: [f32(0, 4)], apply: (x) => broadcastTo(reshape(x, [4, 1, 0]), [4, 2, 0]) },
  "lookups of nothing": { inputs: [f32(3, 2), i32(0)], apply: (table, ids) => gather(table, ids) },
  "norms of no rows": {
    inputs: [f32(0, 4), f32(4)],
    apply: (x, g) => add(layerNorm(x, g, g, 1e-5), rmsNorm(x, g, 1e-5)),
  },
  "softmax of no rows": { inputs: [f32(0, 4)], apply: (x) => add(softmax(x), logSoftmax(x)) },
  "softmax of single elements": { inputs: [f32(3, 1)], apply: (x) => softmax(x) },
  "cross-entropies of no rows": { inputs: [f32(0, 4), i32(0)], apply: (x, y) => crossEntropyRows(x, y) },
  "the loss of no texts": { inputs: [f32(0, 3, 4), i32(0, 3)], apply: (x, y) => causalLoss(x, y) },
  "the loss of texts of one token": { inputs: [f32(2, 1, 4), i32(2, 1)], apply: (x, y) => causalLoss(x, y) },
  "the loss of texts of no tokens": { inputs: [f32(2, 0, 4), i32(2, 0)], apply: (x, y) => causalLoss(x, y) },
  "sums over no rows": {
    inputs: [f32(0, 4), f32(4)],
    apply: (x, w) => sumOver((x, w: Value) => reduceSum(mul(x, broadcastTo(w, x.shape))), x, w, { chunk: 2 })[0],
  },
  "the mean of no rows": { inputs: [f32(0, 4)], apply: (x) => mean(x, 1) },
  "attention to nothing": { inputs: heads(3, 0), apply: (q, k, v) => attention(q, k, v, { causal: false }) },
  "attention of nothing": { inputs: heads(0, 3), apply: (q, k, v) => attention(q, k, v, { causal: true }) },
  "attention of no texts": { inputs: heads(3, 3, 0), apply: (q, k, v) => attention(q, k, v, { causal: true }) },
  "attention of one token": { inputs: heads(1, 1), apply: (q, k, v) => attention(q, k, v, { causal: true }) },
  "a function mapped over nothing": {
    inputs: [f32(0, 3), f32(3, 2)],
    apply: (x, w) => vmap((x: Value, w: Value) => softmax(matmul(reshape(x, [1, 3]), w)), { inAxes: [0, null] })(x, w),
  },
  "attention mapped over nothing": {
    inputs: heads(3, 3).map(({ shape }) => f32(0, ...shape)),
    apply: (q, k, v) => vmap((q: Value, k: Value, v: Value) => attention(q, k, v, { causal: true }))(q, k, v),
  },
  "running sums of nothing": { inputs: [f32(2, 0)], apply: (x) => cumsum(x) },
  "random numbers": {
    inputs: [fromHost(randomKey(1)), f32(0, 3)],
    apply: (key, x) => dropout(add(x, randomNormal(key, [0, 3])), key, 0.5),
  },
  "counters and constants": { inputs: [f32(1)], apply: () => add(convert(iota([0, 3], 1), "f32"), full([3], 2)) },
};

const refused: Record<string, () => unknown> = {
  "the greatest": () => reduceMax(full([3, 0], 1), 1),
  "the greatest of all": () => reduceMax(full([0], 1)),
  "its place": () => argmax(full([3, 0], 1)),
  "the mean": () => mean(full([3, 0], 1), -1),
  "softmax": () => softmax(full([3, 0], 1)),
  "log softmax": () => logSoftmax(full([0], 1)),
  "layer norm": () => layerNorm(full([3, 0], 1), full([0], 1), full([0], 1), 1e-5),
  "rms norm": () => rmsNorm(full([3, 0], 1), full([0], 1), 1e-5),
  "cross-entropy": () => crossEntropyRows(full([3, 0], 1), full([3], 0, "i32")),
  "a lookup": () => gather(full([0, 3], 1), full([2], 0, "i32")),
};

for (const [name, call] of Object.entries(refused)) {
  Deno.test(`not defined for empty arrays: ${name}`, () => void assertThrows(call, ShapeError));
}

for (const { name, open } of runtimes.slice(1)) {
  Deno.test(`${name}: arrays of none and of one`, async (t) => {
    using runtime = await open();
    for (const [what, { inputs, apply }] of Object.entries(functions)) {
      const wrt = inputs.flatMap((x, i) => x.dtype === "f32" ? [i] : []);
      const slopes = (...xs: Value[]) =>
        grad((some: Value[]) => {
          const all = [...xs];
          wrt.forEach((at, i) => all[at] = some[i]);
          return reduceSum(apply(...all));
        })(wrt.map((i) => xs[i]));
      await t.step(what, async () => {
        const f = (...xs: Value[]) => [apply(...xs), ...slopes(...xs) as Value[]];
        const want = runOracle(f, ...inputs) as OracleTensor[];
        const got = await runtime.read(runtime.jit(f)(...inputs.map((x) => upload(runtime.home, toHost(x)))));
        want.forEach((x, i) => assertAllClose(got[i], x));
      });
    }
    await t.step("and the device is as good as before", async () => {
      const ones = () => upload(runtime.home, { shape: [1000], dtype: "f32", data: new Float32Array(1000).fill(1) });
      const tensors = Array.from({ length: 20 }, ones);
      const sums = await runtime.read(runtime.jit((xs: Value[]) => xs.map((x) => reduceSum(x)))(tensors));
      assertEquals(sums, Array(20).fill(1000));
    });
  });
}
