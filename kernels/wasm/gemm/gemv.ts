/**
 * A single row times a matrix whose columns are contiguous: the matrix is read through once, eight of its rows at a time, and
 * the sums stay in a first-level cache. As fast as memory gives the matrix.
 */
import { byteSize } from "../../../core/dtype.ts";
import { Code, type Local } from "../assembler.ts";
import type { Area } from "./loops.ts";
import type { GemmOperands } from "./operands.ts";
import type { Depth } from "./pack.ts";
import type { SegmentPlan } from "./plan.ts";
import { pushVector } from "./tile.ts";

/** Rows of the matrix that one walk over the sums adds. */
const rowsAtOnce = 8;

/** Sums the area's columns into `result`. The functions that it calls are added to `functions`. */
export function emitGemv(operands: GemmOperands, area: Area, result: Local, functions: Code[]): void {
  const { code, plan: { segments } } = operands, { outer, first, column, columnEnd } = area;
  const all: Depth = { start: null, length: { constant: 0 }, end: { constant: 0 }, most: 0 };
  const [bytes] = operands.counters(1);
  code.get(columnEnd).get(column).op("i32.sub").i32(4).op("i32.mul").set(bytes);
  code.get(result).i32(0).get(bytes).fill();
  for (const { splat, panel, k } of segments) {
    const x = operands.address(splat, outer, first, all), w = operands.address(panel, outer, column, all);
    const [at] = operands.counters(1);
    code.i32(0).set(at);
    for (const rows of [rowsAtOnce, 1]) {
      functions.push(gemvFunction(operands, { rows, splatStep: splat.k * 4, panelRow: panel.k, dtype: panel.dtype }));
      const made = functions.length - 1;
      code.loopUpTo(at, { constant: k }, rows, () => {
        code.get(result).get(bytes).get(x).get(w).call(made);
        code.get(x).i32(rows * splat.k * 4).op("i32.add").set(x);
        code.get(w).i32(rows * panel.k * byteSize[panel.dtype]).op("i32.add").set(w);
      });
    }
  }
}

/** A function `(result, bytes, x, w)` that adds `rows` rows of the matrix, each times its element of x, to the sums. */
function gemvFunction(
  operands: GemmOperands,
  { rows, splatStep, panelRow, dtype }: {
    rows: number;
    splatStep: number;
    panelRow: number;
    dtype: SegmentPlan["panel"]["dtype"];
  },
): Code {
  const code = new Code(["i32", "i32", "i32", "i32"]), size = byteSize[dtype];
  const [result, bytes, x, w] = [0, 1, 2, 3].map((i) => code.parameter(i));
  const splats = Array.from({ length: rows }, () => code.local("v128"));
  const sum = code.local("v128"), at = code.local("i32");
  splats.forEach((splat, i) => code.get(x).memory("v128.load32_splat", i * splatStep).set(splat));
  code.i32(0).set(at);
  code.loopUpTo(at, bytes, 16, () => {
    code.get(result).memory("v128.load").set(sum);
    splats.forEach((splat, i) => {
      code.get(splat);
      pushVector(code, dtype, w, i * panelRow * size);
      if (operands.frame.options.relaxed) code.get(sum).op("f32x4.relaxed_madd").set(sum);
      else code.op("f32x4.mul").get(sum).op("f32x4.add").set(sum);
    });
    code.get(result).get(sum).memory("v128.store");
    code.get(result).i32(16).op("i32.add").set(result).get(w).i32(4 * size).op("i32.add").set(w);
  });
  return code;
}
