/** Row kernels and scatters. */
import { sizeOf, stridesOf } from "../../core/aval.ts";
import type { HostArray } from "../../core/dtype.ts";
import { newInput, type Value } from "../../core/ir/graph.ts";
import { crossEntropyRows } from "../../core/nn/loss.ts";
import { layerNorm, rmsNorm } from "../../core/nn/norm.ts";
import { logSoftmax, logSumExp, softmax } from "../../core/nn/softmax.ts";
import { mul } from "../../core/ops/elementwise.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { trace } from "../../core/trace.ts";
import { grad, valueAndGrad } from "../../core/transforms/grad.ts";
import { build } from "../../kernels/runtime/compile.ts";
import type { RowKernel } from "../../kernels/ir/kernel.ts";
import { at, axis, inout, type KernelCase, load, makeCase, number, op, put, read, result, write } from "./build.ts";

/** Row kernels: softmax, argmax, sums along either axis. */
export function rowCases(): KernelCase[] {
  const cases: KernelCase[] = [];
  for (
    const [rows, cols] of [[[5], 7], [[2, 3], 64], [[1], 1000], [[67], 1], [[0], 5], [[2, 0], 1], [[1], 1]] as const
  ) {
    const count = sizeOf(rows);
    const whole = at([...stridesOf(rows).map((s) => s * cols), 1]);
    const one = at([...stridesOf(rows), 0]);
    const x = load(0, whole);
    const shifted = op("exp", "f32", op("sub", "f32", x, result(0)));
    cases.push(makeCase(`row softmax [${rows};${cols}]`, {
      kind: "row",
      operands: [read(count * cols), write(count * cols), write(count)],
      rows,
      cols,
      phases: [
        { kind: "reduce", op: "max", value: x },
        { kind: "reduce", op: "sum", value: shifted },
        { kind: "each", stores: [put(1, whole, op("div", "f32", shifted, result(1)))] },
        { kind: "once", stores: [put(2, one, op("add", "f32", result(0), op("log", "f32", result(1))))] },
      ],
    }, 2 * cols + 16));
    cases.push(makeCase(`row softmax in place, and a product [${rows};${cols}]`, {
      kind: "row",
      operands: [inout(count * cols), write(count * cols)],
      rows,
      cols,
      phases: [
        { kind: "reduce", op: "max", value: x },
        { kind: "reduce", op: "sum", value: shifted },
        {
          kind: "each",
          stores: [put(0, whole, op("div", "f32", shifted, result(1))), put(1, whole, op("mul", "f32", x, shifted))],
        },
      ],
    }, 2 * cols + 16));
    cases.push(makeCase(`row argmax and min [${rows};${cols}]`, {
      kind: "row",
      operands: [read(count * cols), write(count, "i32"), write(count)],
      rows,
      cols,
      phases: [
        { kind: "reduce", op: "argmax", value: op("floor", "f32", op("mul", "f32", x, number(3))) },
        { kind: "reduce", op: "min", value: x },
        { kind: "once", stores: [put(1, one, result(0, "i32")), put(2, one, result(1))] },
      ],
    }, 0));
  }
  for (const [rows, cols] of [[10, 6], [10, 1], [10, 0], [1, 6], [0, 6]]) {
    cases.push(makeCase(`row sum of columns [${rows};${cols}]`, {
      kind: "row",
      operands: [read(rows * cols), inout(rows)],
      rows: [rows],
      cols,
      phases: [
        { kind: "reduce", op: "sum", value: load(0, at([1, rows])) },
        { kind: "once", stores: [put(1, at([1, 0]), op("add", "f32", load(1, at([1, 0])), result(0)))] },
      ],
    }, 10));
    cases.push(makeCase(`row sums of integers [${rows};${cols}]`, {
      kind: "row",
      operands: [read(rows * cols, "i32"), write(rows, "i32"), write(rows, "i32")],
      rows: [rows],
      cols,
      phases: [
        { kind: "reduce", op: "sum", value: load(0, at([cols, 1]), "i32") },
        { kind: "reduce", op: "sum", value: op("mul", "i32", load(0, at([cols, 1]), "i32"), axis(1)) },
        { kind: "once", stores: [put(1, at([1, 0]), result(0, "i32"))] },
        { kind: "once", stores: [put(2, at([1, 0]), result(1, "i32"))] },
      ],
    }, 0));
  }
  cases.push(makeCase("row sums of integers, and the greatest", {
    kind: "row",
    operands: [read(90, "i32"), write(3, "i32"), write(3, "i32")],
    rows: [3],
    cols: 30,
    phases: [
      { kind: "reduce", op: "sum", value: load(0, at([30, 1]), "i32") },
      { kind: "reduce", op: "max", value: op("mul", "i32", load(0, at([30, 1]), "i32"), axis(1)) },
      { kind: "once", stores: [put(1, at([1, 0]), result(0, "i32")), put(2, at([1, 0]), result(1, "i32"))] },
    ],
  }, 0));
  cases.push(makeCase("row argmax of -Infinity", {
    kind: "row",
    operands: [read(70), write(1, "i32")],
    rows: [1],
    cols: 70,
    phases: [
      { kind: "reduce", op: "argmax", value: number(-Infinity) },
      { kind: "once", stores: [put(1, at([1, 0]), result(0, "i32"))] },
    ],
  }, 0));
  return cases;
}

/** A function of rows f32[rows,cols], of a vector f32[cols], a cotangent like the rows and labels i32[rows]. */
type OfRows = (x: Value, vector: Value, ct: Value, labels: Value) => unknown;

/** What models do to rows, forward and backward, each as the one kernel that it becomes. */
export const rowFunctions: Readonly<Record<string, OfRows>> = {
  "softmax": (x) => softmax(x),
  "softmax, backward": (x, _, ct) => grad((x: Value) => reduceSum(mul(softmax(x), ct)))(x),
  "log softmax": (x) => logSoftmax(x),
  "log softmax, backward": (x, _, ct) => grad((x: Value) => reduceSum(mul(logSoftmax(x), ct)))(x),
  "log sum of exponentials": (x) => logSumExp(x),
  "cross-entropy, smoothed": (x, _, __, labels) => crossEntropyRows(x, labels, { labelSmoothing: 0.1, zLoss: 0.01 }),
  "cross-entropy, smoothed, backward": (x, _, __, labels) =>
    grad((x: Value) => reduceSum(crossEntropyRows(x, labels, { labelSmoothing: 0.1, zLoss: 0.01 })))(x),
  "layer norm": (x, vector) => layerNorm(x, vector, vector, 1e-5),
  "layer norm, backward": (x, v, ct) => grad((x: Value) => reduceSum(mul(layerNorm(x, v, v, 1e-5), ct)))(x),
  "rms norm": (x, vector) => rmsNorm(x, vector, 1e-6),
  "rms norm, backward": (x, v, ct) => grad((x: Value) => reduceSum(mul(rmsNorm(x, v, 1e-6), ct)))(x),
  "cross-entropy": (x, _, __, labels) => crossEntropyRows(x, labels),
  "cross-entropy, both": (x, _, __, labels) => valueAndGrad((x: Value) => reduceSum(crossEntropyRows(x, labels)))(x),
};

/** The row kernel with the most phases that a function becomes. */
export function rowKernelOf(f: OfRows, rows: number, cols: number): RowKernel {
  const f32 = (...shape: number[]) => newInput({ shape, dtype: "f32" });
  const args = [f32(rows, cols), f32(cols), f32(rows, cols), newInput({ shape: [rows], dtype: "i32" })];
  const kernels = build(trace(f, args).graph).program.steps.map((step) => step.kernel).filter((k) => k.kind === "row");
  return kernels.reduce((a, b) => b.phases.length > a.phases.length ? b : a);
}

/** The rows of models: those that registers hold and those that are read twice, and a mean far from 0. */
export function modelRowCases(): KernelCase[] {
  return Object.entries(rowFunctions).flatMap(([name, f]) =>
    [[5, 7], [3, 1028], [2, 20_001], [1, 1]].map(([rows, cols]) => {
      const kernel = rowKernelOf(f, rows, cols);
      const given: Record<number, HostArray> = {};
      const isNorm = name.includes("layer norm");
      kernel.operands.forEach(({ dtype, size }, i) => {
        // The first label is none, the others are columns; the norms' rows lie about 300.
        if (dtype === "i32") given[i] = Int32Array.from({ length: size }, (_, r) => r === 0 ? -100 : r * 37 % cols);
        else if (isNorm && i === 0) given[i] = Float32Array.from({ length: size }, (_, c) => 300 + Math.sin(c * c));
      });
      return makeCase(`${name} [${rows};${cols}]`, kernel, isNorm ? 2 ** 15 : 256, given);
    })
  );
}

/** Scatters: repeated, dropped and missing targets. */
export function scatterCases(): KernelCase[] {
  return ([[5, 3, 7], [40, 130, 6], [1, 4, 1], [1, 1, 1], [0, 3, 7], [5, 0, 7], [5, 3, 0]] as const).map((
    [count, cols, targets],
  ) =>
    makeCase(
      `scatter [${count},${cols}] to ${targets}`,
      {
        kind: "scatter",
        operands: [read(count, "i32"), read(count * cols), write(targets * cols)],
        count,
        cols,
        targets,
      },
      count,
      {
        0: Int32Array.from(
          { length: count },
          (_, i) => i === 2 ? -1 : i === 4 ? targets : (i * i) % Math.max(1, targets),
        ),
      },
    )
  );
}
