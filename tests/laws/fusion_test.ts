/**
 * Random programs over small whole numbers, which f32 computes exactly: fused kernels must give the very numbers that the
 * oracle gives op by op. This is the test of partitioning, lowering and planning; there is no tolerance in it.
 */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import type { Value } from "../../core/ir/graph.ts";
import { broadcastTo, reduceSum, reshape } from "../../core/ops/broadcast.ts";
import { dot } from "../../core/ops/contract.ts";
import { add, clamp, convert, lt, max, mul, neg, select, sub } from "../../core/ops/elementwise.ts";
import { dynamicSlice, dynamicUpdateSlice, gather, scatterAdd } from "../../core/ops/indexing.ts";
import { argmax, reduceMax } from "../../core/ops/reduce.ts";
import { concat, iota, pad, slice, split, transpose } from "../../core/ops/structure.ts";
import { upload } from "../../core/tensor.ts";
import { jit, read } from "../../kernels/jit.ts";
import { devices } from "../devices.ts";
import { oracleTensor, runOracle } from "../reference/oracle.ts";

/** A stream of choices: program and data are a function of the seed. */
class Choices {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0 || 1;
  }
  below(n: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % n;
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)];
  }
}

const shapes = [[4, 6], [2, 3, 4], [6], [4], [1, 4], [3, 4, 2]];

/** Keeps numbers small enough for sums and products of them to be exact. */
const small = (x: Value) => clamp(x, -4, 4);

type Step = (c: Choices, x: Value, all: readonly Value[]) => Value;

const sameShaped = (c: Choices, x: Value, all: readonly Value[]) =>
  c.pick(all.filter((v) => String(v.shape) === String(x.shape)));
const axisOf = (c: Choices, x: Value) => c.below(x.shape.length);

const steps: Record<string, Step> = {
  add: (c, x, all) => small(add(x, sameShaped(c, x, all))),
  sub: (c, x, all) => small(sub(sameShaped(c, x, all), x)),
  mul: (c, x, all) => small(mul(x, sameShaped(c, x, all))),
  max: (c, x, all) => max(neg(x), sameShaped(c, x, all)),
  select: (c, x, all) => select(lt(x, sameShaped(c, x, all)), x, c.below(3) - 1),
  viaInteger: (_, x) => convert(add(convert(x, "i32"), 1), "f32"),
  transpose: (c, x) => transpose(x, x.shape.map((_, i) => (i + 1 + c.below(1)) % x.shape.length)),
  reshape: (_, x) => reshape(x, [x.shape.reduce((a, b) => a * b, 1)]),
  split2: (c, x) => {
    const axis = axisOf(c, x);
    return x.shape[axis] < 2 ? x : concat(split(x, axis, [1, x.shape[axis] - 1]).toReversed(), axis);
  },
  slice: (c, x) => {
    const axis = axisOf(c, x);
    return x.shape[axis] < 2 ? x : slice(x, axis, 1, x.shape[axis]);
  },
  pad: (c, x) => pad(x, x.shape.map(() => c.below(2)), x.shape.map(() => c.below(2))),
  concat: (c, x, all) => concat([x, sameShaped(c, x, all)], axisOf(c, x)),
  broadcast: (c, x) => broadcastTo(x, [1 + c.below(3), ...x.shape]),
  sum: (c, x) => x.shape.length < 2 ? x : small(reduceSum(x, axisOf(c, x))),
  sumTwo: (_, x) => x.shape.length < 3 ? x : small(reduceSum(x, [0, x.shape.length - 1])),
  greatest: (c, x) => x.shape.length < 2 ? x : reduceMax(x, axisOf(c, x), { keep: true }),
  argmax: (c, x) => x.shape.length < 2 ? x : convert(argmax(x, axisOf(c, x)), "f32"),
  centred: (_, x) => small(sub(x, broadcastTo(reduceMax(x, -1, { keep: true }), x.shape))),
  product: (c, x, all) => {
    const other = c.pick(all.filter((v) => v.shape.some((d) => x.shape.includes(d))));
    const axis = x.shape.findIndex((d) => other.shape.includes(d));
    const dims = { contract: [[axis], [other.shape.indexOf(x.shape[axis])]], batch: [[], []] } as const;
    const y = dot(x, other, dims);
    return y.shape.length > 4 || y.shape.length === 0 ? x : small(y);
  },
  twoProducts: (_, x) => {
    if (x.shape.length !== 2) return x;
    const dims = { contract: [[1], [1]], batch: [[], []] } as const;
    return small(add(dot(x, x, dims), dot(mul(x, 2), neg(x), dims)));
  },
  batched: (_, x) => {
    if (x.shape.length !== 3) return x;
    return small(dot(x, x, { contract: [[2], [2]], batch: [[0], [0]] }));
  },
  gather: (c, x) => gather(x, rem(c, x.shape[0])),
  scatter: (c, x) => {
    const indices = rem(c, 3, x.shape[0]);
    return small(scatterAdd(indices, x, 3));
  },
  window: (c, x) => {
    const sizes = x.shape.map((d) => Math.max(1, d - c.below(2)));
    return dynamicSlice(x, x.shape.map(() => c.below(4) - 1), sizes);
  },
  update: (c, x) => {
    const sizes = x.shape.map((d) => Math.max(1, d - 1));
    const part = dynamicSlice(x, x.shape.map(() => 0), sizes);
    return dynamicUpdateSlice(x, neg(part), x.shape.map(() => c.below(3)));
  },
};

/** Some i32 indices below `limit`. */
function rem(c: Choices, limit: number, length = 3): Value {
  const stride = 1 + c.below(3);
  return convert(sub(mul(iota([length]), stride), c.below(limit)), "i32");
}

function program(seed: number, length: number): (inputs: Value[]) => Value[] {
  return (inputs) => {
    const c = new Choices(seed);
    const all = [...inputs];
    for (let i = 0; i < length; i++) {
      const x = c.pick(all.slice(-6));
      const y = steps[c.pick(Object.keys(steps))](c, x, all);
      if (y.shape.reduce((a, b) => a * b, 1) <= 600) all.push(y);
    }
    return [all.at(-1)!, c.pick(all), c.pick(all)];
  };
}

for (const device of devices) {
  Deno.test(`random programs on ${device.name} are the oracle's, to the bit`, async () => {
    using home = await device.open();
    const runs = device.name.startsWith("webgpu") ? 100 : 1000;
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 2 ** 30 }), fc.integer({ min: 1, max: 25 }), async (seed, length) => {
        const c = new Choices(seed ^ 0x5555);
        const data = shapes.map((shape) =>
          Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => c.below(9) - 4)
        );
        const f = program(seed, length);
        const want = runOracle(f, shapes.map((shape, i) => oracleTensor(shape, [...data[i]])));
        const inputs = shapes.map((shape, i) => upload(home, { shape, dtype: "f32", data: data[i] }));
        const got = await read(jit(f)(inputs), { release: true });
        for (const t of inputs) t.dispose();
        want.forEach((w: { data: Float64Array }, i: number) => {
          const values = typeof got[i] === "number" ? [got[i]] : [...got[i].data];
          assertEquals(
            values.map((x) => x + 0),
            [...w.data].map((x) => x + 0),
            `output ${i} of program ${seed}/${length}`,
          );
        });
      }),
      { numRuns: runs, seed: 7 },
    );
  });
}
