/** Several adapters: one over the other, active together, combined, by row; PiSSA and back. */
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { OptionError, ShapeError } from "../../core/errors.ts";
import type { Leaf } from "../../core/model.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { matmul } from "../../core/ops/contract.ts";
import { add, convert, mul, tanh } from "../../core/ops/elementwise.ts";
import { slice } from "../../core/ops/structure.ts";
import { upload } from "../../core/tensor.ts";
import { grad } from "../../core/transforms/grad.ts";
import { type OracleTensor, runOracle, toHost } from "../../testing/oracle.ts";
import { randomised, randomTensor, toyModel } from "../../testing/toy_models.ts";
import { oracleRuntime } from "../../tests/runtimes.ts";
import { combine } from "./combine.ts";
import { pissaToLora, wholeModules } from "./convert.ts";
import { lora, tune } from "../lora.ts";
import { methods } from "../methods/mod.ts";
import type { LoraOptions } from "../options.ts";
import { pissa } from "../start.ts";
import { applyPerExample, stackAdapters } from "../per_example.ts";
import { together } from "./several.ts";

const x = randomTensor([3, 4], 99);
const linear = (rows: number, columns: number, seed: number) => ({
  weight: randomTensor([rows, columns], seed) as Leaf,
  bias: randomTensor([columns], seed + 50) as Leaf,
});
const model = {
  ...toyModel(
    { up: linear(4, 6, 1), down: linear(6, 4, 2) },
    (p, x) => add(matmul(tanh(add(matmul(x, p.up.weight), p.up.bias)), p.down.weight), p.down.bias),
  ),
  parts: { up: ["a", "b", "c"] },
};
type P = typeof model.params;
const adapter = (options: Partial<LoraOptions<P>>, seed: number) => {
  const tuned = lora(model, { r: 2, alpha: 3, targets: "all-linear", ...options });
  return { tuned, trainable: randomised(tuned.trainable, seed) };
};
const run = (f: (...args: any[]) => unknown, ...args: unknown[]): any => runOracle(f, ...args);
const message = (f: () => unknown) => assertThrows(f, OptionError).message;

function assertSame(a: OracleTensor, b: OracleTensor, rounding = 2 ** -43) {
  assertEquals(a.shape, b.shape);
  const scale = Math.max(...b.data.map(Math.abs));
  a.data.forEach((v, i) => assert(Math.abs(v - b.data[i]) <= rounding * scale, `${v} and ${b.data[i]} at ${i}`));
}

for (const first of [{}, { dora: true }, { bias: "all" }, { loraBias: true }] as const) {
  for (const second of [{}, { dora: true }, { r: 1 }] as const) {
    Deno.test(`a lora over a lora is the sum of both, merged in turn: ${JSON.stringify([first, second])}`, () => {
      const one = adapter(first, 3);
      const over = lora(one.tuned.with(one.trainable), { r: 3, alpha: 2, targets: ["up"], ...second });
      const t = randomised(over.trainable, 8);
      const adapted = run((t: any, p: any, x: any) => over.apply(t, p, x), t, model.params, x);
      const merged = run(
        (t1: any, t2: any, p: any) => one.tuned.merge(t1, over.merge(t2, p)),
        one.trainable,
        t,
        model.params,
      );
      assertSame(run(model.apply, merged, x), adapted);
      const alone = run((t: any, p: any, x: any) => one.tuned.apply(t, p, x), one.trainable, model.params, x);
      assert(alone.data.some((v: number, i: number) => Math.abs(v - adapted.data[i]) > 2 ** -20));
    });
  }
}

Deno.test("adapters active together each add their own change, by their weights", () => {
  const one = adapter({}, 3), two = adapter({ r: 1, targets: ["up"], rslora: true }, 4);
  const both = together({ one: one.tuned, two: two.tuned });
  const t = { one: one.trainable, two: two.trainable };
  const apply = (weights?: any) =>
    run((t: any, p: any, x: any) => both.apply(t, p, x, { weights }), t, model.params, x);
  const stacked = lora(one.tuned.with(one.trainable), { r: 1, alpha: 3, targets: ["up"], rslora: true });
  assertSame(apply(), run((t: any, p: any, x: any) => stacked.apply(t, p, x), two.trainable, model.params, x));
  assertSame(
    apply({ two: 0 }),
    run((t: any, p: any, x: any) => one.tuned.apply(t, p, x), one.trainable, model.params, x),
  );
  const alone = run((t: any, p: any, x: any) => both.apply({ one: t }, p, x), one.trainable, model.params, x);
  assertSame(alone, apply({ two: 0 }));
  for (const weights of [undefined, { one: 0.7 }, { one: -0.5, two: 2 }]) {
    const merged = run((t: any, p: any) => both.merge(t, p, { weights }), t, model.params);
    assertSame(run(model.apply, merged, x), apply(weights));
  }
});

Deno.test("together with DoRA, biases and a head in full: merged is the same function", () => {
  const one = adapter({ dora: true }, 3), two = adapter({ targets: ["up"], bias: "lora" }, 4);
  const three = adapter({ dora: true, targets: ["up[b]"], r: 1 }, 5);
  const both = together({ one: one.tuned, two: two.tuned, three: three.tuned });
  const t = { one: one.trainable, two: two.trainable, three: three.trainable };
  for (const weights of [undefined, { one: 0.3, two: 1.5 }]) {
    const adapted = run((t: any, p: any, x: any) => both.apply(t, p, x, { weights }), t, model.params, x);
    const merged = run((t: any, p: any) => both.merge(t, p, { weights }), t, model.params);
    assertSame(run(model.apply, merged, x), adapted);
  }
  const other = adapter({ bias: "all" }, 6);
  const clash = together({ two: two.tuned, other: other.tuned });
  assertStringIncludes(
    message(() => clash.merge({ two: two.trainable, other: other.trainable }, model.params)),
    "two adapters both train up.bias itself",
  );
});

Deno.test("what can't be together is refused by name", () => {
  const one = adapter({}, 3);
  const both = together({ formal: one.tuned });
  assertEquals(
    message(() => both.apply({ formel: one.trainable } as any, model.params, x as any)),
    'there is no adapter "formel": did you mean "formal"?',
  );
  const elsewhere = lora({ ...model, params: { ...model.params, up: linear(4, 6, 7) } }, {
    r: 1,
    alpha: 1,
    targets: ["up"],
  });
  assertStringIncludes(
    message(() => together({ one: one.tuned, two: elsewhere })),
    '"two" is an adapter of other weights than "one"',
  );
});

Deno.test("cat is the weighted sum of the changes; linear adds the factors, as PEFT defines it", () => {
  const one = adapter({ alpha: 4 }, 3), two = adapter({ rslora: true, targets: ["up"] }, 4);
  const list = [{ ...one, weight: 0.7 }, { ...two, weight: -0.4 }];
  const both = together({ one: one.tuned, two: two.tuned });
  const want = run(
    (t: any, p: any, x: any) => both.apply(t, p, x, { weights: { one: 0.7, two: -0.4 } }),
    {
      one: one.trainable,
      two: two.trainable,
    },
    model.params,
    x,
  );
  const cat = combine(list, "cat");
  assertEquals(cat.matched.map((m) => [m.path, m.r, m.alpha, m.scaling]), [["up", 4, 4, 1], ["down", 2, 2, 1]]);
  assertSame(run((t: any, p: any, x: any) => cat.apply(t, p, x), cat.trainable, model.params, x), want);

  const linear = combine(list, "linear");
  const { A, B } = run((t: any) => t, linear.trainable).up;
  const values = (t: any) => run((t: any) => t, t.up);
  const [a, b] = [values(one.trainable), values(two.trainable)];
  const [w, v] = [0.7 * 2, -0.4 * 3 / Math.SQRT2];
  A.data.forEach((x: number, i: number) =>
    assert(Math.abs(x - Math.sqrt(w) * a.A.data[i] + Math.sqrt(-v) * b.A.data[i]) < 1e-12)
  );
  B.data.forEach((x: number, i: number) =>
    assert(Math.abs(x - Math.sqrt(w) * a.B.data[i] - Math.sqrt(-v) * b.B.data[i]) < 1e-12)
  );
  assertEquals(linear.matched.map((m) => [m.path, m.r, m.scaling]), [["up", 2, 1], ["down", 2, 1]]);
});

Deno.test("what has no weighted sum is refused", () => {
  const one = adapter({}, 3);
  const with_ = (options: Partial<LoraOptions<P>>) => [{ ...one, weight: 1 }, { ...adapter(options, 4), weight: 1 }];
  assertStringIncludes(
    message(() => combine(with_({ r: 1 }), "linear")),
    '"up" has the ranks 2 and 1: "linear" adds A to A',
  );
  assertStringIncludes(message(() => combine(with_({ dora: true }), "cat")), '"up" trains other values than A and B');
  assertStringIncludes(message(() => combine(with_({ bias: "all" }), "cat")), "trains other values than A and B");
  assertStringIncludes(message(() => combine(with_({}), "sum" as any)), 'combine by "sum" is not known');
});

Deno.test("parts of a projection are one module between zeros, whatever their ranks, and the same function", () => {
  for (const rslora of [false, true]) {
    const { tuned, trainable } = adapter({ targets: ["up[a,c]", "down"], rslora, rankPattern: { down: 3 } }, 3);
    const whole = wholeModules(tuned, trainable);
    assertEquals(whole.matched.map((m) => [m.path, m.r, m.part]), [["up", 4, undefined], ["down", 3, undefined]]);
    const { A, B } = run((t: any) => t, whole.trainable).up;
    assertEquals([A.shape, B.shape], [[4, 4], [6, 4]]);
    // Columns 0 and 1 of B act on outputs 0 and 1, columns 2 and 3 on outputs 4 and 5.
    B.data.forEach((v: number, i: number) => {
      const [out, column] = [Math.floor(i / 4), i % 4];
      assertEquals(v === 0, !(out < 2 && column < 2) && !(out >= 4 && column >= 2));
    });
    const options: LoraOptions<P> = { r: 4, alpha: whole.matched[0].alpha, targets: ["up", "down"], rslora };
    const [up, down] = whole.matched;
    const again = lora(model, { ...options, rankPattern: { down: down.r }, alphaPattern: { down: down.alpha } });
    assertEquals(again.matched[0].scaling, up.scaling);
    const apply = (tuned: any, t: any) => run((t: any, p: any, x: any) => tuned.apply(t, p, x), t, model.params, x);
    assertSame(apply(again, run((t: any) => t, whole.trainable)), apply(tuned, trainable));
  }
});

const batch = randomTensor([5, 4], 77);
const rows = { shape: [5], dtype: "i32" as const, data: Float64Array.of(1, 0, 2, 1, 1) };
for (const options of [{}, { dora: true }, { bias: "lora" }, { targets: ["up[a,c]"] }] as Partial<LoraOptions<P>>[]) {
  Deno.test(`each row of a batch has its adapter, and each adapter the gradient of its rows: ${JSON.stringify(options)}`, () => {
    const { tuned } = adapter(options, 3);
    const list = [3, 4, 5].map((seed) => randomised(tuned.trainable, seed));
    const stacked = run((...list: any[]) => stackAdapters(list), ...list);
    const byRow = (t: any, p: any, x: any, rows: any) =>
      applyPerExample(tuned, { adapters: t, frozen: p, inputs: x, adapterOf: rows });
    const outputs = run(byRow, stacked, model.params, batch, rows);
    const one = (t: any, p: any, x: any, i: number) => tuned.apply(t, p, slice(x, 0, i, i + 1));
    [...rows.data].forEach((which, i) => {
      const alone = run((t: any, p: any, x: any) => one(t, p, x, i), list[which], model.params, batch);
      assertSame({ ...outputs, shape: [1, 4], data: outputs.data.slice(4 * i, 4 * i + 4) }, alone);
    });
    const loss = (y: any, x: any) => reduceSum(mul(y, mul(x, x)));
    const grads = run(
      grad((t: any, p: any, x: any, rows: any) => loss(byRow(t, p, x, rows), x)),
      stacked,
      model.params,
      batch,
      rows,
    );
    for (const which of [0, 1, 2]) {
      const own = run(
        grad((t: any, p: any, x: any) =>
          [...rows.data].flatMap((r, i) => r === which ? [loss(one(t, p, x, i), slice(x, 0, i, i + 1))] : [])
            .reduce((a, b) => add(a, b))
        ),
        list[which],
        model.params,
        batch,
      );
      for (const [path, entry] of Object.entries<any>(own)) {
        for (const [part, expected] of Object.entries<any>(entry)) {
          const all = grads[path][part];
          const size = all.data.length / 3;
          assertSame({ ...expected, data: all.data.slice(which * size, (which + 1) * size) }, expected);
        }
      }
    }
  });
}

Deno.test("rows that are not as many as adapterOf says are refused", () => {
  const { tuned, trainable } = adapter({}, 3);
  const stacked = run((t: any) => stackAdapters([t]), trainable);
  const two = { ...rows, shape: [2], data: rows.data.slice(0, 2) };
  const byRow = () =>
    run(
      (t: any, p: any, x: any, r: any) => applyPerExample(tuned, { adapters: t, frozen: p, inputs: x, adapterOf: r }),
      stacked,
      model.params,
      batch,
      two,
    );
  assertEquals(assertThrows(byRow, ShapeError).message, "the input is f32[5,4], but adapterOf names 2 rows");
});

const rounded = (dtype: "f32" | "bf16" | "f16") => {
  const store = (leaf: Leaf): Leaf => upload(oracleRuntime.home, toHost(run((x: any) => convert(x, dtype), leaf)));
  return {
    ...model,
    params: { up: { ...model.params.up, weight: store(model.params.up.weight) }, down: model.params.down },
  };
};
for (const dtype of ["f32", "bf16", "f16"] as const) {
  for (const options of [{}, { niter: 8 }, { rslora: true }, { targets: ["up[a,c]"] as const, r: 1 }, { dora: true }]) {
    Deno.test(`PiSSA starts at the model and converts to a plain adapter: ${dtype}, ${JSON.stringify(options)}`, async () => {
      const base = rounded(dtype);
      const tuned = await pissa(base, { r: 2, alpha: 3, targets: ["up"], ...options });
      const apply = (tuned: any, t: any, frozen: any) =>
        run((t: any, p: any, x: any) => tuned.apply(t, p, x), t, frozen, x);
      const roundoff = { f32: 2 ** -24, bf16: 2 ** -8, f16: 2 ** -11 }[dtype];
      // Three inputs of 4 below 1 meet residuals rounded once; tanh shortens, and 6 of them are added up.
      const want = run(base.apply, base.params, x);
      assertSame(apply(tuned, tuned.trainable, tuned.frozen), want, 64 * roundoff);
      assert(tuned.frozen.up.weight !== base.params.up.weight && tuned.frozen.down.weight === base.params.down.weight);
      const t = randomised(tuned.trainable, 5);
      if ("dora" in options) return void message(() => pissaToLora(tuned, t));
      const plain = pissaToLora(tuned, t);
      assertEquals(plain.matched.map((m) => m.r), tuned.matched.map((m) => 2 * m.r));
      assertEquals(plain.matched[0].scaling, tuned.matched[0].scaling);
      assertSame(apply(plain, plain.trainable, plain.frozen), apply(tuned, t, tuned.frozen), 64 * roundoff);
      const merged = run((t: any, p: any) => tuned.merge(t, p), t, tuned.frozen);
      assertSame(run(base.apply, merged, x), apply(tuned, t, tuned.frozen), 64 * roundoff);
    });
  }
}

Deno.test("PiSSA takes the greatest singular values out of the weight", async () => {
  const tuned = await pissa(model, { r: 2, alpha: 3, targets: ["up"] });
  const close = await pissa(model, { r: 2, alpha: 3, targets: ["up"], niter: 30 });
  const norm = (frozen: any) => run((p: any) => reduceSum(mul(p.up.weight, p.up.weight)), frozen).data[0];
  assert(norm(tuned.frozen) < norm(model.params));
  // By Eckart and Young no approximation of rank 2 leaves less; many iterations come to the same.
  assert(Math.abs(norm(close.frozen) - norm(tuned.frozen)) <= 1e-6 * norm(tuned.frozen));
});

Deno.test("PiSSA refuses what it can't do", async () => {
  const rejected = async (options: object) =>
    (await assertRejects(
      () => pissa(model, { r: 1, alpha: 1, targets: ["up"], ...options }),
      OptionError,
    )).message;
  assertStringIncludes(await rejected({ niter: -1 }), "niter is -1");
  assertStringIncludes(await rejected({ alpha: -1 }), "pissa needs a scaling above 0");
});

Deno.test("an adapter that is already there may have more ranks than its matrix has sides", () => {
  const wide = tune(model, methods.lora, { r: 9, alpha: 3, targets: ["up"] }, { anyRank: true });
  assertEquals(wide.trainable.up.A!.shape, [9, 4]);
  const t = randomised(wide.trainable, 3);
  const merged = run((t: any, p: any) => wide.merge(t, p), t, model.params);
  assertSame(run(model.apply, merged, x), run((t: any, p: any, x: any) => wide.apply(t, p, x), t, model.params, x));
});

Deno.test("a lora over a PiSSA stands on what is left of the weights", async () => {
  const first = await pissa(model, { r: 2, alpha: 3, targets: ["up"] });
  const t1 = randomised(first.trainable, 3);
  const over = lora(first.with(t1), { r: 1, alpha: 2, targets: ["up", "down"] });
  const t2 = randomised(over.trainable, 8);
  const adapted = run((t: any, p: any, x: any) => over.apply(t, p, x), t2, over.frozen, x);
  const merged = run((t1: any, t2: any, p: any) => first.merge(t1, over.merge(t2, p)), t1, t2, over.frozen);
  assertSame(run(model.apply, merged, x), adapted);
  assert(over.frozen.up.weight === first.frozen.up.weight);
});
