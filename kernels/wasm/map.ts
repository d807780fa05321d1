/** Elementwise kernels: the innermost axis in vectors, the rest flattened and split into blocks. */
import { sizeOf } from "../../core/aval.ts";
import type { MapKernel } from "../ir/kernel.ts";
import { type EmitOptions, type EmittedKernel, KernelFrame, pointsPerCall } from "./frame.ts";
import { PointEmitter } from "./point.ts";

export function emitMap(kernel: MapKernel, options: EmitOptions): EmittedKernel {
  const { stores } = kernel, shape = kernel.shape.length > 0 ? kernel.shape : [1];
  const outer = shape.slice(0, -1), length = shape[shape.length - 1];
  const block = Math.min(length, pointsPerCall), blocks = Math.ceil(length / block);

  const frame = new KernelFrame(kernel.operands, options);
  const { code, unit, pointers } = frame;
  const row = code.local("i32"), column = code.local("i32"), limit = code.local("i32");
  frame.eachUnit(() => {
    code.get(unit).i32(blocks).op("i32.div_u").set(row);
    code.get(unit).i32(blocks).op("i32.rem_u").i32(block).op("i32.mul").tee(column);
    code.i32(block).op("i32.add").set(limit).limit(limit, { constant: length });
    const axes = [...frame.unflatten(row, outer), column];
    const last = axes.length - 1;
    const space = {
      code,
      relaxed: options.relaxed,
      operands: kernel.operands,
      pointers,
      axes,
      laneAxis: last,
      loopAxis: last,
    };
    const point = new PointEmitter(space);
    point.hoist([], stores);
    if (length >= 4) code.loopUpTo(column, limit, 4, () => point.store(stores, 4));
    if (length % 4 !== 0) code.loopUpTo(column, limit, 1, () => point.store(stores, 1));
  });
  return frame.finish(sizeOf(outer) * blocks, pointsPerCall / block);
}
