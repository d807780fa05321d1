/** Matrix products: plain loops over any layout, four columns at a time. */
import { sizeOf } from "../../core/aval.ts";
import type { ContractKernel, Expr } from "../kernel.ts";
import { type EmitOptions, type EmittedKernel, KernelFrame, pointsPerCall } from "./frame.ts";
import { AxisRewriter } from "./iteration.ts";
import { PointEmitter, type Space } from "./point.ts";

export function emitContract(kernel: ContractKernel, options: EmitOptions): EmittedKernel {
  const { batch, m, n, segments, stores } = kernel;
  const rank = batch.length + 3, mAxis = rank - 3, nAxis = rank - 2, kAxis = rank - 1;
  const outer = batch.map((_, i) => i);
  const rewriteA = new AxisRewriter([...outer, mAxis, kAxis], rank);
  const rewriteB = new AxisRewriter([...outer, kAxis, nAxis], rank);
  const rewriteStore = new AxisRewriter([...outer, mAxis, nAxis], rank);
  const epilogue = stores.map((store) => rewriteStore.store(store));

  const frame = new KernelFrame(kernel.operands, options);
  const { code, unit, pointers } = frame;
  const column = code.local("i32"), k = code.local("i32"), sum = code.local("v128");
  frame.eachUnit(() => {
    const axes = [...frame.unflatten(unit, [...batch, m]), column, k];
    const base = { code, relaxed: options.relaxed, operands: kernel.operands, pointers, axes, laneAxis: nAxis };
    const result: Space["result"] = { axes: (1 << mAxis) | (1 << nAxis), push: () => code.get(sum) };
    const columns = (lanes: 1 | 4) => () => {
      code.f32x4(0).set(sum);
      for (const segment of segments) {
        const load = (rewriter: AxisRewriter, { operand, index }: typeof segment.a): Expr => ({
          kind: "load",
          type: "f32",
          operand,
          index: rewriter.index(index),
        });
        const a = load(rewriteA, segment.a), b = load(rewriteB, segment.b);
        const point = new PointEmitter({ ...base, loopAxis: kAxis });
        code.i32(0).set(k);
        point.hoist([a, b], [], lanes);
        code.loopUpTo(k, { constant: segment.k }, 1, () => {
          if (!options.relaxed) code.get(sum);
          point.push(a, lanes);
          point.push(b, lanes);
          if (options.relaxed) code.get(sum).op("f32x4.relaxed_madd").set(sum);
          else code.op("f32x4.mul", "f32x4.add").set(sum);
        });
      }
      const point = new PointEmitter({ ...base, loopAxis: nAxis, result });
      point.hoist([], epilogue, lanes);
      point.store(epilogue, lanes);
    };
    code.i32(0).set(column);
    if (n >= 4) code.loopUpTo(column, { constant: n }, 4, columns(4));
    if (n % 4 !== 0) code.loopUpTo(column, { constant: n }, 1, columns(1));
  });
  const depth = segments.reduce((total, segment) => total + segment.k, 0);
  return frame.finish(sizeOf(batch) * m, pointsPerCall / (n * depth));
}
