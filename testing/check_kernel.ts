/** Runs single kernels on a device and compares them with the interpreter. */
import { fromBf16, fromF16, type HostArray, hostArray, storageBytes, toBf16, toF16 } from "../core/dtype.ts";
import { isPacked } from "../core/packed/blocks.ts";
import { randomPacked } from "./packed_reference.ts";
import type { Device } from "../kernels/device/device.ts";
import type { Kernel, Operand, Program } from "../kernels/ir/kernel.ts";
import { type Access, Rewriter } from "../kernels/ir/expr.ts";
import { type Body, type Launch, launchOf } from "../kernels/lower/body.ts";
import { withoutEmptyAxes } from "../kernels/lower/empty_axes.ts";
import type { Memory } from "../kernels/lower/repr.ts";
import { interpretKernel } from "./kernel_interpreter.ts";

/** A small generator of repeatable numbers in [0, 1): mulberry32. */
export function numbers(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Values for an operand: floats about 0, small integers, 0 or 1 for bool. */
export function fill(operand: Operand, next: () => number): HostArray {
  if (isPacked(operand.dtype)) return randomPacked(operand.dtype, operand.size, Math.floor(next() * 1e6));
  const data = hostArray(operand.dtype, operand.size);
  for (let i = 0; i < data.length; i++) {
    const x = 2 * next() - 1;
    if (operand.dtype === "bool") data[i] = x > -0.5 ? 1 : 0;
    else if (operand.dtype === "i32" || operand.dtype === "u32") data[i] = Math.floor((x + 1) * 50);
    else data[i] = operand.dtype === "f16" ? toF16(x) : operand.dtype === "bf16" ? toBf16(x) : x;
  }
  return data;
}

/** The launches that lowering makes of a kernel: its axes folded, none of them empty. */
export function launchesOf(kernel: Kernel): Launch[] {
  const { operands } = kernel;
  const buffers = operands.map(({ dtype, size }, id) => ({ id, dtype, size, argument: id }));
  const given = kernel.kind === "scatter" || kernel.kind === "attention"
    ? { kernel, buffers }
    : bodyOf(kernel, buffers);
  return withoutEmptyAxes(given).map((body) => "kernel" in body ? body : launchOf(body));
}

function bodyOf(kernel: Exclude<Kernel, { kind: "scatter" | "attention" }>, buffers: Launch["buffers"]): Body {
  const shape = kernel.kind === "map"
    ? kernel.shape
    : kernel.kind === "row"
    ? [...kernel.rows, kernel.cols]
    : [...kernel.batch, kernel.m, kernel.n];
  const axes = shape.map((_, i) => i);
  const to = new Rewriter<number, Memory>({
    operand: (o) => buffers[o],
    leaf: (e) => {
      if (e.kind !== "axis") return null;
      return {
        ...e,
        kind: "load",
        operand: "counter",
        index: { offset: 0, strides: axes.map((i) => +(i === e.axis)) },
      };
    },
  });
  switch (kernel.kind) {
    case "map":
      return { kind: "map", shape, stores: kernel.stores.map((s) => to.store(s)) };
    case "row": {
      const phases = kernel.phases.map((p) =>
        p.kind === "reduce" ? { ...p, value: to.expr(p.value) } : { ...p, stores: p.stores.map((s) => to.store(s)) }
      );
      return { kind: "row", shape, rows: axes.slice(0, -1), columns: axes.slice(-1), phases };
    }
    case "contract": {
      const batch = kernel.batch.length;
      const side = ({ operand, index }: Access, k: number) => {
        const strides = index.strides.with(k, 0);
        return { operand: buffers[operand], index: to.index({ ...index, strides }), step: index.strides[k] };
      };
      const segments = kernel.segments.map((s) => ({ ...s, a: side(s.a, batch + 1), b: side(s.b, batch) }));
      return { kind: "contract", shape, batch, free: 1, segments, stores: kernel.stores.map((s) => to.store(s)) };
    }
  }
}

/** The program of one kernel, each operand an argument that it writes in place. */
export function programOf(kernel: Kernel): Program {
  const steps = launchesOf(kernel).map(({ kernel, buffers }) => ({
    kernel,
    buffers: buffers.map(({ id }) => ({ kind: "argument" as const, index: id })),
  }));
  return { arguments: kernel.operands, outputs: [], arenaBytes: 0, steps };
}

/** What a kernel leaves in each of its operands on a device. */
export async function runKernel(device: Device, kernel: Kernel, data: readonly HostArray[]): Promise<HostArray[]> {
  const buffers = kernel.operands.map((o) => device.allocate(Math.max(4, storageBytes(o.dtype, o.size))));
  data.forEach((array, i) => device.write(buffers[i], array));
  const executable = device.compile(programOf(kernel));
  executable.run(buffers, []);
  const results = await device.read(kernel.operands.map(({ dtype, size }, i) => ({ buffer: buffers[i], dtype, size })));
  executable.free();
  for (const buffer of buffers) device.free(buffer);
  return results;
}

/** Elements as numbers: 16-bit floats are widened. */
export function values(operand: Operand, data: HostArray): number[] {
  const widen = operand.dtype === "f16" ? fromF16 : operand.dtype === "bf16" ? fromBf16 : (x: number) => x;
  return Array.from(data, widen);
}

/**
 * The worst difference between device and interpreter over the operands that the kernel writes, relative to the largest
 * magnitude of that operand (or 1).
 */
export async function worstError(device: Device, kernel: Kernel, data: readonly HostArray[]): Promise<number> {
  const expected = data.map((array) => array.slice() as HostArray);
  const got = await runKernel(device, kernel, data);
  interpretKernel(kernel, expected);
  let worst = 0;
  kernel.operands.forEach((operand, i) => {
    if (operand.access === "read") return;
    const want = values(operand, expected[i]), have = values(operand, got[i]);
    const scale = want.reduce((most, x) => Number.isFinite(x) ? Math.max(most, Math.abs(x)) : most, 1);
    want.forEach((x, j) => {
      const error = Object.is(x, have[j]) || x === have[j] ? 0 : Math.abs(x - have[j]) / scale;
      worst = Math.max(worst, Number.isNaN(error) ? Infinity : error);
    });
  });
  return worst;
}
