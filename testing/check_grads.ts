import { isFloat } from "../core/dtype.ts";
import { LowrankError } from "../core/errors.ts";
import type { Value } from "../core/ir/graph.ts";
import { reduceSum } from "../core/ops/broadcast.ts";
import { add, convert, mul } from "../core/ops/elementwise.ts";
import { Tensor } from "../core/tensor.ts";
import { valueAndGrad } from "../core/transforms/grad.ts";
import { flatten } from "../core/tree.ts";
import { fromOracle, type OracleTensor, runOracle } from "./oracle.ts";
import { randomTensor } from "./toy_models.ts";
import { checkFunction, checkList, checkOptions } from "../core/options.ts";

/** What to check. */
export interface CheckGradsOptions {
  /** 2 checks the gradient of the gradient as well. 1 by default. */
  readonly order?: 1 | 2;
  /** What directions and weights are drawn from. */
  readonly seed?: number;
}

const isContents = (x: unknown) => x instanceof Tensor || (x as OracleTensor | null)?.data instanceof Float64Array;

/**
 * Compares the gradient of `f` with a numeric one, in float64: along a random direction of all its f32 arguments, for a
 * random weighting of all its float outputs. The allowed difference is what the numeric derivative says of its own error.
 *
 * @param f any traced function; its arguments are trees of tensors on the oracle ({@link oracleTensor})
 * @throws {LowrankError} when they differ
 *
 * @example
 * ```ts
 * import { mul, reduceSum, tanh, type Value } from "@lowrank/lowrank";
 * import { checkGrads, oracleTensor } from "@lowrank/lowrank/testing";
 *
 * checkGrads((x: Value) => reduceSum(mul(x, tanh(x))), [oracleTensor([3], [0.1, -2, 1.5])], { order: 2 });
 * ```
 */
export function checkGrads(
  f: (...args: never[]) => unknown,
  args: readonly unknown[],
  options: CheckGradsOptions = {},
): void {
  checkOptions("checkGrads", options, { order: true, seed: true });
  checkFunction("checkGrads", f);
  checkList("checkGrads", "arguments", args);
  const { order = 1, seed = 1 } = options;
  const flat = flatten<OracleTensor | Tensor>(args, isContents);
  const start = flat.leaves.map((x) => x instanceof Tensor ? fromOracle(x) : x);
  // What is stored narrower has its gradient rounded to the same.
  const direction = start.map((x, i) =>
    x.dtype === "f32" ? fromOracle(randomTensor(x.shape, seed + 7 * i)).data : null
  );
  const weighted = (values: Value[]): Value => {
    const outputs = flatten<Value>(f(...flat.unflatten(values) as never[])).leaves;
    const floats = outputs.filter((v) => isFloat(v.dtype));
    const parts = floats.map((v, i) => reduceSum(mul(convert(v, "f32"), randomTensor(v.shape, seed + 100 + i))));
    return parts.reduce((a, b) => add(a, b));
  };
  compare(weighted, start, direction, "gradient");
  if (order === 2) {
    const slope = (values: Value[]): Value => {
      const [, grads] = valueAndGrad(weighted)(values);
      const parts = grads.flatMap((g: Value, i: number) =>
        isFloat(g.dtype) ? [reduceSum(mul(convert(g, "f32"), randomTensor(g.shape, seed + 200 + i)))] : []
      );
      return parts.reduce((a, b) => add(a, b));
    };
    compare(slope, start, direction, "second gradient");
  }
}

/** The derivative of `f` at `start` along `direction`, by differences of fourth order. */
export function slopeAlong(
  f: (values: Value[]) => Value,
  start: readonly OracleTensor[],
  direction: readonly (Float64Array | null)[],
): { slope: number; error: number } {
  const at = (t: number): number => {
    const moved = start.map((x, i) => ({ ...x, data: x.data.map((v, j) => v + t * (direction[i]?.[j] ?? 0)) }));
    return runOracle(f, moved).data[0];
  };
  const difference = (h: number) => (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
  const h = 2 ** -10;
  const [coarse, fine] = [difference(h), difference(h / 2)];
  // Halving the step divides the method's error by 16; what is left of the rest is rounding of f, divided by the step.
  return { slope: fine, error: Math.abs(coarse - fine) + 2 ** -46 * (Math.abs(at(0)) + 1) / h };
}

function compare(
  f: (values: Value[]) => Value,
  start: readonly OracleTensor[],
  direction: readonly (Float64Array | null)[],
  what: string,
): void {
  const [, grads] = runOracle(valueAndGrad(f), start) as [unknown, OracleTensor[]];
  let analytic = 0;
  grads.forEach((g, i) => direction[i]?.forEach((d, j) => analytic += d * g.data[j]));
  const { slope, error } = slopeAlong(f, start, direction);
  if (!(Math.abs(analytic - slope) <= error)) {
    throw new LowrankError(
      `the ${what} along a random direction is ${analytic}, but the function's own differences give ${slope} ± ${error}`,
    );
  }
}
