/** Rows as long as a large vocabulary: a software adapter cuts long loops short without a word, so length is tested as such. */
import { assertAlmostEquals } from "@std/assert";
import { crossEntropyRows } from "../../core/nn/loss.ts";
import { argmax } from "../../core/ops/reduce.ts";
import { upload } from "../../core/tensor.ts";
import { runtimes } from "../runtimes.ts";

const [rows, columns] = [3, 100_003];

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
}
