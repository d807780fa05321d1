/**
 * Transforms are functions from functions to functions, in any order: each takes a function f32[3] → f32[] and gives another.
 * Beside each stands what it means without it. Everything is whole numbers, so that one order and its meaning are equal.
 */
import { assertEquals } from "@std/assert";
import type { Value } from "../../core/ir/graph.ts";
import { full, reduceSum, reshape } from "../../core/ops/broadcast.ts";
import { matmul } from "../../core/ops/contract.ts";
import { add, convert, mul, sub } from "../../core/ops/elementwise.ts";
import { concat, iota } from "../../core/ops/structure.ts";
import { type Operand, Tensor, tensor } from "../../core/tensor.ts";
import { checkpoint } from "../../core/transforms/checkpoint.ts";
import { customVjp } from "../../core/transforms/custom_vjp.ts";
import { grad, valueAndGrad } from "../../core/transforms/grad.ts";
import { roundActivations } from "../../core/transforms/round_activations.ts";
import { sumOver } from "../../core/transforms/sum_over.ts";
import { vmap } from "../../core/transforms/vmap.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { evaluate, read } from "../../kernels/runtime/read.ts";
import { lora } from "../../lora/mod.ts";
import { devices } from "../devices.ts";
import { oracleTensor, runOracle } from "../../testing/oracle.ts";
import { toyModel } from "../../testing/toy_models.ts";

type F = (x: Value) => Value;
type Transform = (f: F) => F;

/** The vector and the one after it, as two rows. */
const rowsOf = (x: Operand) => concat([reshape(x, [1, 3]), reshape(add(x, 1), [1, 3])], 0);
const looped: Transform = (f) => (x) => add(f(add(x, 0)), f(add(x, 1)));
const same: Transform = (f) => f;

const weight = () => convert(sub(iota([3, 3]), iota([3, 3], 0)), "f32");
const pair = () => ({ A: full([1, 3], 1), B: full([3, 1], 2) });
const model = toyModel({ lin: { weight: oracleTensor([3, 3], Array(9).fill(0)) } }, (p, x) => matmul(x, p.lin.weight), {
  shape: [1, 3],
  dtype: "f32",
});
const tuned = lora(model, { r: 1, alpha: 1, targets: ["lin"] });

/** Each transform, and what it means. */
const transforms: Readonly<Record<string, { readonly made: Transform; readonly means: Transform }>> = {
  jit: { made: (f) => jit(f) as unknown as F, means: same },
  checkpoint: { made: (f) => checkpoint(f), means: same },
  roundActivations: { made: (f) => roundActivations(f as never) as unknown as F, means: same },
  customVjp: {
    made: (f) =>
      customVjp(f, { forward: (x: Value) => [f(x), x], backward: (x: Value, ct: Value) => [mul(ct, grad(f)(x))] }) as F,
    means: same,
  },
  vmap: { made: (f) => (x) => reduceSum(vmap(f)(rowsOf(x) as Value)), means: looped },
  sumOver: {
    made: (f) => (x) => sumOver((rows: Value) => reduceSum(vmap(f)(rows)), rowsOf(x), null, { chunk: 1 })[0],
    means: looped,
  },
  grad: { made: (f) => (x) => reduceSum(grad(f)(x)), means: (f) => (x) => reduceSum(grad(f)(x)) },
  valueAndGrad: {
    made: (f) => (x) => {
      const [value, slope] = valueAndGrad(f)(x);
      return add(value, reduceSum(slope));
    },
    means: (f) => (x) => add(f(x), reduceSum(grad(f)(x))),
  },
  lora: {
    made: (f) => (x) => {
      const h = tuned.apply({ lin: pair() } as never, { lin: { weight: weight() } } as never, reshape(x, [1, 3]));
      return f(reshape(h as Value, [3]));
    },
    // B·A is 2 everywhere.
    means: (f) => (x) => f(reshape(matmul(reshape(x, [1, 3]), add(weight(), 2)), [3])),
  },
};

const cubes: F = (x) => reduceSum(add(mul(x, mul(x, x)), mul(x, 2)));
const numbers = [1, -2, 3];
const names = Object.keys(transforms);

/** All orders of `length` transforms, each as often as one likes. */
function orders(length: number): string[][] {
  return length === 0 ? [[]] : orders(length - 1).flatMap((rest) => names.map((name) => [name, ...rest]));
}

const compose = (order: readonly string[], which: "made" | "means") =>
  order.reduceRight((f, name) => transforms[name][which](f), cubes);

Deno.test("transforms in every order of three mean what they mean apart", () => {
  for (const order of [1, 2, 3].flatMap(orders)) {
    const [got, want] = (["made", "means"] as const).map((which) => {
      const f = compose(order, which);
      return runOracle((x: Value) => f(x), oracleTensor([3], numbers)).data[0];
    });
    assertEquals(got, want, order.join(" of "));
  }
});

for (const device of devices) {
  Deno.test(`transforms in every order of two on ${device.name}, jitted and not`, async () => {
    using home = await device.open();
    using x = tensor(home, numbers);
    const values = orders(2).map((order) => [order, compose(order, "made")] as const);
    const want = values.map(([, f]) => runOracle((x: Value) => f(x), oracleTensor([3], numbers)).data[0]);
    // A jitted function outermost runs at once: what it gives is a tensor.
    const got = values.map(([, f]) => f(x as never) as Value | Tensor);
    const eager = await evaluate(got);
    const jitted = await read(values.map(([, f]) => jit(f)(x)), { release: true });
    values.forEach(([order], i) => assertEquals([eager[i], jitted[i]], [want[i], want[i]], order.join(" of ")));
    for (const y of got) if (y instanceof Tensor) y.dispose();
  });
}
