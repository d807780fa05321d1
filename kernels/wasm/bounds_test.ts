import { assertEquals } from "@std/assert";
import { type HostArray, storageBytes } from "../../core/dtype.ts";
import type { ContractKernel, Kernel } from "../ir/kernel.ts";
import { fill, launchesOf, numbers } from "../../testing/check_kernel.ts";
import { kernelCases } from "../../testing/kernel_cases.ts";
import { emitKernel } from "./emit.ts";
import { supportsRelaxedSimd } from "./probe.ts";

const guard = 256;

/** The blocks of memory, operands and scratch, past whose end a kernel writes. */
function overruns(kernel: Kernel, buffers: readonly HostArray[], relaxed: boolean): string[] {
  const emitted = emitKernel(kernel, { shared: false, relaxed });
  const sizes = [...kernel.operands.map((o) => storageBytes(o.dtype, o.size)), emitted.scratchBytes];
  const table = 64 + Math.ceil(kernel.operands.length / 16) * 64;
  let end = table;
  const starts = sizes.map((bytes) => {
    const start = end + guard;
    end = start + Math.ceil(bytes / 64) * 64 + guard;
    return start;
  });
  const memory = new WebAssembly.Memory({ initial: Math.ceil(end / 65536) + 1, maximum: 65536 });
  const bytes = new Uint8Array(memory.buffer).fill(0xab);
  buffers.forEach((data, i) => bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), starts[i]));
  new Int32Array(memory.buffer, 64, kernel.operands.length).set(starts.slice(0, -1));
  const instance = new WebAssembly.Instance(new WebAssembly.Module(emitted.bytes), { m: { m: memory } });
  (instance.exports.run as (...args: number[]) => void)(64, starts.at(-1)!, 0, emitted.units);
  return sizes.flatMap((size, i) => {
    const after = starts[i] + Math.ceil(size / 64) * 64;
    const touched = bytes.subarray(after, after + guard).findIndex((byte) => byte !== 0xab);
    return touched < 0 ? [] : [`${kernel.operands[i] ? `operand ${i}` : "scratch"}, ${touched} bytes past its end`];
  });
}

/** What merging an adapter of rank 8 into a transposed layer is lowered to: tiles of six rows, packed by depth. */
const merge: ContractKernel = {
  kind: "contract",
  operands: [
    { dtype: "f32", size: 8 * 192, access: "read" },
    { dtype: "f32", size: 8 * 576, access: "read" },
    { dtype: "f32", size: 192 * 576, access: "write" },
  ],
  batch: [],
  m: 192,
  n: 576,
  segments: [{
    k: 8,
    a: { operand: 0, index: { offset: 0, strides: [1, 192] } },
    b: { operand: 1, index: { offset: 0, strides: [1, 8] } },
  }],
  stores: [{ operand: 2, index: { offset: 0, strides: [576, 1] }, value: { kind: "result", type: "f32", phase: 0 } }],
};

Deno.test("no kernel writes past the end of what it is given", () => {
  const next = numbers(1);
  const buffers = merge.operands.map((operand) => fill(operand, next));
  for (const { name, ...given } of [...kernelCases(), { name: "merge", kernel: merge, buffers }]) {
    for (const { kernel, buffers } of launchesOf(given.kernel)) {
      const own = buffers.map(({ id }) => given.buffers[id]);
      assertEquals(overruns(kernel, own, supportsRelaxedSimd()), [], name);
    }
  }
});
