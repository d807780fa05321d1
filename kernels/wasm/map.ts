/** Elementwise kernels: the innermost axis in vectors, the rest flattened and split into blocks. */
import type { EmittedKernel, KernelFrame } from "./frame.ts";
import { PointEmitter } from "./point.ts";

export function emitMap(frame: KernelFrame<"map">): EmittedKernel {
  const { kernel, schedule: { block }, code, unit } = frame;
  const { stores } = kernel, shape = kernel.shape.length > 0 ? kernel.shape : [1];
  const outer = shape.slice(0, -1), length = shape[shape.length - 1];
  const blocks = Math.ceil(length / block);
  const row = code.local("i32"), column = code.local("i32"), limit = code.local("i32");
  frame.eachUnit(() => {
    code.get(unit).i32(blocks).op("i32.div_u").set(row);
    code.get(unit).i32(blocks).op("i32.rem_u").i32(block).op("i32.mul").tee(column);
    code.i32(block).op("i32.add").set(limit).limit(limit, { constant: length });
    const axes = [...frame.unflatten(row, outer), column];
    const point = new PointEmitter(frame.space(axes));
    point.hoist([], stores);
    if (length >= 4) code.loopUpTo(column, limit, 4, () => point.store(stores, 4));
    if (length % 4 !== 0) code.loopUpTo(column, limit, 1, () => point.store(stores, 1));
  });
  return frame.finish();
}
