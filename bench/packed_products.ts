/**
 * What do products of one row with packed weights take, with f32 activations and with those of 8 bits? By turns, on one
 * thread, with more weights than caches hold: each is read from memory.
 *
 * `deno run --allow-read --allow-env bench/packed_products.ts`
 */
import { matmul } from "../core/ops/contract.ts";
import { type Operand, type Tensor, upload } from "../core/tensor.ts";
import { roundActivations, roundedTypes } from "../core/transforms/round_activations.ts";
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import { jit } from "../kernels/runtime/jit.ts";
import { randomPacked } from "../testing/packed_reference.ts";
import { alternate, row, sampleOf, warmUp } from "./alternate.ts";

const [inner, outer, count] = [768, 1536, 64];
const weightsOf = inner * outer * count;
const widths = [6, 14, 14, 8];

using device = await openCpu({ threads: 1, blas: false });
using x = upload(device, { shape: [1, inner], dtype: "f32", data: Float32Array.from({ length: inner }, Math.random) });
const products = (x: Operand, weights: readonly Operand[]) => weights.map((w) => matmul(x, w, { transposeB: true }));
const compiled = [jit(products), jit(roundActivations(products))];

console.log(row(["", "f32, ps/weight", "int8, the same", "ratio"], widths));
for (const dtype of roundedTypes) {
  const data = randomPacked(dtype, inner * outer, 1);
  const weights: Tensor[] = Array.from({ length: count }, () => upload(device, { shape: [outer, inner], dtype, data }));
  const runs = compiled.map((f) => () => f(x, weights).forEach((y: Tensor) => y.dispose()));
  for (const run of runs) await warmUp(run);
  const { ms, ratio } = alternate(runs.map((run) => sampleOf(run)), 21);
  console.log(row([dtype, ...ms.map((t) => (t * 1e9 / weightsOf).toFixed(0)), ratio[1].toFixed(2)], widths));
  for (const weight of weights) weight.dispose();
}
