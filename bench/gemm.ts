/**
 * How fast is a product on the CPU, and what part of the machine is that? GFLOP/s beside the 128-bit multiply-add peak
 * measured in the same run, for both ways in which models store weights, and for single rows.
 *
 * `deno bench bench/gemm.ts`: a table of medians of alternated runs, then Deno's own timings.
 */
import { openCpu } from "../kernels/device/cpu.ts";
import type { ContractKernel, Program } from "../kernels/kernel.ts";
import { alternate, median, row, sampleOf, timesFor } from "./alternate.ts";
import { fmaPeak } from "./fma_peak.ts";

const device = await openCpu();
using peak = await fmaPeak(device.threads);

/** y[m,n] = x[m,k]·W, with W stored [k,n] or [n,k]. */
function product(m: number, k: number, n: number, byInput: boolean): ContractKernel {
  return {
    kind: "contract",
    operands: [
      { dtype: "f32", size: m * k, access: "read" },
      { dtype: "f32", size: k * n, access: "read" },
      { dtype: "f32", size: m * n, access: "write" },
    ],
    batch: [],
    m,
    n,
    segments: [{
      k,
      a: { operand: 0, index: { offset: 0, strides: [k, 1] } },
      b: { operand: 1, index: { offset: 0, strides: byInput ? [n, 1] : [1, k] } },
    }],
    stores: [{ operand: 2, index: { offset: 0, strides: [n, 1] }, value: { kind: "result", type: "f32", phase: 0 } }],
  };
}

/** A kernel on buffers of its own, ready to run. */
function prepare(kernel: ContractKernel): () => void {
  const buffers = kernel.operands.map(({ size }) => {
    const buffer = device.allocate(size * 4);
    device.write(buffer, Float32Array.from({ length: size }, (_, i) => Math.sin(i * 1.7)));
    return buffer;
  });
  const program: Program = {
    arguments: kernel.operands,
    outputs: [],
    arenaBytes: 0,
    steps: [{ kernel, buffers: buffers.map((_, index) => ({ kind: "argument", index })) }],
  };
  const executable = device.compile(program);
  return () => executable.run(buffers, []);
}

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
    const run = prepare(product(m, k, n, byInput));
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
