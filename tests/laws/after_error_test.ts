/** After every kind of error the device computes as before, and holds no more than before. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DeviceError, LowrankError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import { broadcastTo, reduceSum } from "../../core/ops/broadcast.ts";
import { matmul } from "../../core/ops/contract.ts";
import { add, mul } from "../../core/ops/elementwise.ts";
import { type HostTensor, tensor, upload } from "../../core/tensor.ts";
import type { Device } from "../../kernels/device/device.ts";
import type { WebGpuDevice } from "../../kernels/device/webgpu/webgpu.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { read } from "../../kernels/runtime/read.ts";
import { devices } from "../devices.ts";
import { faulty } from "../../testing/faulty_device.ts";

/** Bytes that one allocation gets on no device here, and that two together do not get on the CPU. */
const tooMuch = 2 ** 44;
const mostOf = (home: Device) => (home.capacity ?? 0) * 0.6;

/** What goes wrong. Each frees what is its own. */
const errors: Record<string, (home: Device) => unknown> = {
  "an upload of the wrong length": (home) => upload(home, { shape: [8], dtype: "f32", data: new Float32Array(2) }),
  "an allocation that is refused": (home) => home.allocate(tooMuch),
  "outputs of which the last does not fit": (home) => {
    const sizes = [4, Math.floor(mostOf(home) / 4), tooMuch / 4].filter((size) => size > 0);
    using x = tensor(home, [1]);
    jit((x: Value) => sizes.map((size) => broadcastTo(x, [size])))(x);
  },
  "an arena that does not fit": (home) => {
    const n = 2 ** 18;
    using x = upload(home, { shape: [n, 1], dtype: "f32", data: new Float32Array(n) });
    using y = upload(home, { shape: [1, n], dtype: "f32", data: new Float32Array(n) });
    jit((x: Value, y: Value) => matmul(matmul(x, y), x))(x, y);
  },
  "a tensor that is gone": (home) => {
    const x = tensor(home, [1, 2, 3]);
    x.dispose();
    jit((x: Value, n: Value) => add(x, n))(x, 2);
  },
  "a shape that does not fit": (home) => {
    using x = tensor(home, [1, 2, 3]);
    using y = tensor(home, [1, 2]);
    jit((x: Value) => add(x, y))(x);
  },
  "a function that throws": () =>
    jit(() => {
      throw new LowrankError("of the function's own");
    })(),
};

/** Functions that were compiled before the error, and what they give. */
function witnesses(home: Device) {
  const f = jit((x: Value, w: Value) => reduceSum(matmul(matmul(x, w), w)));
  const g = jit((x: Value, n: Value) => mul(add(x, 1), n));
  return async () => {
    using x = tensor(home, [[1, 2], [3, 4]]);
    using w = tensor(home, [[1, 1], [0, 2]]);
    const { sum, scaled } = await read({ sum: f(x, w), scaled: g(x, 3) }, { release: true });
    return [sum, ...(scaled as HostTensor).data];
  };
}
const want = [40, 6, 9, 12, 15];

for (const device of devices) {
  for (const [kind, fail] of Object.entries(errors)) {
    Deno.test(`after ${kind}, ${device.name} is as before`, async () => {
      using home = await device.open();
      const before = witnesses(home);
      assertEquals(await before(), want);
      const arena = home.memory.current;
      for (let i = 0; i < 3; i++) assertThrows(() => fail(home), LowrankError);
      assertEquals(await before(), want);
      assertEquals(await witnesses(home)(), want);
      assertEquals(home.memory.current, arena);
      home.programs.shrink();
      assertEquals(await before(), want);
      assert(home.memory.current <= arena);
    });
  }

  Deno.test(`a call that fails at any allocation, or in its middle, leaves nothing on ${device.name}`, async () => {
    using real = await device.open();
    const { home, faults } = faulty(real);
    const step = jit((s: any, x: Value, rate: Value) => ({
      state: { m: add(mul(s.m, 2), rate), v: add(s.v, x) },
      out: [matmul(x, x), reduceSum(matmul(x, x))],
    }), { donate: [0] });
    const fresh = () => ({ m: tensor(home, [1, 2]), v: tensor(home, [[1, 0], [0, 1]]) });
    const values = async (tree: any) => {
      const { state, out } = await read(tree, { release: true });
      return [...state.m.data, ...state.v.data, ...out[0].data, out[1]];
    };
    const want = [2.5, 4.5, 2, 2, 3, 5, 7, 10, 15, 22, 54];
    const x = tensor(home, [[1, 2], [3, 4]]);
    assertEquals(await values(step(fresh(), x, 0.5)), want);
    const state = fresh();
    const held = real.memory.current;
    let refused = 0, result;
    while (result === undefined) {
      faults.allocation = refused;
      try {
        result = step(state, x, 0.5);
      } catch (error) {
        assertEquals([error instanceof DeviceError, real.memory.current], [true, held]);
        refused++;
      }
    }
    faults.allocation = null;
    assertEquals(await values(result), want);
    // The number, and what is no state.
    assertEquals(refused, 3);
    const lost = fresh();
    faults.run = true;
    assertThrows(() => step(lost, x, 0.5), DeviceError, "in its middle");
    assertEquals([lost.m.alive, lost.v.alive], [false, false]);
    assertEquals(await values(step(fresh(), x, 0.5)), want);
    const again = fresh();
    assertEquals(real.memory.current, held);
    for (const t of [x, again.m, again.v]) t.dispose();
  });

  if (!device.name.startsWith("webgpu")) continue;

  Deno.test(`a kernel that does not compile is reported at every use, and the rest computes on ${device.name}`, async () => {
    using home = await device.open() as WebGpuDevice;
    const before = witnesses(home);
    assertEquals(await before(), want);
    const held = home.memory.current;
    const compile = home.gpu.createShaderModule;
    home.gpu.createShaderModule = (given) =>
      compile.call(home.gpu, { ...given, code: "fn main() { let x: u32 = 1.5; }" });
    using x = tensor(home, [1, 2, 3]);
    const f = jit((x: Value) => mul(x, 5));
    const use = async () => await read(f(x), { release: true });
    for (let i = 0; i < 3; i++) await assertRejects(use, DeviceError, "did not compile");
    assertEquals(await before(), want);
    home.gpu.createShaderModule = compile;
    // What stood in the way may be over: the next use tries again.
    await use().catch(() => {});
    assertEquals([...(await use() as HostTensor).data], [5, 10, 15]);
    x.dispose();
    assertEquals(await before(), want);
    assertEquals(home.memory.current, held);
  });

  Deno.test(`a lost ${device.name} is reported by whatever uses it`, async () => {
    using home = await device.open() as WebGpuDevice;
    const before = witnesses(home);
    assertEquals(await before(), want);
    const x = tensor(home, [1]);
    const waiting = read(x).catch((error) => error);
    home.gpu.destroy();
    await waiting;
    for (let i = 0; i < 3; i++) await assertRejects(before, DeviceError, "was lost");
    await assertRejects(() => read(x), DeviceError, "was lost");
    x.dispose();
    using other = await device.open();
    assertEquals(await witnesses(other)(), want);
  });
}
