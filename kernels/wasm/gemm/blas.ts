/**
 * Large products by the system's BLAS: each unit of work is one of its products, stored like any other. Weights that are
 * stored narrower than f32 are unpacked for it, a block of k at a time, into the thread's scratch.
 */
import type { ImportedFunction, Local } from "../assembler.ts";
import { emitStaged } from "./blas_stage.ts";
import type { Area } from "./loops.ts";
import type { GemmOperands } from "./operands.ts";
import type { Depth } from "./pack.ts";
import { form, isWide } from "./plan.ts";

/** Multiply-adds from which a product gains by a BLAS; measured by bench/blas.ts. */
export const blasCrossover = 1 << 15;

/** What a kernel that calls a BLAS imports, as function 0. */
export const blasImport: ImportedFunction = { module: "b", name: "product", parameters: new Array(12).fill("i32") };

/** A matrix as a BLAS is given it. */
interface Matrix {
  readonly address: Local;
  readonly length: number;
  readonly byK: boolean;
}

/**
 * Multiplies an area into the rows of `row` elements at the address that `pushTo` pushes. `reserve` gives bytes of scratch.
 */
export function emitBlasProducts(
  operands: GemmOperands,
  area: Area,
  pushTo: () => void,
  row: number,
  reserve: (bytes: number) => Local,
): void {
  const { code, plan } = operands, { rows, columns, segments, rowBlock, columnBlock, depthBlock } = plan;
  const { outer, first, last, column, columnEnd } = area;
  const [high, wide] = operands.counters(2);
  code.get(last).get(first).op("i32.sub").set(high).get(columnEnd).get(column).op("i32.sub").set(wide);
  const sides = segments.map(({ splat, panel, k }) => ({
    k,
    left: { side: splat, ...form(splat, rows, k)!, first, count: high, most: rowBlock },
    right: { side: panel, ...form(panel, columns, k)!, first: column, count: wide, most: columnBlock },
  }));
  type Part = typeof sides[number]["left"];
  // One place for each side, which the segments use in turn.
  const stages = (["left", "right"] as const).map((name) =>
    sides.every((s) => isWide(s[name].side)) ? null : reserve(sides[0][name].most * depthBlock * 4)
  );
  const matrix = ({ side, length, byK, first, count, most }: Part, depth: Depth, stage: Local | null): Matrix => {
    if (stage === null || isWide(side)) return { address: operands.address(side, outer, first, depth), length, byK };
    const rowLength = byK ? depthBlock : most;
    emitStaged(operands, { side, outer, first, count, depth }, byK, stage, rowLength);
    return { address: stage, length: rowLength, byK };
  };
  const call = (a: Matrix, b: Matrix, depth: Depth, pushBeta: () => void) => {
    code.i32(a.byK ? 0 : 1).i32(b.byK ? 1 : 0).get(high).get(wide).push(depth.length);
    code.get(a.address).i32(a.length).get(b.address).i32(b.length);
    pushBeta();
    pushTo();
    code.i32(row).call(0);
  };
  sides.forEach(({ k, left, right }, i) => {
    if (depthBlock >= k || (isWide(left.side) && isWide(right.side))) {
      const all: Depth = { start: null, length: { constant: k }, end: { constant: k }, most: k };
      const [a, b] = [left, right].map((part, s) => matrix(part, all, stages[s]));
      return call(a, b, all, () => code.i32(i > 0 ? 1 : 0));
    }
    const [start, end, length] = operands.counters(3);
    code.i32(0).set(start);
    code.loopUpTo(start, { constant: k }, 1, () => {
      code.get(start).i32(depthBlock).op("i32.add").set(end).limit(end, { constant: k });
      code.get(end).get(start).op("i32.sub").set(length);
      const part: Depth = { start, length, end, most: depthBlock };
      const [a, b] = [left, right].map((side, s) => matrix(side, part, stages[s]));
      call(a, b, part, () => i > 0 ? code.i32(1) : code.get(start).i32(0).op("i32.ne"));
      code.get(end).set(start);
    }, 0);
  });
}
