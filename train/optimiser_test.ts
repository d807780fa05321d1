import { assert, assertEquals, assertThrows } from "@std/assert";
import { OptionError } from "../core/errors.ts";
import { oracleTensor, runOracle } from "../tests/reference/oracle.ts";
import { adamw, allFinite, clipByGlobalNorm, globalNorm, selectTree } from "./optimiser.ts";

const vector = (...numbers: number[]) => oracleTensor([numbers.length], numbers);
const numbers = (tensor: unknown) => [...(tensor as { data: Float64Array }).data];

function assertNear(actual: readonly number[], expected: readonly number[]): void {
  assertEquals(actual.length, expected.length);
  actual.forEach((x, i) => assert(Math.abs(x - expected[i]) <= 1e-12 * Math.max(1, Math.abs(expected[i])), `${x}`));
}

Deno.test("AdamW takes the steps of the paper's algorithm", () => {
  const [lr, beta1, beta2, eps, decay] = [0.1, 0.9, 0.99, 1e-8, 0.05];
  const optimiser = adamw({ betas: [beta1, beta2], eps, weightDecay: decay });
  const gradients = [[1, -2], [0.5, 3], [-4, 0]];
  let weights = [3, -1], m = [0, 0], v = [0, 0];
  let state: any = { params: { w: vector(...weights) }, optimiser: undefined };
  state.optimiser = runOracle(optimiser.init, state.params);
  gradients.forEach((g, i) => {
    const t = i + 1;
    m = m.map((x, k) => beta1 * x + (1 - beta1) * g[k]);
    v = v.map((x, k) => beta2 * x + (1 - beta2) * g[k] ** 2);
    weights = weights.map((w, k) => {
      const [mean, square] = [m[k] / (1 - beta1 ** t), v[k] / (1 - beta2 ** t)];
      return w - lr * decay * w - lr * mean / (Math.sqrt(square) + eps);
    });
    const next = runOracle(
      (s: any, g) => optimiser.update(s.params, { w: g }, s.optimiser, lr),
      state,
      vector(...g),
    );
    state = { params: next.params, optimiser: next.state };
    assertNear(numbers(state.params.w), weights);
  });
});

Deno.test("clipping shrinks to the norm, and leaves what is shorter", () => {
  const grads = { a: vector(3, 0), b: oracleTensor([1, 2], [0, 4]) };
  assertNear(numbers(runOracle(globalNorm, grads)), [5]);
  const clipped = runOracle((g) => clipByGlobalNorm(g, 1), grads);
  assertNear([...numbers(clipped.a), ...numbers(clipped.b)], [3, 0, 0, 4].map((x) => x / (5 + 1e-6)));
  const left = runOracle((g) => clipByGlobalNorm(g, 10), grads);
  assertNear([...numbers(left.a), ...numbers(left.b)], [3, 0, 0, 4]);
});

Deno.test("a number that is not finite keeps the previous tree", () => {
  const choose = (loss: any, next: any, previous: any) => selectTree(allFinite(loss, 1), next, previous);
  const [next, previous] = [{ w: vector(1, NaN) }, { w: vector(2, 3) }];
  for (const bad of [NaN, Infinity, -Infinity]) {
    assertEquals(numbers(runOracle(choose, oracleTensor([], [bad]), next, previous).w), [2, 3]);
  }
  assertEquals(numbers(runOracle(choose, oracleTensor([], [0]), next, previous).w), [1, NaN]);
});

Deno.test("AdamW refuses options out of range", () => {
  assertThrows(() => adamw({ betas: [0.9, 1] }), OptionError, "a beta of AdamW is 1");
  assertThrows(() => adamw({ eps: -1 }), OptionError, "eps");
  assertThrows(() => adamw({ weightDecay: NaN }), OptionError, "weightDecay");
});
