/** Programs of very many operations: nothing recurses from one to the next, and no kernel gathers more than it may hold. */
import { assertEquals } from "@std/assert";
import type { Value } from "../../core/ir/graph.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { add, max, mul, neg } from "../../core/ops/elementwise.ts";
import { concat, pad } from "../../core/ops/structure.ts";
import { checkpoint } from "../../core/transforms/checkpoint.ts";
import { grad } from "../../core/transforms/grad.ts";
import { vmap } from "../../core/transforms/vmap.ts";
import { tensor } from "../../core/tensor.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { read } from "../../kernels/runtime/read.ts";
import { devices } from "../devices.ts";
import { oracleTensor, runOracle } from "../../testing/oracle.ts";

/** Whole numbers stay small: x, 1 - x, x, …, so that f32 is exact. */
const chain = (length: number) => (x: Value) => {
  let y = x;
  for (let i = 0; i < length; i += 2) y = neg(add(y, -1));
  return y;
};
/** One kernel must not take a thousand values either that are made side by side. */
const wide = (length: number) => (x: Value) => {
  let level = Array.from({ length: length / 2 }, (_, i) => max(x, i % 7 - 9));
  while (level.length > 1) {
    level = Array.from(
      { length: Math.ceil(level.length / 2) },
      (_, i) => 2 * i + 1 < level.length ? max(level[2 * i], level[2 * i + 1]) : level[2 * i],
    );
  }
  return level[0];
};

const many = 20_000;
const programs: Readonly<Record<string, (x: Value) => Value>> = {
  "a chain": chain(many),
  "a chain under a sum": (x) => reduceSum(chain(many)(x)),
  "a chain in a concat and a pad": (x) => pad(concat([chain(many)(x), x], 0), [1], [1]),
  "the gradient of a chain": grad((x: Value) => reduceSum(mul(chain(many / 2)(x) as Value, x))),
  "the gradient of a checkpointed chain": grad((x: Value) =>
    reduceSum(mul(checkpoint(chain(many / 4))(x) as Value, x))
  ),
  "a mapped chain": (x) => vmap(chain(many / 2))(x),
  "values side by side": wide(2_000),
};

for (const device of devices) {
  Deno.test(`programs of ${many} operations on ${device.name}`, async (t) => {
    using home = await device.open();
    const numbers = [3, -4, 5, 7];
    for (const [name, f] of Object.entries(programs)) {
      await t.step(name, async () => {
        using x = tensor(home, numbers);
        const want = runOracle(f, oracleTensor([4], numbers));
        const got = await read(jit(f)(x), { release: true });
        assertEquals(typeof got === "number" ? [got] : Array.from(got.data as Float32Array), [...want.data]);
      });
    }
  });
}
