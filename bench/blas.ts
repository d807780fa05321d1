/**
 * From what size on is the system's BLAS faster than the products built in? Both on the same threads, in turns, over small
 * and large products and single rows; where they cross is `blasCrossover` of kernels/wasm/gemm/blas.ts.
 *
 * `deno run --allow-read --allow-env --allow-ffi bench/blas.ts`
 */
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import { alternate, row, sampleOf, timesFor, warmUp } from "./alternate.ts";
import { prepare, product } from "./products.ts";

using plain = await openCpu({ blas: false });
using blas = await openCpu({ blas: { from: 0 } });
console.log(blas.description);
if (blas.blas === null) Deno.exit(1);
const shapes = [
  [8, 8, 8],
  [16, 16, 16],
  [32, 32, 32],
  [64, 64, 64],
  [512, 768, 8],
  [512, 8, 768],
  [1, 768, 3072],
  [4, 768, 3072],
  [16, 768, 3072],
  [128, 768, 3072],
  [512, 768, 2304],
  [512, 3072, 768],
  [128, 768, 50257],
];
const widths = [16, 9, 12, 10, 10, 8];
console.log(row(["M x K x N", "W", "built in us", "GFLOP/s", "GFLOP/s", "speed"], widths));
for (const [m, k, n] of shapes) {
  for (const form of ["NN", "NT"] as const) {
    const runs = [plain, blas].map((device) => prepare(device, product(m, k, n, form)));
    for (const f of runs) await warmUp(f);
    const { ms: [own, library] } = alternate(runs.map((f) => sampleOf(f, timesFor(f, 30))), 7);
    const speed = (ms: number) => (2 * m * k * n / ms / 1e6).toFixed(1);
    const cells = [form === "NN" ? "[in,out]" : "[out,in]", (own * 1000).toFixed(1), speed(own), speed(library)];
    console.log(row([`${m}x${k}x${n}`, ...cells, (own / library).toFixed(2)], widths));
  }
}
