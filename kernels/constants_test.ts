import { assertEquals, assertThrows } from "@std/assert";
import { DeviceError } from "../core/errors.ts";
import { full } from "../core/ops/broadcast.ts";
import { add, mul } from "../core/ops/elementwise.ts";
import { iota } from "../core/ops/structure.ts";
import { grad } from "../core/transforms/grad.ts";
import { type HostTensor, tensor } from "../core/tensor.ts";
import { jit } from "./runtime/jit.ts";
import { evaluate, read } from "./runtime/read.ts";
import { openCpu } from "./device/cpu/cpu.ts";
import type { Value } from "../core/ir/graph.ts";

Deno.test("what is made of no tensor is computed on the processor, or on the given device", async () => {
  const ones: HostTensor = { shape: [2], dtype: "f32", data: new Float32Array([1, 1]) };
  assertEquals(await evaluate(full([2], 1)), ones);
  assertEquals(await read({ a: full([2], 1) }), { a: ones });
  assertEquals(await evaluate({ n: 3, none: null, list: [add(iota([2]), 1)] }), {
    n: 3,
    none: null,
    list: [{ shape: [2], dtype: "i32", data: new Int32Array([1, 2]) }],
  });
  assertEquals(await evaluate({}), {});
  assertEquals(await evaluate(grad((x: Value) => mul(x, x))(3)), 6);
  using device = await openCpu();
  assertEquals(await evaluate(full([2], 1), { device }), ones);
  const make = jit(() => full([2], 1), { device });
  using made = make();
  assertEquals([made.home === device, await read(made)], [true, ones]);
  assertThrows(() => jit(() => full([2], 1))(), DeviceError, "or jit's option device");
});

Deno.test("a given device does not move what has one", async () => {
  using one = await openCpu();
  using other = await openCpu();
  using x = tensor(one, [1, 2]);
  assertEquals((await evaluate(add(x, 1), { device: other }) as HostTensor).data, new Float32Array([2, 3]));
});
