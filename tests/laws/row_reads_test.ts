/** How often a row kernel reads its operands, counted on the device while it runs. */
import { assert, assertEquals } from "@std/assert";
import { storageBytes } from "../../core/dtype.ts";
import { openWebGpu, type WebGpuDevice } from "../../kernels/device/webgpu/webgpu.ts";
import type { RowKernel } from "../../kernels/ir/kernel.ts";
import { emitWgsl } from "../../kernels/wgsl/emit.ts";
import type { WgslShader } from "../../kernels/wgsl/shader.ts";
import { gpuTile, softwareTile, type TileConfig } from "../../kernels/wgsl/tile.ts";
import { withoutWebGpu } from "../devices.ts";
import { rowFunctions, rowKernelOf } from "../../testing/cases/row.ts";

/** The shader with every read of operand i, `in0[…]`, counted at place i of one more binding. */
function counting(shader: WgslShader, kernel: RowKernel): string {
  const [head, main] = shader.text.split("@compute");
  const functions = kernel.operands.flatMap(({ access }, i) => {
    const type = new RegExp(`> in${i}: array<(.*)>;`).exec(head)?.[1];
    return access === "read" && type !== undefined
      ? [`fn read_in${i}(i: u32) -> ${type} {\n  atomicAdd(&reads[${i}], 1u);\n  return in${i}[i];\n}\n`]
      : [];
  });
  const counts = `@group(0) @binding(${shader.bindings.length}) var<storage, read_write> reads: array<atomic<u32>>;\n`;
  return `${head}${counts}${functions.join("")}@compute${main.replace(/\bin(\d+)\[([^\][]*)\]/g, "read_in$1($2)")}`;
}

/** The elements that a kernel reads of each of its operands. */
async function readsOf(device: WebGpuDevice, kernel: RowKernel, tile: TileConfig): Promise<number[]> {
  const shader = emitWgsl(kernel, tile);
  const buffers = kernel.operands.map(({ dtype, size }) => device.allocate(storageBytes(dtype, size)));
  const counts = device.allocate(4 * kernel.operands.length);
  const bindings = [...shader.bindings, { operand: kernel.operands.length, start: 0 }];
  const pipeline = device.pipelines.take({ ...shader, text: counting(shader, kernel), bindings });
  const bound = [...shader.bindings.map(({ operand }) => buffers[operand]), counts];
  const encoder = device.gpu.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline.gpu);
  const entries = bound.map(({ gpu }, binding) => ({ binding, resource: { buffer: gpu } }));
  pass.setBindGroup(0, device.gpu.createBindGroup({ layout: device.pipelines.layout(bound.length), entries }));
  pass.dispatchWorkgroups(...shader.grid);
  pass.end();
  device.gpu.queue.submit([encoder.finish()]);
  const [reads] = await device.read([{ buffer: counts, dtype: "u32", size: kernel.operands.length }]);
  [...buffers, counts].forEach((buffer) => device.free(buffer));
  const isWide = (i: number) => shader.text.includes(` in${i}: array<vec4<`);
  return kernel.operands.map((_, i) => reads[i] * (isWide(i) ? 4 : 1));
}

/** Of these each operand along the row is read once; longer rows and rows of one lane are read twice at most. */
const kept = [[gpuTile, 512], [gpuTile, 4096], [{ ...gpuTile, rowLanes: 8 }, 1024], [softwareTile, 16]] as const;
const streamed = [[gpuTile, 40_000], [softwareTile, 768], [{ ...gpuTile, rowLanes: 256 }, 50_257]] as const;

Deno.test({
  name: "a row that registers hold is read once, and any other once for its statistics and once for what is stored",
  ignore: withoutWebGpu !== null,
}, async () => {
  using device = await openWebGpu();
  const rows = 3;
  for (const [name, f] of Object.entries(rowFunctions)) {
    for (const [most, cuts] of [[1, kept], [2, streamed]] as const) {
      for (const [tile, cols] of cuts) {
        const kernel = rowKernelOf(f, rows, cols);
        const { tiling } = emitWgsl(kernel, tile);
        const reads = await readsOf(device, kernel, tile);
        kernel.operands.forEach(({ access, size }, i) => {
          if (access !== "read" || size < cols) return;
          const message = `${name} of ${cols} with the ${tile.name} tile reads operand ${i} too often (${tiling})`;
          assert(reads[i] > 0 && reads[i] <= most * rows * cols, `${message}: ${reads[i]} of ${rows * cols}`);
        });
        const passes = kernel.phases.some(({ kind }) => kind === "each") ? "read twice" : "read once";
        assertEquals(tiling.split(", ")[1], most === 1 ? "kept in registers" : passes, name);
      }
    }
  }
});
