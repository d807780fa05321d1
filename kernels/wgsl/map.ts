import { sizeOf } from "../../core/aval.ts";
import type { MapKernel } from "../ir/kernel.ts";
import { axesUsed, isContiguous, isFixed, splitAxes } from "./axes.ts";
import { accessesOf, type Index, rootsOf, walk } from "../ir/expr.ts";
import { isWide } from "./access.ts";
import { Scope } from "./scope.ts";
import { ShaderWriter, type WgslShader } from "./shader.ts";
import type { TileConfig } from "./tile.ts";

/**
 * A map: one invocation per point, or per four neighbouring points of the last axis where the operands allow it. A map
 * whose operands are all whole arrays or single elements runs over one flat axis of any length.
 */
export function emitMap(kernel: MapKernel, tile: TileConfig, alias: readonly number[]): WgslShader {
  const { shape, stores, operands } = kernel;
  const exprs = [...walk(rootsOf(stores))];
  const accesses = accessesOf(exprs, stores);
  const total = sizeOf(shape);
  const last = shape.length - 1;

  const isFlat = !exprs.some((expr) => expr.kind === "axis") &&
    accesses.every(({ index }) => isContiguous(index, shape) || isFixed(index, shape)) &&
    stores.every(({ index }) => isContiguous(index, shape)) && total > 1;
  const wide = (index: Index) => isFlat ? isContiguous(index, shape) : isWide(index, last);
  const narrow = new Set(accesses.filter(({ index }) => !wide(index)).map(({ operand }) => operand));
  const aliasedNarrow = (i: number) => [...narrow].some((j) => alias[j] === alias[i]);
  // The last four may reach past the end, into the padding that every buffer has: not where other elements follow.
  const fills = total % 4 === 0 || stores.every(({ operand }) => operands[operand].size === total);
  const vector = isFlat
    ? fills && !stores.some(({ operand }) => aliasedNarrow(operand))
    : last >= 0 && shape[last] % 4 === 0 && accesses.some(({ operand }) => !aliasedNarrow(operand));
  if (!vector) operands.forEach((_, i) => narrow.add(i));

  const shader = new ShaderWriter(`map [${shape.join(",")}]`, operands, alias, narrow, tile);
  shader.tiling = vector ? "four points a lane" : "one point a lane";
  const points = vector ? Math.ceil(total / 4) : total;
  return shader.main(Math.ceil(points / tile.mapLanes), [tile.mapLanes], () => {
    shader.line(`let i = group * ${tile.mapLanes}u + lane;`);
    if (points % tile.mapLanes !== 0) shader.line(`if (i >= ${points}u) { return; }`);
    const matches = (index: Index) => isContiguous(index, shape) && total > 1;
    const steps = vector && !isFlat ? [...shape.slice(0, -1), shape[last] / 4] : shape;
    const used = axesUsed(accesses.map(({ index }) => index).filter((index) => !matches(index)), exprs);
    const axes = isFlat ? shape.map(() => "0u") : splitAxes(shader, "i", steps, used);
    const quarter = axes[last];
    if (vector && !isFlat && used.has(last) && quarter !== "0u") {
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
