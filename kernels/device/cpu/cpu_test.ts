import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DeviceError, OptionError } from "../../../core/errors.ts";
import { fill, numbers } from "../../../testing/check_kernel.ts";
import { interpretProgram } from "../../../testing/kernel_interpreter.ts";
import type { HostArray } from "../../../core/dtype.ts";
import type { Expr } from "../../ir/expr.ts";
import type { Kernel, Program, Step } from "../../ir/kernel.ts";
import { supportsRelaxedSimd } from "../../wasm/probe.ts";
import { CpuDevice, openCpu } from "./cpu.ts";
import { CpuMemory } from "./memory.ts";
import { CpuThreads } from "./threads.ts";
import { reservedBytes } from "./walk.ts";

const load = (operand: number, strides: number[]): Expr => ({
  kind: "load",
  type: "f32",
  operand,
  index: { offset: 0, strides },
});
const result = (phase: number): Expr => ({ kind: "result", type: "f32", phase });

/** y = tanh(x·w) row-normalised, then added to x: a step of each main kind, through the arena. */
function program(rows: number, width: number): Program {
  const size = rows * width;
  const product: Kernel = {
    kind: "contract",
    operands: [
      { dtype: "f32", size, access: "read" },
      { dtype: "f32", size: width * width, access: "read" },
      { dtype: "f32", size, access: "write" },
    ],
    batch: [],
    m: rows,
    n: width,
    segments: [{
      k: width,
      a: { operand: 0, index: { offset: 0, strides: [width, 1] } },
      b: { operand: 1, index: { offset: 0, strides: [width, 1] } },
    }],
    stores: [{
      operand: 2,
      index: { offset: 0, strides: [width, 1] },
      value: { kind: "op", type: "f32", op: "tanh", args: [result(0)] },
    }],
  };
  const normalise: Kernel = {
    kind: "row",
    operands: [{ dtype: "f32", size, access: "inout" }],
    rows: [rows],
    cols: width,
    phases: [
      {
        kind: "reduce",
        op: "sum",
        value: { kind: "op", type: "f32", op: "abs", args: [load(0, [width, 1])] },
      },
      {
        kind: "each",
        stores: [{
          operand: 0,
          index: { offset: 0, strides: [width, 1] },
          value: { kind: "op", type: "f32", op: "div", args: [load(0, [width, 1]), result(0)] },
        }],
      },
    ],
  };
  const add: Kernel = {
    kind: "map",
    operands: [
      { dtype: "f32", size, access: "read" },
      { dtype: "f32", size, access: "read" },
      { dtype: "f32", size, access: "write" },
    ],
    shape: [rows, width],
    stores: [{
      operand: 2,
      index: { offset: 0, strides: [width, 1] },
      value: { kind: "op", type: "f32", op: "add", args: [load(0, [width, 1]), load(1, [width, 1])] },
    }],
  };
  const x = { kind: "argument", index: 0 } as const, w = { kind: "argument", index: 1 } as const;
  const y = { kind: "arena", offset: 0 } as const, out = { kind: "output", index: 0 } as const;
  const steps: Step[] = [
    { kernel: product, buffers: [x, w, y] },
    { kernel: normalise, buffers: [y] },
    { kernel: add, buffers: [x, y, out] },
  ];
  return {
    arguments: [{ dtype: "f32", size }, { dtype: "f32", size: width * width }],
    outputs: [{ dtype: "f32", size }],
    arenaBytes: Math.ceil(size * 4 / 256) * 256,
    steps,
  };
}

/** Runs a program of f32 operands with inputs drawn from its own seed; `times` runs in all. */
async function run(device: CpuDevice, made: Program, times = 1): Promise<{ inputs: HostArray[]; output: HostArray }> {
  const next = numbers(5);
  const inputs = made.arguments.map(({ dtype, size }) => fill({ dtype, size, access: "read" }, next));
  const args = inputs.map((data) => device.allocate(data.byteLength));
  inputs.forEach((data, i) => device.write(args[i], data));
  const { dtype, size } = made.outputs[0];
  const out = device.allocate(size * 4);
  const executable = device.compile(made);
  for (let i = 0; i < times; i++) executable.run(args, [out]);
  const [output] = await device.read([{ buffer: out, dtype, size }]);
  executable.free();
  for (const buffer of [...args, out]) device.free(buffer);
  return { inputs, output };
}

Deno.test("a program through the arena agrees with the interpreter", async () => {
  using device = await openCpu({ threads: 2, blas: false });
  const made = program(37, 130);
  const { inputs, output } = await run(device, made);
  const expected = new Float32Array(output.length);
  interpretProgram(made, inputs, [expected]);
  output.forEach((x, i) => assert(Math.abs(x - expected[i]) < 1e-6));
});

Deno.test("results have the same bits for 1, 2 and 3 threads", async () => {
  const outputs: HostArray[] = [];
  for (const threads of [1, 2, 3]) {
    using device = await openCpu({ threads, blas: false });
    assertEquals(device.threads, threads);
    outputs.push((await run(device, program(301, 260))).output);
  }
  assertEquals(outputs[0], outputs[1]);
  assertEquals(outputs[0], outputs[2]);
});

Deno.test("every unit of work is done once, over many short programs and more threads than processors", async () => {
  const runs = 3000;
  for (const threads of [2, 4]) {
    using device = await openCpu({ threads, blas: false });
    const size = 5 * 16384 + 3;
    const one: Expr = { kind: "const", type: "f32", value: 1 };
    const count = (size: number): Kernel => ({
      kind: "map",
      operands: [{ dtype: "f32", size, access: "inout" }],
      shape: [size],
      stores: [{
        operand: 0,
        index: { offset: 0, strides: [1] },
        value: { kind: "op", type: "f32", op: "add", args: [load(0, [1]), one] },
      }],
    });
    const buffer = device.allocate(size * 4);
    device.write(buffer, new Float32Array(size));
    // Steps that are shared, and steps too small for that, of one and the same buffer.
    const steps = [size, 7, size, 7, 7].map((n): Step => ({
      kernel: count(n),
      buffers: [{ kind: "argument", index: 0 }],
    }));
    const executable = device.compile({ arguments: [{ dtype: "f32", size }], outputs: [], arenaBytes: 0, steps });
    for (let i = 0; i < runs; i++) executable.run([buffer], []);
    const [got] = await device.read([{ buffer, dtype: "f32", size }]);
    got.forEach((x, i) => assertEquals(x, runs * (i < 7 ? 5 : 2)));
  }
});

Deno.test("a trap in any thread is an error, and the device works on afterwards", async () => {
  using device = await openCpu({ threads: 2, blas: false });
  const size = 1 << 18;
  // Reads far past the end of the memory in the last blocks only.
  const index: Expr = {
    kind: "op",
    type: "i32",
    op: "mul",
    args: [{ kind: "axis", type: "i32", axis: 0 }, { kind: "const", type: "i32", value: 3000 }],
  };
  const kernel: Kernel = {
    kind: "map",
    operands: [{ dtype: "f32", size, access: "read" }, { dtype: "f32", size, access: "write" }],
    shape: [size],
    stores: [{
      operand: 1,
      index: { offset: 0, strides: [1] },
      value: {
        kind: "load",
        type: "f32",
        operand: 0,
        index: { offset: 0, strides: [0], dynamic: [{ value: index, stride: 1 }] },
      },
    }],
  };
  const buffer = device.allocate(size * 4);
  const executable = device.compile({
    arguments: [{ dtype: "f32", size }],
    outputs: [],
    arenaBytes: size * 4,
    steps: [{ kernel, buffers: [{ kind: "argument", index: 0 }, { kind: "arena", offset: 0 }] }],
  });
  for (let i = 0; i < 20; i++) assertThrows(() => executable.run([buffer], []), DeviceError, "out of bounds");
  executable.free();
  device.free(buffer);
  const made = program(64, 64);
  const { inputs, output } = await run(device, made);
  const expected = new Float32Array(output.length);
  interpretProgram(made, inputs, [expected]);
  output.forEach((x, i) => assert(Math.abs(x - expected[i]) < 1e-6));
});

Deno.test("without worker threads the same programs run on a memory of the device's own", async () => {
  const memory = new CpuMemory(false, reservedBytes);
  using lone = new CpuDevice(
    memory,
    CpuThreads.alone(memory.memory),
    supportsRelaxedSimd(),
    ", no worker threads here",
  );
  using shared = await openCpu({ threads: 2, blas: false });
  const made = program(70, 90);
  assertEquals((await run(lone, made)).output, (await run(shared, made)).output);
  assert(lone.description.includes("no worker threads here"));
});

Deno.test("memory is counted, reused, and refused with a sentence", async () => {
  using device = await openCpu({ threads: 1 });
  const first = device.allocate(1000), second = device.allocate(5000);
  assertEquals(device.memory, { current: 6000, peak: 6000 });
  device.free(first);
  const again = device.allocate(900);
  assertEquals(device.memory, { current: 5900, peak: 6000 });
  device.free(again);
  device.free(second);
  assertEquals(device.memory.current, 0);
  assertThrows(() => device.free(second), DeviceError, "freed buffer");
  assertThrows(
    () => device.allocate(5 * 2 ** 30),
    DeviceError,
    "needs 5.37 GB more in one piece, but of the 4.29 GB that one memory holds",
  );
  assertThrows(() => device.write(device.allocate(8), new Float32Array(3)), DeviceError, "12 bytes do not fit");
});

Deno.test("no more memory is taken than the machine has", () => {
  const memory = new CpuMemory(false, reservedBytes, 700e6);
  assertEquals(memory.capacity, 700e6);
  const large = memory.allocate(600e6);
  assertThrows(
    () => memory.allocate(200e6),
    DeviceError,
    "needs 200.0 MB more in one piece, but of the 700.0 MB that this machine, or its container, has for it 600.0 MB are taken",
  );
  memory.free(large, 600e6);
  memory.free(memory.allocate(650e6), 650e6);
});

Deno.test("one arena serves all programs", async () => {
  using device = await openCpu({ threads: 1 });
  const large = device.compile(program(64, 64)), small = device.compile(program(16, 16));
  assertEquals(device.memory.current, 64 * 64 * 4);
  large.free();
  assertEquals(device.memory.current, 16 * 16 * 4);
  small.free();
  assertEquals(device.memory.current, 0);
});

Deno.test("bad options and foreign buffers are refused", async () => {
  for (const threads of [0, -1, 1.5, NaN, 1000]) {
    await assertRejects(
      () => openCpu({ threads }),
      OptionError,
      `threads is ${threads}: give a whole number from 1 to`,
    );
  }
  using one = await openCpu({ threads: 1 });
  using other = await openCpu({ threads: 1 });
  assertThrows(() => one.free(other.allocate(4)), DeviceError, "another device");
});
