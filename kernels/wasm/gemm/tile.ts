/** The innermost product: a tile of rows x vectors held in registers while it walks k. */
import { byteSize } from "../../../core/dtype.ts";
import type { DType } from "../../../core/dtype.ts";
import { Code, type Local } from "../assembler.ts";
import type { MemoryOpcode } from "../opcodes.ts";
import { PackedReader } from "../packed/packed.ts";
import { emitPackedGemv, type PackedGemv } from "../packed/gemv.ts";
import { emitWiden } from "../storage.ts";

/** How a tile reads one segment: all distances in bytes, known when the code is written. */
export interface TileSegment {
  /** From one row, or one k, of the splat side (f32) to the next. */
  readonly splatRow: number;
  readonly splatStep: number;
  readonly panelType: DType;
  /** From one k of the panel to the next. */
  readonly panelStep: number;
}

/** Steps along k that one turn of the innermost loop takes: also the commonest rank of a low-rank pair. */
const unrolled = 8;

/** The shape of a tile function. */
export interface TileShape {
  readonly rows: number;
  readonly vectors: number;
  readonly segments: readonly TileSegment[];
  /** Bytes from one row of the result to the next. */
  readonly resultRow: number;
  /** Whether the result may be added to, as its second parameter then says. */
  readonly adds: boolean;
  readonly relaxed: boolean;
}

/** Rows that one load of the splat side brings, where its rows are neighbours: how, and the turn to the next of them. */
const loadOfRows: Record<number, { load: MemoryOpcode; turn: [number, number, number, number] }> = {
  4: { load: "v128.load", turn: [1, 2, 3, 0] },
  2: { load: "v128.load64_splat", turn: [1, 0, 3, 2] },
  1: { load: "v128.load32_splat", turn: [0, 0, 0, 0] },
};

/**
 * A function `(result, add, splat0, panel0, k0, splat1, …)` that adds the products of every segment over its k into the
 * tile at `result` when `add` is not 0, and over what lies there otherwise.
 *
 * Engines without guard pages check every load against the memory's end, which takes as long as the load. So where the
 * splat side's rows are neighbours, four or two come by one load, and instead of being repeated in all lanes they are turned
 * by one lane after each multiplication: the sums then hold the tile's diagonals, which are put in order at the end.
 */
export function emitTile(shape: TileShape): Code {
  const { rows, vectors, segments, resultRow, relaxed } = shape;
  const code = new Code(["i32", "i32", ...segments.flatMap(() => ["i32", "i32", "i32"] as const)]);
  const result = code.parameter(0), add = code.parameter(1);
  const sums = Array.from({ length: rows }, () => Array.from({ length: vectors }, () => code.local("v128")));
  const eachSum = (visit: (sum: Local, offset: number) => void) =>
    sums.forEach((row, r) => row.forEach((sum, v) => visit(sum, r * resultRow + v * 16)));
  const panels = Array.from({ length: vectors }, () => code.local("v128"));
  const splat = code.local("v128"), k = code.local("i32");
  const neighbours = segments.every(({ splatRow }) => splatRow === 4);
  const pieces = neighbours ? inPieces(rows) : sums.map((_, first) => ({ first, size: 1 }));
  segments.forEach((segment, s) => {
    const [splatAt, panelAt, depth] = [2, 3, 4].map((i) => code.parameter(i + 3 * s));
    const step = (i: number) => {
      panels.forEach((panel, v) => {
        pushVector(code, segment.panelType, panelAt, i * segment.panelStep + v * 4 * byteSize[segment.panelType]);
        code.set(panel);
      });
      for (const { first, size } of pieces) {
        const { load, turn } = loadOfRows[size];
        code.get(splatAt).memory(load, first * segment.splatRow + i * segment.splatStep).set(splat);
        sums.slice(first, first + size).forEach((row, r) => {
          if (r > 0) code.get(splat).get(splat).shuffle(...turn).set(splat);
          row.forEach((sum, v) => {
            if (relaxed) code.get(splat).get(panels[v]).get(sum).op("f32x4.relaxed_madd").set(sum);
            else code.get(splat).get(panels[v]).op("f32x4.mul").get(sum).op("f32x4.add").set(sum);
          });
        });
      }
    };
    const advance = (steps: number) => {
      code.get(splatAt).i32(steps * segment.splatStep).op("i32.add").set(splatAt);
      code.get(panelAt).i32(steps * segment.panelStep).op("i32.add").set(panelAt);
    };
    code.i32(0).set(k);
    for (const steps of [unrolled, 1]) {
      code.loopUpTo(k, depth, steps, () => {
        for (let i = 0; i < steps; i++) step(i);
        advance(steps);
      });
    }
  });
  for (const { first, size } of pieces) {
    for (let v = 0; v < vectors; v++) emitDiagonalsToRows(code, sums.slice(first, first + size).map((row) => row[v]));
  }
  // What lies there is added last: sums of blocks lose fewer digits than one sum over all of a long k.
  if (shape.adds) {
    code.get(add).when(() =>
      eachSum((sum, offset) => code.get(result).memory("v128.load", offset).get(sum).op("f32x4.add").set(sum))
    );
  }
  eachSum((sum, offset) => code.get(result).get(sum).memory("v128.store", offset));
  return code;
}

/** Cuts [0, count) into pieces of four, two and one. */
export function inPieces(count: number): { first: number; size: number }[] {
  const pieces = [];
  for (let first = 0; first < count;) {
    const size = [4, 2, 1].find((size) => first + size <= count)!;
    pieces.push({ first, size });
    first += size;
  }
  return pieces;
}

/** Lane i of `sums[j]` belongs to row (i + j) mod their number; afterwards `sums[j]` is row j. */
function emitDiagonalsToRows(code: Code, sums: readonly Local[]): void {
  const count = sums.length;
  if (count === 1) return;
  // Each sum with the one before it: even lanes of the first, odd ones of the second.
  const pairs = sums.map(() => code.local("v128"));
  pairs.forEach((pair, j) => code.get(sums[j]).get(sums[(j + count - 1) % count]).shuffle(0, 5, 2, 7).set(pair));
  sums.forEach((sum, j) => {
    code.get(pairs[j]);
    if (count === 4) code.get(pairs[(j + 2) % 4]).shuffle(0, 1, 6, 7);
    code.set(sum);
  });
  code.release("v128", ...pairs);
}

/**
 * A function `(result, 0, left0, right0, k0, left1, …)` of the same shape whose lanes lie along k: dot products of
 * `rows` left rows (f32) with up to four right ones, written as one vector a row (a single one as one number). Steps are those of one row.
 *
 * Where the first right side is packed its address is the second parameter, `right0` the run that its first row begins with,
 * and a last parameter the address of the prepared left rows' sums.
 */
export function emitDotTile(shape: TileShape, columns: number, packed: PackedGemv | null = null): Code {
  const { rows, segments, resultRow, relaxed } = shape;
  const parameters = segments.length * 3 + (packed ? 1 : 0);
  const code = new Code(["i32", "i32", ...new Array<"i32">(parameters).fill("i32")]);
  const sums = Array.from({ length: rows }, () => Array.from({ length: 4 }, () => code.local("v128")));
  const rights = Array.from({ length: columns }, () => code.local("v128"));
  const left = code.local("v128"), k = code.local("i32");
  segments.forEach((segment, s) => {
    const [leftAt, rightAt, depth] = [2, 3, 4].map((i) => code.parameter(i + 3 * s));
    if (s === 0 && packed) {
      const reader = new PackedReader(code, packed.type, packed.size, code.parameter(1), relaxed);
      const prepared = { ...packed.rows, at: leftAt, sums: code.parameter(parameters + 1) };
      const used = sums.map((row) => row.slice(0, columns));
      return emitPackedGemv(reader, used, { ...packed, rows: prepared }, rightAt, depth);
    }
    const size = byteSize[segment.panelType];
    const step = (lanes: 1 | 4) => {
      rights.forEach((right, c) => {
        if (lanes === 4) pushVector(code, segment.panelType, rightAt, c * segment.panelStep);
        else pushFirst(code, segment.panelType, rightAt, c * segment.panelStep);
        code.set(right);
      });
      sums.forEach((row, r) => {
        const load = lanes === 4 ? "v128.load" : "v128.load32_zero";
        code.get(leftAt).memory(load, r * segment.splatRow).set(left);
        rights.forEach((right, c) => {
          if (relaxed) code.get(left).get(right).get(row[c]).op("f32x4.relaxed_madd").set(row[c]);
          else code.get(left).get(right).op("f32x4.mul").get(row[c]).op("f32x4.add").set(row[c]);
        });
      });
      code.get(leftAt).i32(lanes * 4).op("i32.add").set(leftAt);
      code.get(rightAt).i32(lanes * size).op("i32.add").set(rightAt);
    };
    code.i32(0).set(k);
    code.loopUpTo(k, depth, 4, () => step(4));
    code.loopUpTo(k, depth, 1, () => step(1));
  });
  sums.forEach((row, r) => {
    // Four vectors to the vector of their sums.
    const [a, b, c, d] = row;
    for (const [x, y] of [[a, c], [b, d]]) {
      code.get(x).get(y).shuffle(0, 1, 4, 5).get(x).get(y).shuffle(2, 3, 6, 7).op("f32x4.add").set(x);
    }
    code.get(code.parameter(0)).get(a).get(b).shuffle(0, 4, 2, 6).get(a).get(b).shuffle(1, 5, 3, 7).op("f32x4.add");
    if (columns === 1) code.laneMemory("v128.store32_lane", 0, r * resultRow);
    else code.memory("v128.store", r * resultRow);
  });
  return code;
}

/**
 * A function `(result, 0, left0, right0, k0, left1, …)` whose lanes lie along k: dot products of `rows` left rows (f32) with
 * one right row, written one under the other. The right side is read straight through, as fast as memory gives it.
 */
export function emitDotColumn(shape: TileShape): Code {
  const { rows, segments, resultRow, relaxed } = shape;
  const code = new Code(["i32", "i32", ...segments.flatMap(() => ["i32", "i32", "i32"] as const)]);
  // Enough independent sums to hide the latency of additions.
  const unrolled = rows === 1 ? 8 : rows < 4 ? 4 : 2;
  const sums = Array.from({ length: rows }, () => Array.from({ length: unrolled }, () => code.local("v128")));
  const right = code.local("v128"), k = code.local("i32");
  segments.forEach((segment, s) => {
    const [leftAt, rightAt, depth] = [2, 3, 4].map((i) => code.parameter(i + 3 * s));
    const size = byteSize[segment.panelType];
    const step = (i: number, lanes: 1 | 4) => {
      if (lanes === 4) pushVector(code, segment.panelType, rightAt, i * 4 * size);
      else pushFirst(code, segment.panelType, rightAt, 0);
      code.set(right);
      sums.forEach((row, r) => {
        const load = lanes === 4 ? "v128.load" : "v128.load32_zero";
        code.get(leftAt).memory(load, r * segment.splatRow + i * 16).get(right);
        if (relaxed) code.get(row[i]).op("f32x4.relaxed_madd").set(row[i]);
        else code.op("f32x4.mul").get(row[i]).op("f32x4.add").set(row[i]);
      });
    };
    code.i32(0).set(k);
    for (const [vectors, lanes] of [[unrolled, 4], [1, 4], [1, 1]] as const) {
      code.loopUpTo(k, depth, vectors * lanes, () => {
        for (let i = 0; i < vectors; i++) step(i, lanes);
        code.get(leftAt).i32(vectors * lanes * 4).op("i32.add").set(leftAt);
        code.get(rightAt).i32(vectors * lanes * size).op("i32.add").set(rightAt);
      });
    }
  });
  sums.forEach((row, r) => {
    for (let step = 1; step < unrolled; step *= 2) {
      for (let i = 0; i < unrolled; i += 2 * step) code.get(row[i]).get(row[i + step]).op("f32x4.add").set(row[i]);
    }
    const [sum] = row;
    code.get(sum).get(sum).get(sum).shuffle(2, 3, 0, 1).op("f32x4.add").set(sum);
    code.get(code.parameter(0)).get(sum).get(sum).get(sum).shuffle(1, 0, 3, 2).op("f32x4.add");
    code.laneMemory("v128.store32_lane", 0, r * resultRow);
  });
  return code;
}

/** Pushes the element at `address + offset` in lane 0, widened; the other lanes are 0. */
export function pushFirst(code: Code, dtype: DType, address: Local, offset: number): void {
  code.get(address);
  if (byteSize[dtype] === 2) code.i32x4(0, 0, 0, 0).laneMemory("v128.load16_lane", 0, offset);
  else code.memory("v128.load32_zero", offset);
  emitWiden(code, dtype);
}

/** Pushes four neighbouring elements at `address + offset`, widened. */
export function pushVector(code: Code, dtype: DType, address: Local, offset: number): void {
  code.get(address).memory(byteSize[dtype] === 2 ? "v128.load16x4_u" : "v128.load", offset);
  emitWiden(code, dtype);
}
