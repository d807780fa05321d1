import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DeviceError, LowrankError, OptionError, ShapeError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { add, convert, max, mul, neg } from "../../core/ops/elementwise.ts";
import { dynamicUpdateSlice } from "../../core/ops/indexing.ts";
import { type HostTensor, tensor, upload } from "../../core/tensor.ts";
import { grad, valueAndGrad } from "../../core/transforms/grad.ts";
import { vmap } from "../../core/transforms/vmap.ts";
import { openCpu } from "../device/cpu/cpu.ts";
import { randomPacked } from "../../testing/packed_reference.ts";
import { jit } from "./jit.ts";
import { evaluate, read } from "./read.ts";

Deno.test("a tree goes in, a tree of tensors comes out", async () => {
  using device = await openCpu({ threads: 1 });
  const x = tensor(device, [[1, 2], [3, 4]]);
  const f = jit(({ x }: any, s: Value) => ({ twice: mul(x, s), sum: [reduceSum(x)] }));
  const { twice, sum } = await read(f({ x }, 2));
  assertEquals([...(twice as HostTensor).data], [2, 4, 6, 8]);
  assertEquals(sum, [10]);
});

Deno.test("a changed number compiles nothing; the eighth shape is reported, with what changed", async () => {
  using device = await openCpu({ threads: 1 });
  const warnings: string[] = [];
  let traces = 0;
  const f = jit((x: Value, s: Value) => {
    traces++;
    return mul(x, s);
  }, { warn: (message) => warnings.push(message) });
  const x = tensor(device, [1, 2]);
  for (const s of [1, 2, 3]) assertEquals([...(await read(f(x, s)) as HostTensor).data], [s, 2 * s]);
  assertEquals(traces, 1);
  for (let n = 3; n <= 9; n++) f(tensor(device, new Array(n).fill(1)), 1);
  assertEquals(traces, 8);
  assertEquals(warnings.length, 1);
  assert(warnings[0].includes("f32[9]") && warnings[0].includes("f32[2]"), warnings[0]);
});

Deno.test("a donated tensor ends, its memory is reused", async () => {
  using device = await openCpu({ threads: 1 });
  const state = tensor(device, [1, 2, 3]);
  const before = device.memory.current;
  const next = jit((s: Value, g: Value) => add(mul(s, 0.5), g), { donate: [0] })(state, tensor(device, [1, 1, 1]));
  assertEquals([...(await read(next) as HostTensor).data], [1.5, 2, 2.5]);
  assert(device.memory.current <= before + 256, "nothing was allocated for the result");
  assertThrows(() => state.buffer, LowrankError, "donated or disposed");
});

Deno.test("a cache is updated in place", async () => {
  using device = await openCpu({ threads: 1 });
  const write = jit((c: Value, x: Value, at: Value) => dynamicUpdateSlice(c, x, [at]), { donate: [0] });
  let cache = tensor(device, [0, 0, 0, 0]);
  for (let i = 0; i < 3; i++) cache = write(cache, tensor(device, [i + 1]), tensor(device, i, "i32"));
  assertEquals([...(await read(cache) as HostTensor).data], [1, 2, 3, 0]);
});

Deno.test("calls of one structure take what each is given; another structure, shape or kind of leaf is seen", async () => {
  using device = await openCpu({ threads: 1 });
  let traces = 0;
  const f = jit((p: any, s: Value) => {
    traces++;
    return mul(p.a ?? p.b, s);
  });
  const shared = { a: tensor(device, [1, 2]) } as any;
  const result = async (p: any, s: any) => [...(await read(f(p, s)) as HostTensor).data];
  assertEquals(await result(shared, 2), [2, 4]);
  const next = { a: f(shared, 1) };
  assertEquals(await result(next, 3), [3, 6]);
  assertEquals(traces, 1);
  shared.a = tensor(device, [5]);
  assertEquals(await result(shared, tensor(device, 2)), [10]);
  assertEquals(await result(shared, 2), [10]);
  delete shared.a;
  shared.b = tensor(device, [7]);
  assertEquals(await result(shared, 2), [14]);
  assertEquals(await result({ a: add(next.a, 1) }, 2), [4, 6]);
  assertEquals(traces, 3);
});

Deno.test("a captured tensor is a hidden argument", async () => {
  using device = await openCpu({ threads: 1 });
  const w = tensor(device, [2, 3]);
  const f = jit((x: Value) => valueAndGrad((x: Value) => reduceSum(mul(mul(x, x), w)))(x));
  const [value, grad] = await read(f(tensor(device, [1, 2])));
  assertEquals([value, ...(grad as HostTensor).data], [14, 4, 12]);
  assertEquals(await evaluate(reduceSum(w)), 5);
});

Deno.test("what can't run says why", async () => {
  using one = await openCpu({ threads: 1 });
  using two = await openCpu({ threads: 1 });
  const f = jit((a: Value, b: Value) => add(a, b));
  assertThrows(() => f(tensor(one, [1]), tensor(two, [1])), DeviceError, "move them to one device first");
  assertThrows(() => f(1, 2), DeviceError, "without a tensor");
  let kept: Value | undefined;
  jit((x: Value) => kept = add(x, 1))(tensor(one, [1]));
  await assertRejects(() => evaluate(add(kept!, tensor(one, [1]))), LowrankError, "another trace");
  // deno-lint-ignore require-await -- the mistake that is tested
  assertThrows(() => jit(async (x: Value) => x)(tensor(one, [1])), LowrankError, "async");
});

Deno.test("a packed argument that is returned keeps its words", async () => {
  using device = await openCpu({ threads: 1 });
  const words = randomPacked("q8_0", 64, 3);
  const packed = upload(device, { shape: [4, 16], dtype: "q8_0", data: words });
  const [copy] = await read(jit((x: Value) => [x, add(convert(x, "f32"), 1)])(packed)) as HostTensor[];
  assertEquals([copy.dtype, copy.shape, copy.data], ["q8_0", [4, 16], words]);
});

Deno.test("an argument may be a value made of tensors, which is computed first", async () => {
  using device = await openCpu({ threads: 1 });
  const doubled = mul(tensor(device, [1, 2]), 2);
  const { sum, again } = await read(jit((x: Value) => ({ sum: add(x, 1), again: x }))(doubled));
  assertEquals([[...(sum as HostTensor).data], [...(again as HostTensor).data]], [[3, 5], [2, 4]]);
  assertEquals([...((await read({ doubled })).doubled as HostTensor).data], [2, 4]);
});

Deno.test("static arguments and anything but leaves are compared by type and value, objects by identity", async () => {
  using device = await openCpu({ threads: 1 });
  const x = tensor(device, [2, 3]);
  const same = (n: number) => (x: Value) => mul(x, n); // of one source text
  const f = jit(({ how }: any, x: Value) => typeof how === "function" ? how(x) : how === true ? add(x, 1) : neg(x));
  const values = async (out: any) => [...(await read(out)).data];
  for (const [how, want] of [[same(2), [4, 6]], [same(5), [10, 15]], [true, [3, 4]], ["true", [-2, -3]]] as const) {
    for (let i = 0; i < 2; i++) assertEquals(await values(f({ how }, x)), [...want]);
  }
  let traces = 0;
  const g = jit((x: Value, n: any, tag?: unknown) => {
    traces++;
    let y = x;
    for (let i = 0; i < Number(n?.times ?? n); i++) y = add(y, x);
    return typeof tag === "symbol" ? neg(y) : y;
  }, { static: [1, 2], warn: () => {} });
  const [once, twice] = [{ times: 1 }, { times: 2 }];
  const cases = [[1, [4, 6]], ["1", [4, 6]], [2, [6, 9]], [2n, [6, 9]], [once, [4, 6]], [twice, [6, 9]]] as const;
  for (const [n, want] of cases) for (let i = 0; i < 2; i++) assertEquals(await values(g(x, n)), [...want]);
  assertEquals(traces, cases.length);
  const [a, b] = [Symbol("s"), Symbol("s")];
  for (const tag of [a, b, Symbol.for("s"), undefined]) {
    assertEquals(await values(g(x, 0, tag)), tag === undefined ? [2, 3] : [-2, -3]);
  }
  assertEquals(traces, cases.length + 4);
  for (const n of [NaN, NaN, 0, -0]) assertEquals(await values(g(x, n)), [2, 3]);
  assertEquals(traces, cases.length + 7);
  assertThrows(() => g(x, tensor(device, 1)), OptionError, "argument 1 is static, but it is Tensor(f32[]");
  assertThrows(
    () => grad((x: Value, n: Value) => reduceSum(g(x, n)))(x, 2),
    OptionError,
    "static, but it is Value(f32[]",
  );
});

Deno.test("functions that trace to one graph share a program, and constants that differ have their own", async () => {
  using device = await openCpu({ threads: 1 });
  const x = tensor(device, [1, 2]);
  const before = device.programs.size;
  for (let i = 0; i < 3; i++) {
    assertEquals([...(await read(jit((x: Value) => mul(x, 3))(x)) as HostTensor).data], [3, 6]);
  }
  assertEquals(device.programs.size, before + 1);
  for (let i = 0; i < 3; i++) assertEquals([...(await evaluate(mul(add(x, x), 0.5)) as HostTensor).data], [1, 2]);
  assertEquals(device.programs.size, before + 2);
  const filled = async (c: number) => [...(await read(jit((x: Value) => max(x, c))(x)) as HostTensor).data];
  assertEquals([await filled(NaN), await filled(Infinity), await filled(-Infinity)], [
    [NaN, NaN],
    [Infinity, Infinity],
    [1, 2],
  ]);
});

Deno.test("a jitted function in a trace is the plain function: under grad, vmap and jit, numbers and static arguments too", async () => {
  using device = await openCpu({ threads: 1 });
  const x = tensor(device, [1, 2]);
  const cube = jit((x: Value, n: number) => {
    let y = x;
    for (let i = 1; i < n; i++) y = mul(y, x);
    return { y, sum: reduceSum(y) };
  }, { static: [1], donate: [0] });
  assertEquals([...(await evaluate(grad((x: Value) => cube(x, 3).sum)(x)) as HostTensor).data], [3, 12]);
  const whole = jit((x: Value) => reduceSum(mul(x, mul(x, x))));
  assertEquals([...(await evaluate(grad(whole)(x)) as HostTensor).data], [3, 12]);
  assertEquals([...(await evaluate(grad((x: Value) => reduceSum(grad(whole)(x)))(x)) as HostTensor).data], [6, 12]);
  assertEquals([...(await evaluate(vmap(whole)(tensor(device, [[1, 2], [3, 4]]))) as HostTensor).data], [9, 91]);
  const outer = jit((x: Value) => ({ again: whole(x), scaled: jit((x: Value, s: Value) => mul(x, s))(x, 10) }));
  const { again, scaled } = await read(outer(x));
  assertEquals([again, ...(scaled as HostTensor).data], [9, 10, 20]);
  assertEquals(x.alive, true);
});

Deno.test("a program that had to go is compiled again, by the function that wants it", async () => {
  using device = await openCpu({ threads: 2, blas: false });
  const x = tensor(device, [1, 2]);
  let traces = 0;
  const f = jit((x: Value) => {
    traces++;
    return add(x, 1);
  });
  const g = jit((x: Value) => mul(x, 2));
  const values = async (out: any) => [...(await read(out, { release: true })).data];
  for (let i = 1; i <= 3; i++) {
    assertEquals([await values(f(x)), await values(f(x)), await values(g(x))], [[2, 3], [2, 3], [2, 4]]);
    assertEquals(traces, i);
    device.programs.shrink();
    assertEquals(device.programs.size, 1);
  }
});

Deno.test("what is uploaded fills its shape, element by element", async () => {
  using device = await openCpu({ threads: 1 });
  const wrong = (shape: number[], dtype: any, data: any, sentence: string) =>
    assertThrows(() => upload(device, { shape, dtype, data }), ShapeError, sentence);
  tensor(device, new Array(1000).fill(7777)).dispose();
  const held = device.memory.current;
  wrong([1000], "f32", new Float32Array(2), "f32[1000] is held by a Float32Array of 1000, but got a Float32Array of 2");
  wrong([2], "f32", new Float32Array(3), "of 2, but got a Float32Array of 3");
  wrong([-4], "f32", new Float32Array(4), "-4 is no size");
  wrong([1.5], "f32", new Float32Array(1), "1.5 is no size");
  wrong([NaN], "f32", new Float32Array(0), "NaN is no size");
  wrong([2], "i32", new Float32Array(2), "i32[2] is held by a Int32Array of 2");
  wrong([2], "f16", new Float32Array(2), "f16[2] is held by a Uint16Array of 2");
  wrong([2], "f64", new Float64Array(2), "there is no dtype f64");
  wrong([64], "q8_0", new Uint32Array(16), "q8_0[64] is held by a Uint32Array of");
  wrong([2], "f32", undefined, "but got");
  assertEquals(device.memory.current, held);
});
