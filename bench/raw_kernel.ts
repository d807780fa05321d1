/** Code of a benchmark's own on threads like the CPU device's: what the machine can do, to hold kernels against. */
import { CpuMemory } from "../kernels/device/cpu/memory.ts";
import { CpuThreads } from "../kernels/device/cpu/threads.ts";
import { reservedBytes, stepWords, words } from "../kernels/device/cpu/walk.ts";
import { assembleModule, Code, type Local } from "../kernels/wasm/assembler.ts";

/** Runs once and gives the seconds that it took. */
export interface RawKernel extends Disposable {
  seconds(): number;
}

/**
 * Threads that share out `units` of what `emit` writes: code for one unit of work, whose number it is given, with the address
 * of `bytes` of shared data and of 256 bytes of the thread's own.
 */
export async function startRawKernel(
  threads: number,
  units: number,
  bytes: number,
  emit: (code: Code, unit: Local, data: Local, scratch: Local) => void,
): Promise<RawKernel> {
  const code = new Code(["i32", "i32", "i32", "i32"]);
  const [operands, scratch, unit, end] = [0, 1, 2, 3].map((i) => code.parameter(i)), data = code.local("i32");
  code.get(operands).memory("i32.load").set(data);
  code.loopUpTo(unit, end, 1, () => emit(code, unit, data, scratch));
  const module = assembleModule([code], { shared: true });
  const memory = new CpuMemory(true, reservedBytes), length = stepWords.first + 1;
  const [moduleAt, table, scratchAt, dataAt] = [module.length, 4 * length, threads * 256, bytes].map((size) =>
    memory.allocate(Math.max(64, size))
  );
  new Uint8Array(memory.buffer, moduleAt, module.length).set(module);
  new Uint8Array(memory.buffer, dataAt, bytes).fill(1);
  const pool = await CpuThreads.start(memory.memory, threads);
  const step = new Int32Array(memory.buffer, table, length);
  step[stepWords.version] = 1;
  step[stepWords.address] = moduleAt;
  step[stepWords.bytes] = module.length;
  step[stepWords.units] = units;
  step[stepWords.grain] = step[stepWords.operands] = 1;
  step[stepWords.first] = dataAt;
  const shared = new Int32Array(memory.buffer, 0, 64);
  shared[words.scratch] = scratchAt;
  shared[words.scratchStride] = 256;
  const seconds = () => {
    const start = performance.now();
    pool.run(table / 4, table / 4 + length);
    return (performance.now() - start) / 1000;
  };
  seconds();
  return { seconds, [Symbol.dispose]: () => pool[Symbol.dispose]() };
}
