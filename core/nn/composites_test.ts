import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { oracleTensor, runOracle } from "../../testing/oracle.ts";
import { ShapeError } from "../errors.ts";
import { newInput, nodesOf, type Value } from "../ir/graph.ts";
import { full, reduceSum } from "../ops/broadcast.ts";
import { matmul } from "../ops/contract.ts";
import { mul, pow, sin } from "../ops/elementwise.ts";
import type { Tensor } from "../tensor.ts";
import { grad } from "../transforms/grad.ts";
import { gelu, geluTanh, silu, swiglu } from "./activation.ts";
import { attention } from "./attention.ts";
import { causalLoss, classificationLoss, crossEntropyRows, labelledTokens, tokenLogProbs } from "./loss.ts";
import { layerNorm, rmsNorm } from "./norm.ts";
import { rope, ropeAngles } from "./rope.ts";
import { logSoftmax, logSumExp, softmax } from "./softmax.ts";

/** Numbers in [-1, 1) that look random and are the same every time. */
function numbers(count: number, seed: number): number[] {
  return Array.from({ length: count }, (_, i) => {
    const x = Math.sin((i + 1) * 12.9898 + seed * 78.233) * 43758.5453;
    return (x - Math.floor(x)) * 2 - 1;
  });
}
const random = (shape: number[], seed: number) => oracleTensor(shape, numbers(shape.reduce((a, b) => a * b, 1), seed));
const bools = (shape: number[], data: number[]) => oracleTensor(shape, data, "bool");
const ints = (shape: number[], data: number[]) => oracleTensor(shape, data, "i32");

/** A scalar that weighs every element of f(…) differently. */
const scalar = (f: (...xs: Value[]) => Value) => (...xs: Value[]) => {
  const y = f(...xs);
  const weights = oracleTensor(y.shape, numbers(y.shape.reduce((a, b) => a * b, 1), 99));
  return reduceSum(mul(y, weights));
};

/** The gradient of a scalar function by its first argument against central differences, in float64. */
function checkGradient(name: string, f: (...xs: Value[]) => Value, args: Tensor[], argnum = 0): void {
  const g = runOracle(grad(f, { argnums: argnum }), ...args) as { data: Float64Array };
  const { data } = args[argnum].buffer as { data: Float64Array };
  const step = 1e-5;
  for (let i = 0; i < data.length; i++) {
    const at = (delta: number) => {
      const moved = Float64Array.from(data);
      moved[i] += delta;
      const xs = args.map((x, j) => j === argnum ? oracleTensor(x.shape, moved) : x);
      return (runOracle(f, ...xs) as { data: Float64Array }).data[0];
    };
    const expected = (at(step) - at(-step)) / (2 * step);
    assertAlmostEquals(
      g.data[i],
      expected,
      1e-8 + 1e-7 * Math.abs(expected),
      `${name}: argument ${argnum}, element ${i}`,
    );
  }
}

const firstOrder: Record<string, { f: (...xs: Value[]) => Value; args: Tensor[]; wrt: number }> = {
  softmax: { f: (x) => softmax(x), args: [random([3, 5], 1)], wrt: 1 },
  "softmax of axis 0": { f: (x) => softmax(x, 0), args: [random([3, 5], 1)], wrt: 1 },
  logSoftmax: { f: (x) => logSoftmax(x), args: [random([3, 5], 1)], wrt: 1 },
  layerNorm: {
    f: (x, g, b) => layerNorm(x, g, b, 1e-5),
    args: [random([2, 2, 5], 1), random([5], 2), random([5], 3)],
    wrt: 3,
  },
  rmsNorm: { f: (x, g) => rmsNorm(x, g, 1e-5), args: [random([2, 2, 5], 1), random([5], 2)], wrt: 2 },
  gelu: { f: gelu, args: [random([7], 4)], wrt: 1 },
  geluTanh: { f: geluTanh, args: [random([7], 4)], wrt: 1 },
  silu: { f: silu, args: [random([7], 4)], wrt: 1 },
  swiglu: { f: swiglu, args: [random([7], 4), random([7], 5)], wrt: 2 },
  rope: {
    f: (x, c, s) => rope(x, { cos: c, sin: s }),
    args: [random([2, 3, 2, 4], 1), random([2, 3, 2], 2), random([2, 3, 2], 3)],
    wrt: 3,
  },
  ropeOfAPart: {
    f: (x, c, s) => rope(x, { cos: c, sin: s }),
    args: [random([2, 3, 2, 7], 1), random([2, 3, 2], 2), random([2, 3, 2], 3)],
    wrt: 3,
  },
  attention: {
    f: (q, k, v, m) => attention(q, k, v, { mask: m, causal: true, offset: 1 }),
    args: [
      random([2, 3, 4, 2], 1),
      random([2, 4, 2, 2], 2),
      random([2, 4, 2, 2], 3),
      bools([2, 4], [1, 1, 0, 1, 0, 0, 1, 1]),
    ],
    wrt: 3,
  },
  attentionWithinCap: {
    f: (q, k, v, sinks) => attention(q, k, v, { sinks, cap: 0.5, scale: 1, causal: true, offset: 1 }),
    args: [random([2, 3, 4, 2], 1), random([2, 4, 2, 2], 2), random([2, 4, 2, 2], 3), random([4], 4)],
    wrt: 4,
  },
  attentionFromFirst: {
    f: (q, k, v, first) => attention(q, k, v, { first, causal: false }),
    args: [
      random([2, 3, 4, 2], 1),
      random([2, 4, 2, 2], 2),
      random([2, 4, 2, 2], 3),
      ints([2, 3], [-1, 2, 4, 0, 3, 1]),
    ],
    wrt: 3,
  },
  crossEntropyRows: {
    f: (x, y) => crossEntropyRows(x, y),
    args: [random([3, 5], 1), ints([3], [4, -100, 0])],
    wrt: 1,
  },
  "crossEntropyRows, smoothed and with z": {
    f: (x, y) => crossEntropyRows(x, y, { labelSmoothing: 0.2, zLoss: 0.1 }),
    args: [random([3, 5], 1), ints([3], [4, -100, 0])],
    wrt: 1,
  },
  logSumExp: { f: (x) => logSumExp(x), args: [random([3, 5], 1)], wrt: 1 },
  tokenLogProbs: {
    f: (x, w, y) => tokenLogProbs(matmul(x, w), y, { chunk: 2 }),
    args: [random([2, 3, 4], 1), random([4, 5], 2), ints([2, 3], [0, 1, 2, 3, -100, 4])],
    wrt: 2,
  },
  classificationLoss: {
    f: (x, y) => classificationLoss(x, y),
    args: [random([3, 4], 1), ints([3], [2, -100, 0])],
    wrt: 1,
  },
  causalLoss: {
    f: (x, y) => causalLoss(x, y),
    args: [random([2, 3, 5], 1), ints([2, 3], [1, 2, -100, 0, 4, 3])],
    wrt: 1,
  },
};

for (const [name, { f, args, wrt }] of Object.entries(firstOrder)) {
  Deno.test(`${name}: its gradient is that of central differences`, () => {
    for (let i = 0; i < wrt; i++) checkGradient(name, scalar(f), args, i);
  });
  Deno.test(`${name}: so is the gradient of its gradient`, () => {
    const slope = (...xs: Value[]) => reduceSum(sin(grad(scalar(f))(...xs)));
    checkGradient(name, slope, args);
  });
}

Deno.test("attention: a query that sees no key gives zeros, and passes no gradient", () => {
  const [q, k, v] = [random([1, 2, 1, 2], 1), random([1, 2, 1, 2], 2), random([1, 2, 1, 2], 3)];
  const f = (q: Value, k: Value, v: Value) => attention(q, k, v, { mask: bools([1, 2], [0, 1]), causal: true });
  assertEquals([...(runOracle(f, q, k, v) as { data: Float64Array }).data].slice(0, 2), [0, 0]);
  const dq = runOracle(grad((...xs: Value[]) => reduceSum(f(...xs as [Value, Value, Value]))), q, k, v);
  assertEquals([...(dq as { data: Float64Array }).data].slice(0, 2), [0, 0]);
});

Deno.test("attention: padding before or after the real tokens changes nothing for them", () => {
  const [q, k, v] = [1, 2, 3].map((seed) => numbers(3 * 2, seed));
  const run = (pad: (x: number[]) => number[], mask: number[]) => {
    const place = (x: number[]) => oracleTensor([1, 5, 1, 2], pad(x));
    const f = (q: Value, k: Value, v: Value, m: Value) => attention(q, k, v, { mask: m, causal: true });
    return [...(runOracle(f, place(q), place(k), place(v), bools([1, 5], mask)) as { data: Float64Array }).data];
  };
  const junk = [9, -9, 9, -9];
  assertEquals(
    run((x) => [...x, ...junk], [1, 1, 1, 0, 0]).slice(0, 6),
    run((x) => [...junk, ...x], [0, 0, 1, 1, 1]).slice(4),
  );
});

Deno.test("attention: two documents in one row attend as they do alone", () => {
  const [q, k, v] = [1, 2, 3].map((seed) => numbers(5 * 2, seed));
  const run = (from: number, to: number, first: number[]) => {
    const place = (x: number[]) => oracleTensor([1, to - from, 1, 2], x.slice(2 * from, 2 * to));
    const f = (q: Value, k: Value, v: Value, first: Value) => attention(q, k, v, { first, causal: true });
    return [
      ...(runOracle(f, place(q), place(k), place(v), ints([1, to - from], first)) as { data: Float64Array }).data,
    ];
  };
  assertEquals(run(0, 5, [0, 0, 0, 3, 3]), [...run(0, 3, [0, 0, 0]), ...run(3, 5, [0, 0])]);
});

Deno.test("rope: scores depend on the distance of positions alone", () => {
  const [q, k] = [random([1, 1, 1, 8], 1), random([1, 1, 1, 8], 2)];
  const frequencies = [1, 0.1, 0.01, 0.001];
  const score = (m: number, n: number) => {
    const f = (q: Value, k: Value, m: Value, n: Value) =>
      reduceSum(mul(rope(q, ropeAngles(m, frequencies)), rope(k, ropeAngles(n, frequencies))));
    return (runOracle(f, q, k, ints([1, 1], [m]), ints([1, 1], [n])) as { data: Float64Array }).data[0];
  };
  assertAlmostEquals(score(3, 1), score(12, 10), 1e-12);
  assert(Math.abs(score(3, 1) - score(3, 2)) > 1e-3);
});

Deno.test("causalLoss: counts the labels that have a place to be predicted from", () => {
  const labels = ints([2, 3], [1, 2, -100, -100, 4, 3]);
  assertEquals((runOracle(labelledTokens, labels) as { data: Float64Array }).data[0], 3);
  const logits = random([2, 3, 5], 1);
  const [mean, sum, third] = (["mean", "sum", null] as const).map((reduction) =>
    (runOracle(
      (x: Value, y: Value) => causalLoss(x, y, { reduction: reduction ?? labelledTokens(y) }),
      logits,
      labels,
    ) as { data: Float64Array }).data[0]
  );
  assertAlmostEquals(mean, sum / 3, 1e-12);
  assertAlmostEquals(third, mean, 1e-12);
});

Deno.test("a composite stays one node until it is lowered, and saves only what its rule names", () => {
  const x = newInput({ shape: [4, 8], dtype: "f32" });
  const names = nodesOf([grad((x: Value) => reduceSum(geluTanh(x)))(x)]).map((n) => n.prim.name);
  assert(names.includes("geluTanhGrad") && !names.includes("tanh"), names.join());
});

Deno.test("sizes that do not fit are refused with both named", () => {
  const x = newInput({ shape: [2, 3], dtype: "f32" });
  const error = assertThrows(() => rmsNorm(x, newInput({ shape: [4], dtype: "f32" }), 1e-5), ShapeError);
  assertEquals(error.message, "Cannot rmsNorm f32[2,3] with a gamma of f32[4]: it takes [3]");
});

Deno.test("the derivatives of pow at base 0 and at exponent 0 are their limits, and so are those of these", () => {
  const at = (a: number, b: number) => {
    const of = (x: Tensor, y: Tensor) => {
      const f = (x: Value, y: Value) => reduceSum(pow(x, y));
      return [grad(f)(x as never, y as never), grad(f, { argnums: 1 })(x as never, y as never)] as Value[];
    };
    const [byBase, byExponent] = runOracle(of, oracleTensor([1], [a]), oracleTensor([1], [b])) as {
      data: Float64Array;
    }[];
    return [byBase.data[0], byExponent.data[0]];
  };
  // PyTorch's: 0^0 is 1 and does not move with the exponent.
  assertEquals(at(0, 2), [0, 0]);
  assertEquals(at(0, 1), [1, 0]);
  assertEquals(at(0, 0), [0, 0]);
  assertEquals(at(0, -1), [-Infinity, -Infinity]);
  assertEquals(at(3, 0), [0, Math.log(3)]);
  assertEquals(at(-2, 2)[0], -4);
  assert(Number.isNaN(at(-2, 2)[1]));
  const slopes = (order: number) => {
    let f = (x: Value): Value => reduceSum(pow(x, full([1], 2)));
    for (let i = 0; i < order; i++) {
      const g = f;
      f = (x) => reduceSum(grad(g)(x) as Value);
    }
    return (runOracle(f, oracleTensor([1], [0])) as { data: Float64Array }).data[0];
  };
  assertEquals([0, 1, 2, 3].map(slopes), [0, 0, 2, 0]);
});
