/** Weights that are stored narrower than f32, unpacked as they lie for a BLAS to read: rows stay rows. */
import { byteSize } from "../../../core/dtype.ts";
import { isPacked } from "../../../core/packed/blocks.ts";
import type { Local } from "../assembler.ts";
import type { GemmOperands } from "./operands.ts";
import type { Depth } from "./pack.ts";
import { type Side } from "./plan.ts";
import { pushFirst, pushVector } from "./tile.ts";
import { emitUnpackedRows } from "../packed/panels.ts";

/** The part of a side that a unit works on: `count` of its free axis from `first` on, by a depth of k. */
export interface Part {
  readonly side: Side;
  readonly outer: readonly Local[];
  readonly first: Local;
  readonly count: Local;
  readonly depth: Depth;
}

/** Writes a part as f32 at `to`, in rows of `length` elements that run along k or along the free axis. */
export function emitStaged(operands: GemmOperands, part: Part, byK: boolean, to: Local, length: number): void {
  const { code } = operands, { side, outer, first, count, depth } = part;
  const extent = code.local("i32");
  code.push(depth.length).set(extent);
  const [rows, inner] = byK ? [count, extent] : [extent, count];
  const step = byK ? side.free : side.k;
  if (isPacked(side.dtype)) {
    const reader = operands.reader(side), runs = code.local("i32");
    code.get(inner).i32(31).op("i32.add").i32(5).op("i32.shr_u").set(runs);
    const run = operands.run(side, outer, first, depth);
    emitUnpackedRows(reader, run, step, rows, runs, to, { offset: (i) => i * 4, runBytes: 128, rowBytes: length * 4 });
    reader.release();
    code.release("i32", extent, runs);
    return;
  }
  const size = byteSize[side.dtype];
  const [row, at, line, from] = operands.counters(4), source = operands.address(side, outer, first, depth);
  code.get(to).set(line).i32(0).set(row);
  code.loopUpTo(row, rows, 1, () => {
    const column = code.local("i32");
    code.i32(0).set(column).get(line).set(at).get(source).set(from);
    for (const lanes of [4, 1] as const) {
      code.loopUpTo(column, inner, lanes, () => {
        code.get(at);
        if (lanes === 4) pushVector(code, side.dtype, from, 0);
        else pushFirst(code, side.dtype, from, 0);
        if (lanes === 4) code.memory("v128.store");
        else code.laneMemory("v128.store32_lane", 0);
        code.get(at).i32(4 * lanes).op("i32.add").set(at).get(from).i32(size * lanes).op("i32.add").set(from);
      });
    }
    code.get(line).i32(length * 4).op("i32.add").set(line).get(source).i32(step * size).op("i32.add").set(source);
    code.release("i32", column);
  });
  code.release("i32", extent, row, at, line, from);
}
