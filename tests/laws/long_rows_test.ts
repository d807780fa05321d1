/** Rows, products and contexts of great length: a software adapter cuts long loops short without a word. */
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { crossEntropyRows } from "../../core/nn/loss.ts";
import { attention } from "../../core/nn/attention.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { matmul } from "../../core/ops/contract.ts";
import { scatterAdd } from "../../core/ops/indexing.ts";
import { argmax } from "../../core/ops/reduce.ts";
import { upload } from "../../core/tensor.ts";
import { runtimes } from "../runtimes.ts";

const [rows, columns] = [3, 100_003];
/** More rounds of four than a software adapter runs. */
const depth = 300_004;
const [keys, width] = [140_001, 4];

for (const { name, open } of runtimes) {
  Deno.test(`${name}: rows of ${columns} columns are summed and searched to their end`, async () => {
    using runtime = await open();
    const data = new Float32Array(rows * columns).fill(1);
    for (let i = 0; i < rows; i++) data[(i + 1) * columns - 1] = 2;
    const x = upload(runtime.home, { shape: [rows, columns], dtype: "f32", data });
    const y = upload(runtime.home, { shape: [rows], dtype: "i32", data: Int32Array.of(0, 5, columns - 1) });
    const run = runtime.jit((x, y) => ({ loss: crossEntropyRows(x, y), best: argmax(x) }));
    const { loss, best } = await runtime.read(run(x, y));
    const total = Math.log(columns - 1 + Math.E);
    for (let i = 0; i < rows; i++) {
      assertAlmostEquals(loss.data[i], i < 2 ? total : total - 1, 1e-4);
      assertAlmostEquals(best.data[i], columns - 1, 0);
    }
  });

  Deno.test(`${name}: sums of ${depth} products, and of all of them, reach their end`, async () => {
    using runtime = await open();
    const put = (...shape: number[]) => {
      const data = new Float32Array(shape[0] * shape[1]).fill(1);
      data[data.length - 1] = 3;
      return upload(runtime.home, { shape, dtype: "f32", data });
    };
    const run = runtime.jit((one, few, back, column) => ({
      single: matmul(one, column),
      block: matmul(few, back),
      all: reduceSum(few),
    }));
    const { single, block, all } = await runtime.read(run(put(1, depth), put(5, depth), put(depth, 6), put(depth, 1)));
    // The exact sums are below 2^24, and so is every partial sum: all of them are exact in f32.
    assertEquals(single.data[0], depth - 1 + 9);
    // The last row of one factor and the last column of the other end in a 3.
    const expected = (i: number, j: number) => depth - 1 + (i === 4 ? 3 : 1) * (j === 5 ? 3 : 1);
    assertEquals([...block.data], Array.from({ length: 30 }, (_, at) => expected(Math.floor(at / 6), at % 6)));
    assertEquals(all, 5 * depth + 2);
  });

  Deno.test(`${name}: a query sees all of ${keys} keys`, async () => {
    using runtime = await open();
    const put = (tokens: number, value: (token: number) => number) => {
      const data = Float32Array.from({ length: tokens * width }, (_, i) => value(Math.floor(i / width)));
      return upload(runtime.home, { shape: [1, tokens, 1, width], dtype: "f32", data });
    };
    const run = runtime.jit((q, k, v) => attention(q, k, v, { causal: false }));
    const out = await runtime.read(run(put(1, () => 0), put(keys, () => 1), put(keys, (t) => t % 2)));
    out.data.forEach((x: number) => assertAlmostEquals(x, 0.5, 1e-4));
  });

  Deno.test(`${name}: ${depth} rows are added to the rows of a table to the last`, async () => {
    using runtime = await open();
    // The middle row's first is far behind, and the last is added to it.
    const data = Int32Array.from({ length: depth }, (_, i) => i < depth - 5 ? 2 * (i % 2) : 1);
    const ids = upload(runtime.home, { shape: [depth], dtype: "i32", data });
    const rows = upload(runtime.home, { shape: [depth], dtype: "f32", data: new Float32Array(depth).fill(1) });
    const table = await runtime.read(runtime.jit((ids, rows) => scatterAdd(ids, rows, 3))(ids, rows));
    assertEquals([...table.data], [Math.ceil((depth - 5) / 2), 5, Math.floor((depth - 5) / 2)]);
  });
}
