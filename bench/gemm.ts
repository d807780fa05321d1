/**
 * How fast is a product on the CPU, and what part of the machine is that? GFLOP/s beside the 128-bit multiply-add peak
 * measured before and after, for the products of GPT-2 small and SmolLM2, forward and backward; for single rows GB/s of the
 * weight beside reading as many bytes and nothing else.
 *
 * `deno bench bench/gemm.ts`: a table of medians of ratios to the neighbours in time, then Deno's own timings.
 */
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import { besideFirst, median, quartiles, row, sampleOf, timesFor, warmUp } from "./alternate.ts";
import { fmaPeak } from "./fma_peak.ts";
import { type Form, prepare, product } from "./products.ts";
import { readBandwidth } from "./read_bandwidth.ts";

const device = await openCpu({ blas: false });
using peak = await fmaPeak(device.threads);

/** Shapes M x K x N and how x and W lie, by the model that they are of. */
const table: [string, Form, readonly (readonly [number, number, number])[]][] = [
  ["GPT-2, 4 x 128 tokens", "NN", [[512, 768, 2304], [512, 768, 768], [512, 768, 3072], [512, 3072, 768]]],
  ["GPT-2, gradients of x", "NT", [[512, 2304, 768], [512, 768, 768], [512, 3072, 768], [512, 768, 3072]]],
  ["GPT-2, gradients of W", "TN", [[768, 512, 2304], [768, 512, 768], [3072, 512, 768]]],
  ["GPT-2, 1 x 128 tokens", "NN", [[128, 768, 2304], [128, 768, 768], [128, 768, 3072], [128, 3072, 768]]],
  ["SmolLM2, 2 x 128 tokens", "NT", [[256, 576, 576], [256, 576, 192], [256, 576, 1536], [256, 1536, 576]]],
  ["SmolLM2, gradients of x", "NN", [[256, 576, 576], [256, 192, 576], [256, 1536, 576], [256, 576, 1536]]],
  ["SmolLM2, 1 x 128 tokens", "NT", [[128, 576, 1536], [128, 1536, 576]]],
  ["one row", "NN", [[1, 768, 2304], [1, 768, 3072], [1, 3072, 768]]],
  ["one row", "NT", [[1, 768, 3072], [1, 3072, 768], [1, 576, 1536], [1, 1536, 576]]],
];
const rounds = 11;
const widths = [24, 16, 4, 10, 10, 10, 10];
console.log(device.description);
console.log(row(["", "M x K x N", "", "ms", "GFLOP/s", "of peak", "quartiles"], widths));
for (const [model, form, shapes] of table) {
  for (const [m, k, n] of shapes) {
    const run = prepare(device, product(m, k, n, form));
    await warmUp(run, 150);
    const times = timesFor(run, 12), sample = sampleOf(run, times);
    const flops = 2 * m * k * n, bytes = 4 * k * n;
    // What bounds it: multiply-adds, or for a single row the weight's way from memory.
    using reading = m === 1 ? await readBandwidth(device.threads, bytes) : null;
    const least = () =>
      reading
        ? median(Array.from({ length: times }, () => bytes / reading.measure() / 1e6))
        : median(Array.from({ length: 5 }, () => flops / peak.measure() / 1e6));
    const { ms: [, ms], ratios: [, ratios] } = await besideFirst([least, sample], rounds);
    const percent = (x: number) => `${(100 / x).toFixed(0)} %`;
    const [low, middle, high] = quartiles(ratios).map(percent);
    const speed = m === 1 ? `${(bytes / ms / 1e6).toFixed(1)} GB/s` : (flops / ms / 1e6).toFixed(1);
    console.log(row([model, `${m}x${k}x${n}`, form, ms.toFixed(2), speed, middle, `${high} ${low}`], widths));
    Deno.bench(`${m}x${k}x${n} ${form}`, { n: 20, warmup: 2 }, run);
  }
}
console.log(`peak: ${peak.measure().toFixed(0)} GFLOP/s`);
