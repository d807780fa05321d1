/** Every back end computes every kernel of the table as the interpreter does. */
import { assert, assertEquals } from "@std/assert";
import { fromBf16, fromF16, type HostArray } from "../../core/dtype.ts";
import type { Device } from "../../kernels/device/device.ts";
import { openWebGpu } from "../../kernels/device/webgpu.ts";
import { gpuTile, softwareTile, type TileConfig } from "../../kernels/wgsl/tile.ts";
import type { BufferRef, Kernel, Program } from "../../kernels/kernel.ts";
import { type KernelCase, kernelCases } from "../reference/kernel_cases.ts";
import { interpretKernel } from "../reference/kernel_interpreter.ts";

const tiles: readonly TileConfig[] = [
  softwareTile,
  gpuTile,
  { ...gpuTile, name: "small", mapLanes: 32, rowLanes: 16, workgroup: [4, 2], blocks: [1, 2], depth: 8 },
];
const devices: readonly { readonly name: string; open(): Promise<Device> | Device }[] = [
  ...tiles.map((tile) => ({ name: `webgpu, ${tile.name} tile`, open: () => openWebGpu({ tile }) })),
];

for (const { name, open } of devices) {
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

/** Runs one kernel with every operand in a buffer of its own, and reads all of them back. */
function runKernel(device: Device, kernel: Kernel, buffers: readonly HostArray[]): Promise<HostArray[]> {
  const refs = kernel.operands.map((_, index): BufferRef => ({ kind: "argument", index }));
  const program: Program = {
    arguments: kernel.operands.map(({ dtype, size }) => ({ dtype, size })),
    outputs: [],
    arenaBytes: 0,
    steps: [{ kernel, buffers: refs }],
  };
  const args = buffers.map((data) => {
    const buffer = device.allocate(data.byteLength);
    device.write(buffer, data);
    return buffer;
  });
  const executable = device.compile(program);
  executable.run(args, []);
  const result = device.read(kernel.operands.map(({ dtype, size }, i) => ({ buffer: args[i], dtype, size })));
  return result.finally(() => {
    executable.free();
    args.forEach((buffer) => device.free(buffer));
  });
}

function compare({ kernel, ulp }: KernelCase, operand: number, got: HostArray, want: HostArray): void {
  const { dtype } = kernel.operands[operand];
  assertEquals(got.length, want.length);
  const widen = dtype === "f16" ? fromF16 : dtype === "bf16" ? fromBf16 : (x: number) => x;
  for (let i = 0; i < want.length; i++) {
    if (Object.is(got[i], want[i])) continue;
    const [x, y] = [widen(got[i]), widen(want[i])];
    const bound = ulp * 2 ** -24 * Math.max(1, Math.abs(y));
    if (x === y) continue;
    assert(dtype === "f32" && Math.abs(x - y) <= bound, `operand ${operand}, element ${i}: got ${x}, expected ${y}`);
  }
}
