/** How fast so many bytes are read through and nothing else, measured on the CPU device's own threads. */
import { startRawKernel } from "./raw_kernel.ts";

/** Bytes of a unit, which a thread reads from one end to the other, and of one turn of its loop. */
const unitBytes = 1 << 16, turnBytes = 256;

/** A measurement that can be repeated: each call reads `bytes` once and gives GB/s over all threads. */
export async function readBandwidth(threads: number, bytes: number): Promise<{ measure(): number } & Disposable> {
  const units = Math.floor(bytes / unitBytes);
  const kernel = await startRawKernel(threads, units, bytes, (code, unit, data, scratch) => {
    const at = code.local("i32"), end = code.local("i32");
    const sums = Array.from({ length: 8 }, () => code.local("v128"));
    code.get(unit).i32(unitBytes).op("i32.mul").get(data).op("i32.add").tee(at).i32(unitBytes).op("i32.add").set(end);
    code.loopUpTo(at, end, turnBytes, () => {
      for (let i = 0; i < turnBytes; i += 16) {
        const sum = sums[i / 16 % sums.length];
        code.get(sum).get(at).memory("v128.load", i).op("v128.xor").set(sum);
      }
    });
    sums.forEach((sum, i) => code.get(scratch).get(sum).memory("v128.store", 16 * i));
  });
  return {
    measure: () => units * unitBytes / kernel.seconds() / 1e9,
    [Symbol.dispose]: () => kernel[Symbol.dispose](),
  };
}
