/** The most f32 multiply-adds that 128-bit vectors can do here, measured on the CPU device's own threads. */
import { supportsRelaxedSimd } from "../kernels/wasm/probe.ts";
import { startRawKernel } from "./raw_kernel.ts";

/** Independent chains: enough to hide the latency, few enough for sixteen registers. */
const chains = 12;
const rounds = 20000;
const units = 64;

/** A measurement that can be repeated: each call runs once and gives GFLOP/s over all threads. */
export async function fmaPeak(threads: number): Promise<{ measure(): number } & Disposable> {
  const relaxed = supportsRelaxedSimd();
  const kernel = await startRawKernel(threads, units, 0, (code, _unit, _data, scratch) => {
    const x = code.local("v128"), y = code.local("v128"), round = code.local("i32");
    const sums = Array.from({ length: chains }, () => code.local("v128"));
    code.f32x4(0.999).set(x).f32x4(0.001).set(y).i32(0).set(round);
    code.loopUpTo(round, { constant: rounds }, 1, () => {
      for (const sum of sums) {
        if (relaxed) code.get(sum).get(x).get(y).op("f32x4.relaxed_madd").set(sum);
        else code.get(sum).get(x).op("f32x4.mul").get(y).op("f32x4.add").set(sum);
      }
    });
    sums.forEach((sum, i) => code.get(scratch).get(sum).memory("v128.store", 16 * i));
  });
  return {
    measure: () => units * rounds * chains * 4 * 2 / kernel.seconds() / 1e9,
    [Symbol.dispose]: () => kernel[Symbol.dispose](),
  };
}
