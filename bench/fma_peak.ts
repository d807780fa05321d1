/** The most f32 multiply-adds that 128-bit vectors can do here, measured on the CPU device's own threads. */
import { assembleModule, Code } from "../kernels/wasm/assembler.ts";
import { supportsRelaxedSimd } from "../kernels/wasm/probe.ts";
import { CpuMemory } from "../kernels/device/cpu_memory.ts";
import { CpuThreads } from "../kernels/device/cpu_threads.ts";
import { reservedBytes, stepWords, words } from "../kernels/device/cpu_walk.ts";

/** Independent chains: enough to hide the latency, few enough for sixteen registers. */
const chains = 12;
const rounds = 20000;
const units = 64;

/** A measurement that can be repeated: each call runs once and gives GFLOP/s over all threads. */
export async function fmaPeak(threads: number): Promise<{ measure(): number } & Disposable> {
  const code = new Code(["i32", "i32", "i32", "i32"]);
  const x = code.local("v128"), y = code.local("v128"), round = code.local("i32");
  code.f32x4(0.999).set(x).f32x4(0.001).set(y);
  const sums = Array.from({ length: chains }, () => code.local("v128"));
  const unit = code.parameter(2);
  code.loopUpTo(unit, code.parameter(3), 1, () => {
    code.i32(0).set(round);
    code.loopUpTo(round, { constant: rounds }, 1, () => {
      for (const sum of sums) {
        if (supportsRelaxedSimd()) code.get(sum).get(x).get(y).op("f32x4.relaxed_madd").set(sum);
        else code.get(sum).get(x).op("f32x4.mul").get(y).op("f32x4.add").set(sum);
      }
    });
  });
  const scratch = code.parameter(1);
  sums.forEach((sum, i) => code.get(scratch).get(sum).memory("v128.store", 16 * i));
  const memory = new CpuMemory(true, reservedBytes);
  const bytes = assembleModule([code], { shared: true });
  const module = memory.allocate(bytes.length), table = memory.allocate(4 * stepWords.first);
  const scratchAt = memory.allocate(threads * 16 * chains);
  new Uint8Array(memory.buffer, module, bytes.length).set(bytes);
  const pool = await CpuThreads.start(memory.memory, threads);
  const step = new Int32Array(memory.buffer, table, stepWords.first);
  const shared = new Int32Array(memory.buffer, 0, 64);
  const measure = () => {
    step.set([0, module, bytes.length, units, 1, 0]);
    shared[words.scratch] = scratchAt;
    shared[words.scratchStride] = 16 * chains;
    const start = performance.now();
    pool.run(table / 4, table / 4 + stepWords.first);
    const seconds = (performance.now() - start) / 1000;
    return units * rounds * chains * 4 * 2 / seconds / 1e9;
  };
  measure();
  return { measure, [Symbol.dispose]: () => pool[Symbol.dispose]() };
}
