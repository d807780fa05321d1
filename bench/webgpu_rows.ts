/**
 * What do norms, softmax and cross-entropy take on the adapter, and at what part of its memory's speed? Each as one kernel, by
 * the adapter's own clock, the fastest of some runs; bytes are those of the operands, each counted once.
 *
 * `deno run --allow-read --allow-env bench/webgpu_rows.ts`
 */
import { sizeOf } from "../core/aval.ts";
import type { Value } from "../core/ir/graph.ts";
import { crossEntropyRows } from "../core/nn/loss.ts";
import { layerNorm, rmsNorm } from "../core/nn/norm.ts";
import { softmax } from "../core/nn/softmax.ts";
import { reduceSum } from "../core/ops/broadcast.ts";
import { mul } from "../core/ops/elementwise.ts";
import { upload } from "../core/tensor.ts";
import { trace } from "../core/trace.ts";
import { grad, valueAndGrad } from "../core/transforms/grad.ts";
import { build } from "../kernels/runtime/compile.ts";
import { bytesOf } from "../kernels/explain/describe.ts";
import { openWebGpu } from "../kernels/device/webgpu/webgpu.ts";
import type { DeviceBuffer } from "../kernels/device/executable.ts";
import { emitWgsl } from "../kernels/wgsl/emit.ts";

const runs = 5;
const eps = 1e-5;
type OfRows = (x: Value, vector: Value, ct: Value, labels: Value) => unknown;
const cases: readonly (readonly [name: string, rows: number, cols: number, f: OfRows])[] = [
  ["layer norm", 4096, 768, (x, v) => layerNorm(x, v, v, eps)],
  ["layer norm, backward", 4096, 768, (x, v, ct) => grad((x: Value) => reduceSum(mul(layerNorm(x, v, v, eps), ct)))(x)],
  ["rms norm", 4096, 4096, (x, v) => rmsNorm(x, v, eps)],
  ["softmax", 4096, 1024, (x) => softmax(x)],
  [
    "cross-entropy, loss and slope",
    128,
    50257,
    (x, _, __, labels) => valueAndGrad((x: Value) => reduceSum(crossEntropyRows(x, labels)))(x),
  ],
];

using device = await openWebGpu();
console.log(`${device.description}, ${device.remark}`);
for (const [name, rows, cols, f] of cases) {
  const put = (shape: readonly number[]) => {
    const data = Float32Array.from({ length: sizeOf(shape) }, (_, i) => Math.sin(i));
    return upload(device, { shape, dtype: "f32", data });
  };
  const labels = upload(device, { shape: [rows], dtype: "i32", data: Int32Array.from({ length: rows }, (_, i) => i) });
  const tensors = [put([rows, cols]), put([cols]), put([rows, cols]), labels];
  const { graph, program } = build(trace(f, tensors).graph);
  const executable = device.compile(program);
  const outputs = graph.outputs.map(({ shape }) => device.allocate(Math.max(4, 4 * sizeOf(shape))));
  const buffers = tensors.map((tensor) => tensor.buffer as DeviceBuffer);
  // The kernel that stores at every column is the one in question; beside it there are sums of one row's losses.
  const at = program.steps.findIndex(({ kernel: k }) => k.kind === "row" && k.phases.some((p) => p.kind === "each"));
  const { kernel } = program.steps[at];
  let best = Infinity;
  for (let i = 0; i <= runs; i++) best = Math.min(best, (await executable.time!(buffers, outputs))[at]);
  const { tiling } = emitWgsl(kernel, device.tileFor(kernel));
  const speed = (bytesOf(kernel) / best / 1e6).toFixed(1);
  console.log(`${name.padEnd(30)} ${rows} x ${cols}: ${best.toFixed(3)} ms, ${speed} GB/s (${tiling})`);
  executable.free();
  outputs.forEach((buffer) => device.free(buffer));
  tensors.forEach((tensor) => tensor.dispose());
}
