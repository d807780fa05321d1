/** Subgroups: the lanes of a workgroup that run in step and can add up among themselves. The one place that knows how to ask. */
import { readBack } from "./readback.ts";

/** What a device's subgroups are like. */
export interface Subgroups {
  /** Lanes of each; 0 where there are none that kernels may rely on. */
  readonly size: number;
  /** What a shader that uses them begins with: browsers demand the directive, and Deno refuses it. */
  readonly directive: "" | "enable subgroups; ";
}

const none: Subgroups = { size: 0, directive: "" };
const lanes = 256;

/** Each lane tells the size of its subgroup and its number in it: kernels take lanes side by side to be together. */
const probe = `
@group(0) @binding(0) var<storage, read_write> out: array<vec2<u32>>;
@compute @workgroup_size(${lanes})
fn main(@builtin(local_invocation_index) lane: u32, @builtin(subgroup_size) size: u32,
        @builtin(subgroup_invocation_id) number: u32) {
  out[lane] = vec2<u32>(subgroupMax(size), number);
}`;

/**
 * Asks the device itself, by running a shader: what adapters say of subgroups is not to be relied on. Where sizes have a
 * range, the driver picks one for each shader, and what the probe finds says nothing of the next.
 */
export async function findSubgroups(gpu: GPUDevice): Promise<Subgroups> {
  if (!gpu.features.has("subgroups" as GPUFeatureName)) return none;
  const { subgroupMinSize: least, subgroupMaxSize: most } = gpu.adapterInfo ?? {};
  if (least === undefined || least !== most) return none;
  for (const directive of ["", "enable subgroups; "] as const) {
    const found = await run(gpu, directive);
    if (found === null) continue;
    const size = found[0];
    const side = found.every((value, i) => value === (i % 2 === 0 ? size : Math.floor(i / 2) % size));
    return side && size > 1 && lanes % size === 0 ? { size, directive } : none;
  }
  return none;
}

/** What the probe writes, or null where it does not compile. */
async function run(gpu: GPUDevice, directive: string): Promise<Uint32Array | null> {
  const bytes = lanes * 8;
  gpu.pushErrorScope("validation");
  const module = gpu.createShaderModule({ code: directive + probe.trim() });
  const pipeline = gpu.createComputePipeline({ layout: "auto", compute: { module, entryPoint: "main" } });
  if (await gpu.popErrorScope()) return null;
  const out = gpu.createBuffer({ size: bytes, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC });
  const staging = gpu.createBuffer({ size: bytes, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const encoder = gpu.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  const layout = pipeline.getBindGroupLayout(0);
  pass.setBindGroup(0, gpu.createBindGroup({ layout, entries: [{ binding: 0, resource: { buffer: out } }] }));
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(out, 0, staging, 0, bytes);
  gpu.queue.submit([encoder.finish()]);
  const contents = await readBack([staging]);
  out.destroy();
  return "failed" in contents ? null : new Uint32Array(contents[0]);
}
