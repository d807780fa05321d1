/** Copies into a thread's scratch: panels of `[k][width]`, and tiles of the splat side. All are widened to f32. */
import { byteSize, type DType } from "../../../core/dtype.ts";
import type { Expr } from "../../ir/expr.ts";
import type { Code, Limit, Local } from "../assembler.ts";
import type { Side } from "./plan.ts";
import { inPieces, pushFirst, pushVector } from "./tile.ts";
import { PointEmitter } from "../point.ts";
import type { Space } from "../point_access.ts";

/** One side of a product as a load over [...batch, free, k], and the space of these axes for given counters. */
export interface Source {
  readonly side: Side;
  readonly value: Expr;
  space(free: Local, k: Local, laneAxis: "free" | "k", loopAxis: "free" | "k"): Space;
}

/** The part of a segment's k that is packed or multiplied: all of it, or one block after the other. */
export interface Depth {
  /** Its first k; 0 if null. */
  readonly start: Local | null;
  readonly length: Limit;
  readonly end: Limit;
  /** The most that `length` can be. */
  readonly most: number;
}

/** Packs columns [first, first + count) as [k][width] at `to`; lanes past `count` are zero. */
export function emitCopiedPanel(
  code: Code,
  { value, space }: Source,
  depth: Depth,
  first: Local,
  count: number,
  width: number,
  to: Local,
): void {
  const k = code.local("i32"), at = code.local("i32");
  const pieces: { lanes: 1 | 4; offset: number; point: PointEmitter }[] = [];
  code.get(to).set(at);
  setStart(code, depth, k);
  for (let c = 0; c < count;) {
    const lanes = count - c >= 4 ? 4 : 1;
    const column = code.local("i32");
    code.get(first).i32(c).op("i32.add").set(column);
    const point = new PointEmitter(space(column, k, "free", "k"));
    point.hoist([value], [], lanes);
    pieces.push({ lanes, offset: c * 4, point });
    c += lanes;
  }
  code.loopUpTo(k, depth.end, 1, () => {
    if (count < width) {
      for (let c = Math.floor(count / 4) * 4; c < width; c += 4) code.get(at).f32x4(0).memory("v128.store", c * 4);
    }
    for (const { lanes, offset, point } of pieces) {
      code.get(at);
      point.push(value, lanes);
      if (lanes === 4) code.memory("v128.store", offset);
      else code.laneMemory("v128.store32_lane", 0, offset);
    }
    code.get(at).i32(width * 4).op("i32.add").set(at);
  });
}

/** Bytes of a cache line, and rows whose lines are asked for together. */
const lineBytes = 64, rowsTogether = 8;

/**
 * Packs `panels` whole panels at once from columns that are contiguous: `from` is the address of the first at the depth's
 * start, and the panels lie `next` bytes apart. Each row of the source is read through, which touches its pages and lines
 * once; of some rows the first vector of every line is copied before the rest, so that memory brings many lines at once.
 */
export function emitCopiedBlock(
  code: Code,
  side: Pick<Side, "dtype" | "k">,
  depth: Depth,
  from: Local,
  panels: number,
  width: number,
  to: Local,
  next: number,
): void {
  const size = byteSize[side.dtype];
  const [source, at, k, start, end] = Array.from({ length: 5 }, () => code.local("i32"));
  const pieces = Array.from(
    { length: panels },
    (_, i) => inPieces(width).map(({ first, size }) => ({ size, from: i * width + first, to: i * next + first * 4 })),
  ).flat();
  const opensLine = ({ from }: { from: number }) => from * size % lineBytes === 0 || panels * width * size <= lineBytes;
  code.i32(0).set(start);
  code.loopUpTo(start, depth.length, 1, () => {
    code.get(start).i32(rowsTogether).op("i32.add").set(end).limit(end, depth.length);
    for (const some of [pieces.filter(opensLine), pieces.filter((piece) => !opensLine(piece))]) {
      if (some.length === 0) continue;
      code.get(start).tee(k).i32(side.k * size).op("i32.mul").get(from).op("i32.add").set(source);
      code.get(k).i32(width * 4).op("i32.mul").get(to).op("i32.add").set(at);
      code.loopUpTo(k, end, 1, () => {
        for (const piece of some) {
          emitCopiedPiece(code, side.dtype, piece.size, source, piece.from * size, at, piece.to);
        }
        code.get(source).i32(side.k * size).op("i32.add").set(source);
        code.get(at).i32(width * 4).op("i32.add").set(at);
      });
    }
    code.get(end).set(start);
  }, 0);
  code.release("i32", source, at, k, start, end);
}

/** Copies four, two or one elements, widened. */
function emitCopiedPiece(
  code: Code,
  dtype: DType,
  count: number,
  source: Local,
  from: number,
  at: Local,
  to: number,
): void {
  if (count === 4) {
    code.get(at);
    pushVector(code, dtype, source, from);
    code.memory("v128.store", to);
  } else if (count === 2 && dtype === "f32") {
    code.get(at).get(source).memory("v128.load64_zero", from).laneMemory("v128.store64_lane", 0, to);
  } else {
    for (let i = 0; i < count; i++) {
      code.get(at);
      pushFirst(code, dtype, source, from + i * byteSize[dtype]);
      code.laneMemory("v128.store32_lane", 0, to + 4 * i);
    }
  }
}

/**
 * Packs one panel where k is contiguous: `from` is the address of the first column at the depth's start, and 4x4 blocks
 * are transposed in registers.
 */
export function emitTransposedPanel(
  code: Code,
  side: Side,
  depth: Depth,
  from: Local,
  count: number,
  width: number,
  to: Local,
): void {
  const size = byteSize[side.dtype];
  const source = code.local("i32"), at = code.local("i32"), k = code.local("i32");
  code.get(from).set(source).get(to).set(at).i32(0).set(k);
  const advance = (steps: number) => {
    code.get(source).i32(steps * size).op("i32.add").set(source);
    code.get(at).i32(steps * width * 4).op("i32.add").set(at);
  };
  code.loopUpTo(k, depth.length, 4, () => {
    for (const { first: c, size: columns } of inPieces(width)) {
      const load = (i: number) => {
        if (c + i < count) pushVector(code, side.dtype, source, (c + i) * side.free * size);
        else code.f32x4(0);
      };
      emitTranspose(code, columns, load, at, (i) => i * width * 4 + c * 4);
    }
    advance(4);
  });
  // The last few k: a vector load would reach past the row, so elements go one by one.
  code.loopUpTo(k, depth.length, 1, () => {
    for (let c = 0; c < width; c++) {
      code.get(at);
      if (c >= count) code.f32x4(0);
      else pushFirst(code, side.dtype, source, c * side.free * size);
      code.laneMemory("v128.store32_lane", 0, c * 4);
    }
    advance(1);
  });
}

function setStart(code: Code, { start }: Depth, k: Local): void {
  if (start === null) code.i32(0).set(k);
  else code.get(start).set(k);
}

/** Transposes a block [rows][columns] of f32 (both multiples of 4, row strides in bytes) into [columns][rows]. */
export function emitTransposedBlock(
  code: Code,
  from: Local,
  fromRow: number,
  rows: number,
  to: Local,
  toRow: number,
  columns: number,
): void {
  const source = code.local("i32"), at = code.local("i32"), r = code.local("i32"), c = code.local("i32");
  code.i32(0).set(r);
  code.loopUpTo(r, { constant: rows }, 4, () => {
    code.get(from).get(r).i32(fromRow).op("i32.mul", "i32.add").set(source);
    code.get(to).get(r).i32(4).op("i32.mul", "i32.add").set(at).i32(0).set(c);
    code.loopUpTo(c, { constant: columns }, 4, () => {
      emitTranspose(code, 4, (i) => code.get(source).memory("v128.load", i * fromRow), at, (i) => i * toRow);
      code.get(source).i32(16).op("i32.add").set(source);
      code.get(at).i32(4 * toRow).op("i32.add").set(at);
    });
  });
  code.release("i32", source, at, r, c);
}

/** Transposes the `count` vectors (four, two or one) that `load` pushes and stores element i of each at `to + offset(i)`. */
export function emitTranspose(
  code: Code,
  count: number,
  load: (i: number) => void,
  to: Local,
  offset: (i: number) => number,
): void {
  const rows = Array.from({ length: count }, () => code.local("v128"));
  const pairs = Array.from({ length: 4 }, () => code.local("v128"));
  rows.forEach((row, i) => {
    load(i);
    code.set(row);
  });
  // Two vectors side by side: elements 0 and 1 of both, then 2 and 3.
  for (let half = 0; half + 1 < count; half += 2) {
    code.get(rows[half]).get(rows[half + 1]).shuffle(0, 4, 1, 5).set(pairs[half]);
    code.get(rows[half]).get(rows[half + 1]).shuffle(2, 6, 3, 7).set(pairs[half + 1]);
  }
  for (let i = 0; i < 4; i++) {
    code.get(to);
    if (count === 1) code.get(rows[0]).laneMemory("v128.store32_lane", i, offset(i));
    else if (count === 2) code.get(pairs[i >> 1]).laneMemory("v128.store64_lane", i & 1, offset(i));
    else {
      code.get(pairs[i >> 1]).get(pairs[2 + (i >> 1)]);
      if (i % 2 === 0) code.shuffle(0, 1, 4, 5);
      else code.shuffle(2, 3, 6, 7);
      code.memory("v128.store", offset(i));
    }
  }
  code.release("v128", ...rows, ...pairs);
}
