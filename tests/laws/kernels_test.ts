/** Every back end, however its kernels are tiled, computes every kernel of the table as the interpreter does. */
import { assert, assertEquals } from "@std/assert";
import type { HostArray } from "../../core/dtype.ts";
import type { Device } from "../../kernels/device/device.ts";
import { openWebGpu } from "../../kernels/device/webgpu/webgpu.ts";
import { candidates } from "../../kernels/tune/tune.ts";
import { representatives } from "../../kernels/tune/kernels.ts";
import { emitWgsl } from "../../kernels/wgsl/emit.ts";
import { defaultTile, gpuTile, softwareTile, type TileConfig } from "../../kernels/wgsl/tile.ts";
import { type DeviceCase, devices, withoutWebGpu } from "../devices.ts";
import { runKernel, values } from "../../testing/check_kernel.ts";
import type { KernelCase } from "../../testing/cases/build.ts";
import { kernelCases } from "../../testing/kernel_cases.ts";
import { interpretKernel } from "../../testing/kernel_interpreter.ts";

/** Lanes of the adapter's subgroups. */
async function subgroupLanes(): Promise<number> {
  if (withoutWebGpu !== null) return 0;
  using device = await openWebGpu();
  return device.subgroups.size;
}
const lanes = await subgroupLanes();

const tiles: readonly TileConfig[] = [
  gpuTile,
  defaultTile(true, lanes),
  {
    ...gpuTile,
    name: "small",
    mapLanes: 32,
    rowLanes: 16,
    subgroups: 0,
    workgroup: [4, 2],
    blocks: [1, 2],
    depth: 8,
    splitK: 1,
    attention: [4, 2],
    window: 98_304,
  },
];
const tiled: readonly DeviceCase[] = tiles.map((tile) => ({
  name: `webgpu with the ${tile.name} tile`,
  open: () => openWebGpu({ tile }),
}));
const cpus = devices.filter(({ name }) => !name.startsWith("webgpu"));

for (const { name, open } of [...cpus, ...(withoutWebGpu === null ? tiled : [])]) {
  Deno.test(`kernels on ${name}`, async (t) => {
    using device = await open();
    for (const test of kernelCases()) {
      await t.step(test.name, () => check(device, test));
    }
  });
}

/** The tiles that tuning chooses from, and the kinds of kernels that they are for. */
function tunedTiles(): { readonly tile: TileConfig; readonly kinds: ReadonlySet<string> }[] {
  const found = new Map<string, { tile: TileConfig; kinds: Set<string> }>();
  for (const { shapeClass } of representatives()) {
    for (const tile of [gpuTile, softwareTile].flatMap((base) => candidates(shapeClass, base, lanes))) {
      const key = JSON.stringify({ ...tile, name: "" });
      if (!found.has(key)) found.set(key, { tile, kinds: new Set() });
      found.get(key)!.kinds.add(shapeClass.split(" ")[0]);
    }
  }
  return [...found.values()];
}

// The rest of the law: no tile that tuning could choose computes anything else. Compiling is what takes time, so a shader
// runs once, also where several tiles give the same kernel, and each tile meets every seventh of the kernels, another seventh
// than the tile before; EVERY_TILE=1 is for all. How 16-bit and packed operands are read does not depend on the tile.
const unpacked = new Set(["f32", "i32", "bool"]);
const stride = Deno.env.get("EVERY_TILE") ? 1 : 7;
Deno.test({ name: "kernels on webgpu with every tile of tuning", ignore: withoutWebGpu !== null }, async (t) => {
  const done = new Set(kernelCases().flatMap(({ kernel }) => tiles.map((tile) => emitWgsl(kernel, tile).text)));
  for (const [nth, { tile, kinds }] of tunedTiles().entries()) {
    using device = await openWebGpu({ tile });
    for (const [at, test] of kernelCases().entries()) {
      if (at % stride !== nth % stride) continue;
      const { operands, kind } = test.kernel;
      if (!kinds.has(kind) || !operands.every(({ dtype }) => unpacked.has(dtype))) continue;
      const { text } = emitWgsl(test.kernel, tile);
      if (done.has(text)) continue;
      done.add(text);
      await t.step(`${tile.name}: ${test.name}`, () => check(device, test));
    }
  }
});

async function check(device: Device, test: KernelCase): Promise<void> {
  const expected = test.buffers.map((buffer) => buffer.slice());
  interpretKernel(test.kernel, expected);
  const got = await runKernel(device, test.kernel, test.buffers);
  test.kernel.operands.forEach((_, i) => compare(test, i, got[i], expected[i]));
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
