import { assert, assertEquals, assertThrows } from "@std/assert";
import { Worker } from "node:worker_threads";
import { DeviceError } from "../../../core/errors.ts";
import { add } from "../../../core/ops/elementwise.ts";
import type { Value } from "../../../core/ir/graph.ts";
import { type HostTensor, upload } from "../../../core/tensor.ts";
import { jit } from "../../runtime/jit.ts";
import { read } from "../../runtime/read.ts";
import { supportsRelaxedSimd } from "../../wasm/probe.ts";
import { CpuDevice } from "./cpu.ts";
import { CpuMemory } from "./memory.ts";
import { CpuThreads } from "./threads.ts";
import { reservedBytes, stepWords, words } from "./walk.ts";

/** Takes a part of the work as a worker does, and is gone with it. */
async function startThief(memory: WebAssembly.Memory): Promise<Worker> {
  const source = `
    const { parentPort, workerData: { memory, words, stepWords } } = require("node:worker_threads");
    parentPort.postMessage("ready");
    for (;;) {
      const view = new Int32Array(memory.buffer), claims = new BigInt64Array(memory.buffer, 4 * words.next, 1);
      const claim = Atomics.load(claims, 0), step = Atomics.load(view, words.step);
      const units = view[step + stepWords.units] | 0, start = Number(claim & 0xffffffffn);
      if (start >= units) continue;
      const grain = BigInt(view[step + stepWords.grain]);
      if (Atomics.compareExchange(claims, 0, claim, claim + grain) === claim) break;
    }`;
  const thief = new Worker(source, { eval: true, workerData: { memory, words, stepWords } });
  await new Promise((resolve) => thief.once("message", resolve));
  return thief;
}

Deno.test("a worker that takes work and dies is given up, and the device computes without it", async () => {
  const memory = new CpuMemory(true, reservedBytes, 2 ** 32);
  const threads = await CpuThreads.start(memory.memory, 2, null, 1);
  using device = new CpuDevice(memory, threads, supportsRelaxedSimd(), "");
  assertEquals(device.threads, 2);
  const size = 1 << 22;
  const x = upload(device, { shape: [size], dtype: "f32", data: new Float32Array(size).fill(2) });
  const f = jit((x: Value) => add(x, 1));
  const held = device.memory.current;
  const thief = await startThief(memory.memory);
  assertThrows(() => f(x), DeviceError, "a worker thread did not return");
  await thief.terminate();
  assertEquals([device.threads, /, 1 thread[;)]/.test(device.description)], [1, true]);
  assertEquals(device.memory.current, held);
  for (let i = 0; i < 3; i++) {
    const { data } = await read(f(x), { release: true }) as HostTensor;
    assert(data.every((value: number) => value === 3));
  }
});
