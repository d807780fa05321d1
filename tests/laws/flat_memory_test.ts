/** Memory stays flat however often a device is called, with however many shapes, and whatever is only forgotten. */
import { assert, assertEquals } from "@std/assert";
import type { Value } from "../../core/ir/graph.ts";
import { broadcastTo, reduceSum } from "../../core/ops/broadcast.ts";
import { matmul } from "../../core/ops/contract.ts";
import { add, mul } from "../../core/ops/elementwise.ts";
import { type Tensor, upload } from "../../core/tensor.ts";
import type { Device } from "../../kernels/device/device.ts";
import { CpuDevice } from "../../kernels/device/cpu/cpu.ts";
import { CpuMemory } from "../../kernels/device/cpu/memory.ts";
import { reservedBytes } from "../../kernels/device/cpu/walk.ts";
import { CpuThreads } from "../../kernels/device/cpu/threads.ts";
import { openWebGpu } from "../../kernels/device/webgpu/webgpu.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { evaluate, read } from "../../kernels/runtime/read.ts";
import { supportsRelaxedSimd } from "../../kernels/wasm/probe.ts";
import { devices, withoutWebGpu } from "../devices.ts";

const ones = (home: Device, shape: number[]) =>
  upload(home, { shape, dtype: "f32", data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(1) });

/** Calls of `shapes` shapes in turns, by one jitted function and by expressions; what it gives is checked. */
function caller(home: Device, shapes: number) {
  const f = jit((x: Value, y: Value) => reduceSum(matmul(matmul(x, y), x)), { warn: () => {} });
  return async (i: number) => {
    const n = 1 + i % shapes;
    using x = ones(home, [n, 2]);
    using y = ones(home, [2, n]);
    if (i % 3 > 0) assertEquals(await read(f(x, y), { release: true }), 4 * n * n);
    else assertEquals(await evaluate(reduceSum(mul(add(x, n), broadcastTo(x, x.shape)))), 2 * n * (n + 1));
  };
}

Deno.test("10,000 calls of 500 shapes leave the processor's memory as it was", async () => {
  const memory = new CpuMemory(true, reservedBytes);
  using home = new CpuDevice(memory, await CpuThreads.start(memory.memory, 2), supportsRelaxedSimd(), "");
  const call = caller(home, 500);
  const counts = () => [home.programs.size, home.programs.bytes, home.memory.current, memory.current, memory.peak];
  for (let i = 0; i < 1500; i++) await call(i);
  const before = counts();
  for (let i = 1500; i < 10_000; i++) await call(i);
  assertEquals(counts(), before);
});

Deno.test("more programs than there is room for go in turn, with their kernels, and memory is bounded", async () => {
  const memory = new CpuMemory(true, reservedBytes);
  using home = new CpuDevice(memory, await CpuThreads.start(memory.memory, 2), supportsRelaxedSimd(), "");
  home.programs.bound = 2 ** 22;
  const call = caller(home, 100);
  for (let i = 0; i < 300; i++) await call(i);
  const { peak } = memory;
  for (let i = 300; i < 1000; i++) {
    await call(i);
    assert(home.programs.bytes <= home.programs.bound);
  }
  assert(home.programs.size < 100);
  assertEquals(memory.peak, peak);
});

Deno.test(
  { name: "on WebGPU programs go in turn too, and one arena serves all", ignore: withoutWebGpu !== null },
  async () => {
    using home = await openWebGpu();
    home.programs.bound = 2 ** 22;
    const call = caller(home, 20);
    for (let i = 0; i < 40; i++) await call(i);
    const { peak } = home.memory;
    for (let i = 40; i < 100; i++) {
      await call(i);
      assert(home.programs.bytes <= home.programs.bound);
    }
    assert(home.programs.size < 20);
    assertEquals(home.memory.peak, peak);
  },
);

for (const device of devices) {
  Deno.test(`tensors that a loop forgets are freed where it awaits a read alone, on ${device.name}`, async () => {
    using home = await device.open();
    const [next, sum] = [jit((x: Value) => add(x, 1)), jit((x: Value) => reduceSum(x))];
    const size = 2 ** 20;
    let x: Tensor = upload(home, { shape: [size], dtype: "f32", data: new Float32Array(size) });
    // Each is forgotten only after the engine has moved it to its old objects, which it looks at least often.
    const last: (Tensor | number[])[] = [];
    let most = 0;
    for (let i = 1; i <= 400; i++) {
      x = next(x);
      last.push(x, new Array(100_000).fill(i));
      if (last.length > 20) last.splice(0, 2);
      if (i % 10 === 0) assertEquals(await read(sum(x)), i * size);
      most = Math.max(most, home.memory.current);
    }
    // Of 1.7 GB.
    assert(most < 2 ** 28, `${most} bytes were held`);
  });
}
