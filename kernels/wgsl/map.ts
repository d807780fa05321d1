import { sizeOf } from "../../core/aval.ts";
import type { MapKernel } from "../ir/kernel.ts";
import { axesUsed, isContiguous, splitAxes } from "./axes.ts";
import { accessesOf, type Index, rootsOf, walk } from "../ir/expr.ts";
import type { Schedule } from "./schedule.ts";
import { Scope } from "./scope.ts";
import { ShaderWriter, type WgslShader } from "./shader.ts";

/**
 * A map: one invocation per point, or per four neighbouring points of the last axis where the operands allow it. A map
 * whose operands are all whole arrays or single elements runs over one flat axis of any length.
 */
export function emitMap(kernel: MapKernel, schedule: Schedule<"map">): WgslShader {
  const { shape, stores, operands } = kernel, { unit, flat, workgroupSize } = schedule;
  const exprs = [...walk(rootsOf(stores))];
  const total = sizeOf(shape), last = shape.length - 1, vector = unit === 4;
  const shader = new ShaderWriter(`map [${shape.join(",")}]`, operands, schedule);
  shader.tiling = vector ? "four points a lane" : "one point a lane";
  const points = Math.ceil(total / unit);
  return shader.main(() => {
    shader.line(`let i = group * ${workgroupSize}u + lane;`);
    if (points % workgroupSize !== 0) shader.line(`if (i >= ${points}u) { return; }`);
    const matches = (index: Index) => isContiguous(index, shape) && total > 1;
    const steps = vector && !flat ? [...shape.slice(0, -1), shape[last] / 4] : shape;
    const used = axesUsed(
      accessesOf(exprs, stores).map(({ index }) => index).filter((index) => !matches(index)),
      exprs,
    );
    const axes = flat ? shape.map(() => "0u") : splitAxes(shader, "i", steps, used);
    const quarter = axes[last];
    if (vector && !flat && used.has(last) && quarter !== "0u") {
      shader.line(`let first = ${quarter} * 4u;`);
      axes[last] = "first";
    }
    const scope = new Scope(shader, {
      axes,
      vector: vector ? { axis: last, quarter } : undefined,
      flat: { name: "i", matches },
    });
    scope.store(stores);
  });
}
