import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DeviceError, LowrankError } from "../core/errors.ts";
import type { Value } from "../core/ir/graph.ts";
import { reduceSum } from "../core/ops/broadcast.ts";
import { add, convert, mul } from "../core/ops/elementwise.ts";
import { dynamicUpdateSlice } from "../core/ops/indexing.ts";
import { tensor, upload } from "../core/tensor.ts";
import { valueAndGrad } from "../core/transforms/grad.ts";
import { openCpu } from "./device/cpu.ts";
import { randomPacked } from "../tests/reference/packed_reference.ts";
import { evaluate, jit, read } from "./jit.ts";

Deno.test("a tree goes in, a tree of tensors comes out", async () => {
  using device = await openCpu({ threads: 1 });
  const x = tensor(device, [[1, 2], [3, 4]]);
  const f = jit(({ x }: any, s: Value) => ({ twice: mul(x, s), sum: [reduceSum(x)] }));
  const { twice, sum } = await read(f({ x }, 2));
  assertEquals([...twice.data], [2, 4, 6, 8]);
  assertEquals(sum, [10]);
});

Deno.test("a changed number compiles nothing; the eighth shape is told, with what changed", async () => {
  using device = await openCpu({ threads: 1 });
  const warnings: string[] = [];
  let traces = 0;
  const f = jit((x: Value, s: Value) => {
    traces++;
    return mul(x, s);
  }, { warn: (message) => warnings.push(message) });
  const x = tensor(device, [1, 2]);
  for (const s of [1, 2, 3]) assertEquals([...(await read(f(x, s))).data], [s, 2 * s]);
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
  assertEquals([...(await read(next)).data], [1.5, 2, 2.5]);
  assert(device.memory.current <= before + 256, "nothing was allocated for the result");
  assertThrows(() => state.buffer, LowrankError, "donated or disposed");
});

Deno.test("a cache is updated in place", async () => {
  using device = await openCpu({ threads: 1 });
  const write = jit((c: Value, x: Value, at: Value) => dynamicUpdateSlice(c, x, [at]), { donate: [0] });
  let cache = tensor(device, [0, 0, 0, 0]);
  for (let i = 0; i < 3; i++) cache = write(cache, tensor(device, [i + 1]), tensor(device, i, "i32"));
  assertEquals([...(await read(cache)).data], [1, 2, 3, 0]);
});

Deno.test("calls of one structure take what each is given; another structure, shape or kind of leaf is seen", async () => {
  using device = await openCpu({ threads: 1 });
  let traces = 0;
  const f = jit((p: any, s: Value) => {
    traces++;
    return mul(p.a ?? p.b, s);
  });
  const shared = { a: tensor(device, [1, 2]) } as any;
  const result = async (p: any, s: any) => [...(await read(f(p, s))).data];
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
  assertEquals([value, ...grad.data], [14, 4, 12]);
  assertEquals(await evaluate(reduceSum(w)), 5);
});

Deno.test("what can't run says why", async () => {
  using one = await openCpu({ threads: 1 });
  using two = await openCpu({ threads: 1 });
  const f = jit((a: Value, b: Value) => add(a, b));
  assertThrows(() => f(tensor(one, [1]), tensor(two, [1])), DeviceError, "bring them to one device first");
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
  const [copy] = await read(jit((x: Value) => [x, add(convert(x, "f32"), 1)])(packed));
  assertEquals([copy.dtype, copy.shape, copy.data], ["q8_0", [4, 16], words]);
});

Deno.test("an argument may be a value made of tensors, which is computed first", async () => {
  using device = await openCpu({ threads: 1 });
  const doubled = mul(tensor(device, [1, 2]), 2);
  const { sum, again } = await read(jit((x: Value) => ({ sum: add(x, 1), again: x }))(doubled));
  assertEquals([[...sum.data], [...again.data]], [[3, 5], [2, 4]]);
  assertEquals([...(await read({ doubled })).doubled.data], [2, 4]);
});
