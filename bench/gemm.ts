/**
 * How fast is a product on the CPU, and what part of the machine is that? GFLOP/s beside the 128-bit multiply-add peak
 * measured in the same run, for both ways in which models store weights, and for single rows.
 *
 * `deno bench bench/gemm.ts`: a table of medians of alternated runs, then Deno's own timings.
 */
import { openCpu } from "../kernels/device/cpu.ts";
import { alternate, median, row, sampleOf, timesFor } from "./alternate.ts";
import { fmaPeak } from "./fma_peak.ts";
import { prepare, product } from "./products.ts";

const device = await openCpu({ blas: false });
using peak = await fmaPeak(device.threads);

const shapes = [[512, 768, 2304], [512, 768, 768], [512, 3072, 768], [128, 768, 3072], [128, 576, 1536], [
  1,
  768,
  3072,
]];
const widths = [16, 10, 10, 10, 8];
console.log(device.description);
console.log(row(["M x K x N", "W", "ms", "GFLOP/s", "of peak"], widths));
for (const [m, k, n] of shapes) {
  for (const byInput of [true, false]) {
    const run = prepare(device, product(m, k, n, byInput));
    const peaks: number[] = [];
    const { ms: [ms] } = alternate([sampleOf(run, timesFor(run, 100)), () => {
      peaks.push(peak.measure());
      return 0;
    }]);
    const speed = 2 * m * k * n / ms / 1e6;
    const form = byInput ? "[in,out]" : "[out,in]";
    console.log(row([
      `${m}x${k}x${n}`,
      form,
      ms.toFixed(2),
      speed.toFixed(1),
      `${(100 * speed / median(peaks)).toFixed(0)} %`,
    ], widths));
    Deno.bench(`${m}x${k}x${n} ${form}`, { n: 20, warmup: 2 }, run);
  }
}
console.log(`peak: ${peak.measure().toFixed(0)} GFLOP/s`);
