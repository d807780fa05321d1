import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DeviceError } from "../../../core/errors.ts";
import type { Expr, Index } from "../../ir/expr.ts";
import type { MapKernel, Operand, Program, RowKernel } from "../../ir/kernel.ts";
import { defaultTile, gpuTile, softwareTile, type TileConfig } from "../../wgsl/tile.ts";
import { candidates } from "../../tune/tune.ts";
import { memoryStore, saveTiles } from "../../tune/cache.ts";
import { openWebGpu, type WebGpuDevice } from "./webgpu.ts";
import { adapterKey, Stopwatch } from "./tuning.ts";
import { findAdapter } from "./adapter.ts";

const ignore = "missing" in await findAdapter();
if (ignore) console.log("no WebGPU adapter: the tests of the WebGPU device are skipped");
const test = (name: string, fn: () => Promise<void>) => Deno.test({ name, ignore, fn });

const f32 = (size: number, access: Operand["access"]): Operand => ({ dtype: "f32", size, access });
const whole: Index = { offset: 0, strides: [1] };
const load = (operand: number): Expr => ({ kind: "load", type: "f32", operand, index: whole });
const op = (name: "add" | "mul", ...args: Expr[]): Expr => ({ kind: "op", type: "f32", op: name, args });

/** operand 2 = operand 0 + operand 1. */
function sum(size: number): MapKernel {
  const stores = [{ operand: 2, index: whole, value: op("add", load(0), load(1)) }];
  return { kind: "map", operands: [f32(size, "read"), f32(size, "read"), f32(size, "write")], shape: [size], stores };
}

/** operand 0 squared in place. */
function square(size: number): MapKernel {
  const stores = [{ operand: 0, index: whole, value: op("mul", load(0), load(0)) }];
  return { kind: "map", operands: [f32(size, "inout")], shape: [size], stores };
}

function put(device: WebGpuDevice, values: readonly number[]) {
  const buffer = device.allocate(values.length * 4);
  device.write(buffer, Float32Array.from(values));
  return buffer;
}

async function get(device: WebGpuDevice, buffer: ReturnType<typeof put>, size: number): Promise<number[]> {
  const [data] = await device.read([{ buffer, dtype: "f32", size }]);
  return [...data];
}

/** (a + b)² + b, the sum in the arena. */
const size = 5;
const arenaProgram: Program = {
  arguments: [{ dtype: "f32", size }, { dtype: "f32", size }],
  outputs: [{ dtype: "f32", size }],
  arenaBytes: 512,
  steps: [
    {
      kernel: sum(size),
      buffers: [{ kind: "argument", index: 0 }, { kind: "argument", index: 1 }, { kind: "arena", offset: 256 }],
    },
    { kernel: square(size), buffers: [{ kind: "arena", offset: 256 }] },
    {
      kernel: sum(size),
      buffers: [{ kind: "arena", offset: 256 }, { kind: "argument", index: 1 }, { kind: "output", index: 0 }],
    },
  ],
};

test("a program runs through its arena, again with other buffers, and one buffer may be two arguments", async () => {
  using device = await openWebGpu();
  const executable = device.compile(arenaProgram);
  const [a, b, out] = [put(device, [1, 2, 3, 4, 5]), put(device, [0, 1, 0, 1, 0]), device.allocate(20)];
  executable.run([a, b], [out]);
  assertEquals(await get(device, out, size), [1, 10, 9, 26, 25]);
  executable.run([b, b], [out]);
  assertEquals(await get(device, out, size), [0, 5, 0, 5, 0]);
  executable.run([a, b], [a]);
  assertEquals(await get(device, a, size), [1, 10, 9, 26, 25]);
});

test("equal kernels of all programs compile once", async () => {
  using device = await openWebGpu();
  device.compile(arenaProgram);
  assertEquals(device.pipelines.size, 2);
  device.compile({ ...arenaProgram, steps: arenaProgram.steps.slice(0, 1) });
  assertEquals(device.pipelines.size, 2);
});

test("many buffers are read with one wait, also by two readers at once", async () => {
  using device = await openWebGpu();
  const buffers = Array.from({ length: 50 }, (_, i) => put(device, [i, i + 1]));
  const read = () => device.read(buffers.map((buffer) => ({ buffer, dtype: "f32", size: 2 })));
  const [once, twice] = await Promise.all([read(), read()]);
  assertEquals(once.map((data) => [...data]), buffers.map((_, i) => [i, i + 1]));
  assertEquals(twice, once);
});

test("an odd number of 16-bit elements and memory shared between threads are written whole", async () => {
  using device = await openWebGpu();
  const buffer = device.allocate(6);
  device.write(buffer, Uint16Array.of(1, 2, 65535));
  assertEquals(await device.read([{ buffer, dtype: "f16", size: 3 }]), [Uint16Array.of(1, 2, 65535)]);
  const shared = new Float32Array(new SharedArrayBuffer(8));
  shared.set([3, 4]);
  device.write(buffer, shared.subarray(1));
  assertEquals(await get(device, buffer, 1), [4]);
});

test("memory is counted", async () => {
  using device = await openWebGpu();
  const before = device.memory.current;
  const buffer = device.allocate(1000);
  assertEquals(device.memory.current - before, 1008);
  const executable = device.compile(arenaProgram);
  assertEquals(device.memory.current - before, 1008 + 512);
  executable.free();
  device.free(buffer);
  assertEquals(device.memory.current, before);
  assertEquals(device.memory.peak - before, 1008 + 512);
});

test("a shader that does not compile is named, with its line, by the next read, and the device lives on", async () => {
  using device = await openWebGpu();
  const buffer = put(device, [7]);
  const text = "@compute @workgroup_size(1)\nfn main() {\n  let x: u32 = 1.5;\n}\n";
  device.pipelines.take({ name: "map [3]", text, parts: [text], tiling: "", grid: [1, 1], bindings: [] });
  const error = await assertRejects(() => get(device, buffer, 1), DeviceError);
  assert(
    error.message.startsWith('The kernel "map [3]" did not compile, line 3: `let x: u32 = 1.5;`: '),
    error.message,
  );
  assertEquals(await get(device, buffer, 1), [7]);
});

test("a refused command is a DeviceError of the next read", async () => {
  using device = await openWebGpu();
  const [a, out] = [put(device, [1]), device.allocate(20)];
  device.compile(arenaProgram).run([a, a], [out]);
  device.free(a);
  await assertRejects(() => get(device, a, 1), DeviceError, "A freed buffer");
  out.gpu.destroy();
  await assertRejects(() => get(device, out, 1), DeviceError, "refused a command");
});

test("a lost device is a DeviceError of every later read and run", async () => {
  using device = await openWebGpu();
  const buffer = put(device, [1]);
  device.gpu.destroy();
  for (let i = 0; i < 2; i++) {
    const error = await assertRejects(() => get(device, buffer, 1), DeviceError);
    assert(/was lost .*: what it held is gone/.test(error.message), error.message);
  }
});

test("a device that is closed while it computes ends when that is done", async () => {
  const device = await openWebGpu();
  const [a, b, out] = [put(device, [1, 2, 3, 4, 5]), put(device, [0, 1, 0, 1, 0]), device.allocate(20)];
  const executable = device.compile(arenaProgram);
  for (let i = 0; i < 20; i++) executable.run([a, b], [out]);
  const ends: string[] = [];
  const done = device.gpu.queue.onSubmittedWorkDone().then(() => ends.push("the work"));
  const lost = device.gpu.lost.then(() => ends.push("the device"));
  device[Symbol.dispose]();
  await Promise.all([done, lost]);
  assertEquals(ends, ["the work", "the device"]);
});

test("what one buffer can't hold is refused with its size", async () => {
  using device = await openWebGpu();
  const error = assertThrows(() => device.allocate(2 ** 44), DeviceError);
  assert(/^Cannot allocate 16777216\.0 MiB on webgpu .*: use a smaller batch/.test(error.message), error.message);
});

test("operands larger than one binding are bound in windows, as far as there are bindings", async () => {
  using device = await openWebGpu({ tile: { ...softwareTile, window: 512 } });
  const long = 201;
  const [a, b] = [1, 1000].map((scale) => put(device, Array.from({ length: long }, (_, i) => i * scale)));
  const out = device.allocate(long * 4);
  const program = (size: number): Program => ({
    arguments: [{ dtype: "f32", size }, { dtype: "f32", size }],
    outputs: [{ dtype: "f32", size }],
    arenaBytes: 0,
    steps: [{
      kernel: sum(size),
      buffers: [{ kind: "argument", index: 0 }, { kind: "argument", index: 1 }, { kind: "output", index: 0 }],
    }],
  });
  device.compile(program(long)).run([a, b], [out]);
  assertEquals(await get(device, out, long), Array.from({ length: long }, (_, i) => i * 1001));
  const error = assertThrows(() => device.compile(program(2 ** 17)), DeviceError);
  assert(/^Cannot run "map \[131072\]" on webgpu .*: it has \d+ bindings/.test(error.message), error.message);
});

test("tiles are timed on the device; one that it can't run takes for ever, and the device lives on", async () => {
  using device = await openWebGpu();
  const program: Program = {
    arguments: [{ dtype: "f32", size: 64 }],
    outputs: [],
    arenaBytes: 0,
    steps: [{ kernel: square(64), buffers: [{ kind: "argument", index: 0 }] }],
  };
  const stopwatch = new Stopwatch(device);
  const held = device.memory.current;
  assert(await stopwatch.time(program, softwareTile) < 1000);
  assertEquals(await stopwatch.time(program, { ...softwareTile, mapLanes: 2 ** 16 }), Infinity);
  assert(await stopwatch.time(program, softwareTile) < 1000);
  assertEquals(device.memory.current, held);
});

test("subgroups are found by asking the device; rows joined by them are whole", async () => {
  using plain = await openWebGpu();
  const { size } = plain.subgroups;
  assertEquals(size & (size - 1), 0);
  if (size === 0) return console.log("  this adapter has no subgroups");
  const cols = 1000;
  const kernel: RowKernel = {
    kind: "row",
    operands: [f32(cols, "read"), f32(1, "write")],
    rows: [],
    cols,
    phases: [
      { kind: "reduce", op: "sum", value: load(0) },
      {
        kind: "once",
        stores: [{
          operand: 1,
          index: { offset: 0, strides: [0] },
          value: { kind: "result", type: "f32", phase: 0 },
        }],
      },
    ],
  };
  for (const rowLanes of [size, 256]) {
    using device = await openWebGpu({ tile: { ...gpuTile, rowLanes, subgroups: size } });
    const [x, out] = [put(device, Array.from({ length: cols }, (_, i) => i)), device.allocate(4)];
    const program: Program = {
      arguments: kernel.operands,
      outputs: [],
      arenaBytes: 0,
      steps: [{ kernel, buffers: [{ kind: "argument", index: 0 }, { kind: "argument", index: 1 }] }],
    };
    device.compile(program).run([x, out], []);
    assertEquals(await get(device, out, 1), [cols * (cols - 1) / 2]);
  }
});

test("a device says where its tiles come from; what was kept is used and not measured again", async () => {
  const store = memoryStore();
  const adapter = await findAdapter();
  assert(!("missing" in adapter));
  using plain = await openWebGpu();
  const { size } = plain.subgroups;
  const base = defaultTile(adapter.software, size);
  const classes = { "row long": candidates("row long", base, size)[1] };
  saveTiles(store, adapterKey(adapter), { default: base, classes }, size, console.warn);
  using tuned = await openWebGpu({ tune: true, store });
  assertEquals(tuned.remark, "tiles tuned before, from memory");
  using fixed = await openWebGpu({ tune: false, store });
  assertEquals(fixed.remark, `the ${base.name} tile, not tuned`);
});

test("grids beyond 65,535 workgroups fold", async () => {
  const thin: TileConfig = { ...softwareTile, name: "thin", mapLanes: 1 };
  for (const tile of [thin, { ...gpuTile, mapLanes: 1 }]) {
    using device = await openWebGpu({ tile });
    const count = 65_535 * 4 + 40;
    const values = Array.from({ length: count }, (_, i) => i % 1000);
    const buffer = put(device, values);
    const program: Program = {
      arguments: [{ dtype: "f32", size: count }],
      outputs: [],
      arenaBytes: 0,
      steps: [{ kernel: square(count), buffers: [{ kind: "argument", index: 0 }] }],
    };
    device.compile(program).run([buffer], []);
    assertEquals(await get(device, buffer, count), values.map((x) => x * x));
  }
});
