import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { OptionError } from "../core/errors.ts";
import { oracleTensor, runOracle } from "../testing/oracle.ts";
import { adamw, allFinite, checkAdam, clipByGlobalNorm, globalNorm, loraPlus, selectTree } from "./optimiser.ts";

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
  assertThrows(
    () => checkAdam("LoRA-FA", { betas: [NaN, 0.9], eps: 1e-6, weightDecay: 0 }),
    OptionError,
    "LoRA-FA is NaN",
  );
});

Deno.test("LoRA+ gives B and vectors the higher rate, embeddings their own, and biases no decay", () => {
  const matched = [{ path: "h.0.c_attn", kind: "linear" as const }, { path: "wte", kind: "embedding" as const }];
  const groups = loraPlus(matched, { ratio: 16, lr: 1e-4 });
  assertEquals(groups("h.0.c_attn.A", [4, 8]), undefined);
  assertEquals(groups("h.0.c_attn.B", [8, 4]), { rate: 16 });
  assertEquals(groups("h.0.c_attn.magnitude", [8]), { rate: 16 });
  assertEquals(groups("h.0.c_attn.bias", [8]), { rate: 16, weightDecay: 0 });
  assertEquals(groups("lm_head.weight", [9, 8]), undefined);
  assertEquals([groups("wte.A", [4, 9]), groups("wte.B", [8, 4])], [{ rate: 1e-6 / 1e-4 }, { rate: 1e-6 / 1e-4 }]);
  const refusal = (options: { ratio: number; lr?: number }) =>
    assertThrows(() => loraPlus(matched, options), OptionError).message;
  assertStringIncludes(refusal({ ratio: 0.5, lr: 1 }), "the ratio of LoRA+ is 0.5");
  assertStringIncludes(
    refusal({ ratio: 16 }),
    'LoRA+ gives "wte" the learning rate 0.000001, and needs the run\'s as lr',
  );
});

Deno.test("a group's leaf moves by its own rate and decay", () => {
  const optimiser = adamw({
    weightDecay: 0.5,
    groups: (path) => path === "b" ? { rate: 4, weightDecay: 0 } : undefined,
  });
  const step = (params: any, grads: any) => optimiser.update(params, grads, optimiser.init(params), 0.125).params;
  const { a, b } = runOracle(step, { a: vector(2), b: vector(2) }, { a: vector(3), b: vector(3) });
  // The first step of AdamW is the learning rate along the gradient over |gradient| + eps; decay takes lr·0.5·2 more.
  const along = 3 / (3 + 1e-8);
  assertNear(numbers(a), [2 - 0.125 * 0.5 * 2 - 0.125 * along]);
  assertNear(numbers(b), [2 - 4 * 0.125 * along]);
});
