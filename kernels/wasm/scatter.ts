/** Scatter-add: each unit owns a range of targets and walks all indices in order, so sums have one order. */
import type { EmittedKernel, KernelFrame } from "./frame.ts";

export function emitScatter(frame: KernelFrame<"scatter">): EmittedKernel {
  const { kernel: { count, cols, targets }, schedule: { block } } = frame;
  const { code, unit, pointers: [indices, updates, out] } = frame;
  const [first, last, i, target, from, to, column] = Array.from({ length: 7 }, () => code.local("i32"));
  const rowBytes = cols * 4;
  frame.eachUnit(() => {
    code.get(unit).i32(block).op("i32.mul").tee(first).i32(block).op("i32.add").set(last);
    code.limit(last, { constant: targets });
    code.get(out).get(first).i32(rowBytes).op("i32.mul", "i32.add").i32(0);
    code.get(last).get(first).op("i32.sub").i32(rowBytes).op("i32.mul").fill();
    code.i32(0).set(i);
    code.loopUpTo(i, { constant: count }, 1, () => {
      code.get(indices).get(i).i32(4).op("i32.mul", "i32.add").memory("i32.load").tee(target);
      code.get(first).op("i32.ge_s").get(target).get(last).op("i32.lt_s", "i32.and").when(() => {
        code.get(updates).get(i).i32(rowBytes).op("i32.mul", "i32.add").set(from);
        code.get(out).get(target).i32(rowBytes).op("i32.mul", "i32.add").set(to);
        code.i32(0).set(column);
        const advance = (bytes: number) => {
          for (const address of [from, to]) code.get(address).i32(bytes).op("i32.add").set(address);
        };
        if (cols >= 4) {
          code.loopUpTo(column, { constant: cols }, 4, () => {
            code.get(to).get(to).memory("v128.load").get(from).memory("v128.load").op("f32x4.add").memory("v128.store");
            advance(16);
          });
        }
        if (cols % 4 !== 0) {
          code.loopUpTo(column, { constant: cols }, 1, () => {
            code.get(to).get(to).memory("v128.load32_zero").get(from).memory("v128.load32_zero").op("f32x4.add");
            code.laneMemory("v128.store32_lane", 0);
            advance(4);
          });
        }
      });
    });
  });
  return frame.finish();
}
