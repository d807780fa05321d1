/** Every back end, however its kernels are cut, computes every kernel of the table as the interpreter does. */
import { assert, assertEquals } from "@std/assert";
import type { HostArray } from "../../core/dtype.ts";
import { openWebGpu } from "../../kernels/device/webgpu.ts";
import { gpuTile, softwareTile, type TileConfig } from "../../kernels/wgsl/tile.ts";
import { type DeviceCase, devices, withoutWebGpu } from "../devices.ts";
import { runKernel, values } from "../reference/check_kernel.ts";
import type { KernelCase } from "../reference/cases/build.ts";
import { kernelCases } from "../reference/kernel_cases.ts";
import { interpretKernel } from "../reference/kernel_interpreter.ts";

const tiles: readonly TileConfig[] = [
  gpuTile,
  softwareTile,
  {
    ...gpuTile,
    name: "small",
    mapLanes: 32,
    rowLanes: 16,
    workgroup: [4, 2],
    blocks: [1, 2],
    depth: 8,
    slices: 1,
    attention: [4, 2],
    window: 98_304,
  },
];
const cut: readonly DeviceCase[] = tiles.map((tile) => ({
  name: `webgpu with the ${tile.name} tile`,
  open: () => openWebGpu({ tile }),
}));
const cpus = devices.filter(({ name }) => !name.startsWith("webgpu"));

for (const { name, open } of [...cpus, ...(withoutWebGpu === null ? cut : [])]) {
  Deno.test(`kernels on ${name}`, async (t) => {
    using device = await open();
    for (const test of kernelCases()) {
      await t.step(test.name, async () => {
        const expected = test.buffers.map((buffer) => buffer.slice());
        interpretKernel(test.kernel, expected);
        const got = await runKernel(device, test.kernel, test.buffers);
        test.kernel.operands.forEach((_, i) => compare(test, i, got[i], expected[i]));
      });
    }
  });
}

/** Integers and moved elements agree exactly; floats within the case's bound. */
function compare({ kernel, ulp }: KernelCase, i: number, got: HostArray, expected: HostArray): void {
  const operand = kernel.operands[i];
  const [have, want] = [values(operand, got), values(operand, expected)];
  assertEquals(have.length, want.length);
  want.forEach((y, at) => {
    const x = have[at];
    if (x === y || Object.is(x, y)) return;
    const bound = ulp * 2 ** -24 * Math.max(1, Math.abs(y));
    const near = operand.dtype === "f32" && Math.abs(x - y) <= bound;
    assert(near, `operand ${i}, element ${at}: got ${x}, expected ${y} within ${bound}`);
  });
}
