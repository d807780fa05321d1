import { assertEquals } from "@std/assert";
import { findSubgroups } from "./subgroups.ts";

const lanes = 256;

/** A device whose subgroups have `size` lanes numbered by `numberOf`, and whose compiler takes the shaders that `compiles` says. */
function deviceWith(
  size: number,
  compiles: (code: string) => boolean,
  numberOf = (lane: number) => lane % size,
): GPUDevice {
  let refused = false;
  const pass = { setPipeline() {}, setBindGroup() {}, dispatchWorkgroups() {}, end() {} };
  const buffer = {
    mapAsync: () => Promise.resolve(),
    getMappedRange: () => Uint32Array.from({ length: 2 * lanes }, (_, i) => i % 2 ? numberOf(i >> 1) : size).buffer,
    destroy() {},
  };
  return {
    features: new Set(size > 0 ? ["subgroups"] : []),
    adapterInfo: { subgroupMinSize: size, subgroupMaxSize: size },
    pushErrorScope() {},
    createShaderModule: ({ code }: { code: string }) => void (refused = !compiles(code)),
    popErrorScope: () => Promise.resolve(refused ? { message: "refused" } : null),
    createComputePipeline: () => ({ getBindGroupLayout() {} }),
    createBuffer: () => buffer,
    createBindGroup() {},
    createCommandEncoder: () => ({ beginComputePass: () => pass, copyBufferToBuffer() {}, finish() {} }),
    queue: { submit() {} },
  } as unknown as GPUDevice;
}
const demanded = (code: string) => code.startsWith("enable subgroups;");

Deno.test("subgroups are found with the directive where it is demanded, and without where it is refused", async () => {
  assertEquals(await findSubgroups(deviceWith(32, demanded)), { size: 32, directive: "enable subgroups; " });
  assertEquals(await findSubgroups(deviceWith(8, (code) => !demanded(code))), { size: 8, directive: "" });
});

Deno.test("subgroups that kernels can't rely on are not used: absent, refused, or with lanes in another order", async () => {
  const none = { size: 0, directive: "" } as const;
  assertEquals(await findSubgroups(deviceWith(0, () => true)), none);
  assertEquals(await findSubgroups(deviceWith(32, () => false)), none);
  assertEquals(await findSubgroups(deviceWith(1, () => true)), none);
  assertEquals(await findSubgroups(deviceWith(32, () => true, (lane) => lane >> 3)), none);
});

Deno.test("subgroups whose size the driver picks for each shader, or that is unknown, are not relied on", async () => {
  for (const adapterInfo of [{ subgroupMinSize: 8, subgroupMaxSize: 32 }, {}, undefined]) {
    const gpu = { ...deviceWith(32, () => true), adapterInfo };
    assertEquals(await findSubgroups(gpu as unknown as GPUDevice), { size: 0, directive: "" });
  }
});
