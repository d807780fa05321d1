/** Packing and multiplying one area of a product, tile by tile. */
import { byteSize } from "../../../core/dtype.ts";
import { isPacked } from "../../../core/packed/blocks.ts";
import type { Code, Limit, Local } from "../assembler.ts";
import type { GemmOperands } from "./operands.ts";
import { type Depth, emitCopiedBlock, emitCopiedPanel, emitTransposedPanel } from "./pack.ts";
import type { GemmPlan, SegmentPlan, Side, SideMode } from "./plan.ts";
import { emitDotColumn, emitDotTile, emitTile, type TileSegment } from "./tile.ts";
import { emitUnpackedPanel, emitUnpackedRows } from "../packed/panels.ts";
import { emitRoundedRows } from "../packed/bytes.ts";
import { packedColumns, type PackedGemv } from "../packed/gemv.ts";
import { emitPreparedRows } from "../packed/floats.ts";
import type { PreparedRows } from "../packed/rows.ts";

/** What a unit works on now: rows [first, last) by columns [column, columnEnd) of one batch entry. */
export interface Area {
  readonly outer: readonly Local[];
  readonly first: Local;
  readonly last: Local;
  readonly column: Local;
  readonly columnEnd: Local;
}

/** Where in the thread's scratch a segment's packed operands lie; null where an operand is read in place. */
export interface Packed {
  readonly panels: Local | null;
  readonly splat: Local | null;
}

/** A part of a segment's k that the tiles walk at once. */
export interface Part extends Packed {
  readonly segment: SegmentPlan;
  readonly depth: Depth;
}

/** Emits the loops over an area; the tile functions that they call are collected in `functions`. */
export class GemmLoops {
  readonly functions: Code[] = [];
  readonly #operands: GemmOperands;
  readonly #code: Code;
  readonly #plan: GemmPlan;
  /** Positions of tile functions by segment, rows and vectors. */
  readonly #tiles = new Map<string, number>();

  constructor(operands: GemmOperands) {
    this.#operands = operands;
    this.#code = operands.code;
    this.#plan = operands.plan;
  }

  /** Packs a part's panels for the area's columns. */
  packPanels({ segment, depth, panels: to }: Part, area: Area): void {
    if (to === null) return;
    const code = this.#code, width = 4 * this.#plan.vectors, { panel, panelMode } = segment;
    const { columnBlock, columns } = this.#plan, { outer, column, columnEnd } = area;
    const { next } = this.#operands.panelStride(segment);
    const [at, into] = this.#operands.counters(2);
    code.get(column).set(at).get(to).set(into);
    const pack = (count: number) => {
      if (panel.runs === "k") {
        const reader = this.#operands.reader(panel), run = this.#operands.run(panel, outer, at, depth);
        emitUnpackedPanel(reader, run, panel.free, depth.length, count, width, into);
        reader.release();
      } else if (panelMode === "transpose") {
        emitTransposedPanel(code, panel, depth, this.#operands.address(panel, outer, at, depth), count, width, into);
      } else emitCopiedPanel(code, this.#operands.source(panel, outer), depth, at, count, width, into);
      code.get(into).i32(next).op("i32.add").set(into);
    };
    if (panel.runs === "free" && 32 % width === 0) {
      const reader = this.#operands.reader(panel);
      code.loopUpTo(at, columnEnd, 32, () => {
        emitUnpackedRows(
          reader,
          this.#operands.run(panel, outer, at, depth),
          panel.k,
          depth.length,
          { constant: 1 },
          into,
          {
            offset: (c) => Math.floor(c / width) * next + (c % width) * 4,
            runBytes: 0,
            rowBytes: width * 4,
          },
        );
        code.get(into).i32(32 / width * next).op("i32.add").set(into);
      });
      reader.release();
    } else if (isCopied(panel, panelMode)) {
      code.loopUpTo(at, columnEnd, columnBlock, () => {
        const from = this.#operands.address(panel, outer, at, depth);
        emitCopiedBlock(code, panel, depth, from, columnBlock / width, width, into, next);
      });
    }
    code.loopUpTo(at, columnEnd, width, () => pack(width));
    const rest = columns % width;
    if (rest > 0) code.get(at).get(columnEnd).op("i32.lt_s").when(() => pack(rest));
  }

  /** The address of the splat side's rows [row, row + count), once they are packed where they have to be. */
  #splatOf({ segment, depth, splat: to }: Part, { outer }: Area, row: Local, count: number): Local {
    const code = this.#code, { splat, splatMode } = segment;
    const address = () => this.#operands.address(splat, outer, row, depth);
    if (to === null) return address();
    if (splatMode === "transpose") emitTransposedPanel(code, splat, depth, address(), count, count, to);
    else if (isCopied(splat, splatMode)) emitCopiedBlock(code, splat, depth, address(), 1, count, to, 0);
    else emitCopiedPanel(code, this.#operands.source(splat, outer), depth, row, count, count, to);
    return to;
  }

  /** Runs `body` where the first part is the last of its segment, which the other parts continue. */
  #atLast({ segment, depth }: Part, body: () => void): void {
    if (depth.start === null) body();
    else this.#code.push(depth.end).i32(segment.k).op("i32.eq").when(body);
  }

  /**
   * Multiplies the area's rows by its columns over a part of one segment, whose panels are packed, and over all of the
   * segments that continue its last part. The sums are added to those at `result` where `add` is not 0.
   */
  multiply(area: Area, parts: readonly Part[], add: Limit, result: Local): void {
    const code = this.#code;
    const { rows, tileRows, columnBlock } = this.#plan;
    const [row, into] = this.#operands.counters(2);
    const tiles = (count: number) => {
      const [long, ...short] = parts, splats = [this.#splatOf(long, area, row, count)];
      this.#atLast(long, () => short.forEach((part) => splats.push(this.#splatOf(part, area, row, count))));
      this.#rowOfTiles(area, parts, count, into, add, splats);
    };
    code.get(area.first).set(row).get(result).set(into);
    code.loopUpTo(row, area.last, tileRows, () => {
      tiles(tileRows);
      code.get(into).i32(tileRows * columnBlock * 4).op("i32.add").set(into);
    });
    const rest = rows % tileRows;
    if (rest > 0) code.get(row).get(area.last).op("i32.lt_s").when(() => tiles(rest));
  }

  /** One row of tiles over the area's columns. `splats` are the addresses of its rows at the parts' starts. */
  #rowOfTiles(
    area: Area,
    parts: readonly Part[],
    count: number,
    into: Local,
    add: Limit,
    splats: readonly Local[],
  ): void {
    const code = this.#code;
    const { vectors, columns } = this.#plan;
    const width = 4 * vectors, [{ segment, depth }] = parts;
    const [at, to] = this.#operands.counters(2), cursors = this.#operands.counters(parts.length);
    const call = (wide: number) => {
      const tile = this.#tile(parts.map(({ segment }) => segment), count, wide);
      code.get(to).push(add);
      parts.forEach((part, i) => {
        code.get(splats[i]).get(cursors[i]).push(part.depth.length);
        if (i > 0 && depth.start !== null) code.i32(0).push(depth.end).i32(segment.k).op("i32.eq", "select");
      });
      code.call(tile);
    };
    parts.forEach((part, i) => {
      const from = part.panels ?? this.#operands.address(part.segment.panel, area.outer, area.column, part.depth);
      code.get(from).set(cursors[i]);
    });
    code.get(area.column).set(at).get(into).set(to);
    code.loopUpTo(at, area.columnEnd, width, () => {
      call(vectors);
      parts.forEach((part, i) => {
        code.get(cursors[i]).i32(this.#operands.panelStride(part.segment).next).op("i32.add").set(cursors[i]);
      });
      code.get(to).i32(width * 4).op("i32.add").set(to);
    });
    const rest = columns % width;
    if (rest === 0) return;
    // A packed panel is padded with zeros; one in place is only as wide as its columns.
    const padded = parts.every(({ panels }) => panels !== null);
    code.get(at).get(area.columnEnd).op("i32.lt_s").when(() => call(padded ? vectors : rest / 4));
  }

  /** All rows by the area's columns, as dot products along k. The call's first unit is `began`. */
  dotProducts({ outer, column, columnEnd }: Area, result: Local, began: Local): void {
    const code = this.#code, operands = this.#operands;
    const { rows, columnBlock, segments } = this.#plan;
    const all: Depth = { start: null, length: { constant: 0 }, end: { constant: 0 }, most: 0 };
    const [{ panel: { dtype, operand }, splat, k }] = segments;
    const [at, into, zero, scratch] = operands.counters(4);
    const lefts = segments.map((s) => operands.address(s.splat, outer, zero, all));
    const rights = segments.map(({ panel }) =>
      panel.runs ? operands.run(panel, outer, column, all) : operands.address(panel, outer, column, all)
    );
    let packed: PackedGemv | null = null;
    if (isPacked(dtype)) {
      const reader = operands.reader(segments[0].panel);
      code.get(result).i32(rows * columnBlock * 4).op("i32.add").set(scratch);
      const sums = operands.counters(1)[0];
      let prepared!: PreparedRows;
      const prepare = () => {
        const emit = segments[0].rounded ? emitRoundedRows : emitPreparedRows;
        prepared = emit(reader, lefts[0], splat.free * 4, rows, k, scratch, sums);
      };
      // Without batches all units of a call have the same rows.
      if (outer.length > 0) prepare();
      else code.get(operands.frame.unit).get(began).op("i32.eq").when(prepare);
      packed = { type: dtype, size: reader.size, rowRuns: segments[0].panel.free / 32, rows: prepared };
      lefts[0] = prepared.at;
      reader.release();
    }
    const steps = segments.map(({ panel }) => panel.runs ? panel.free / 32 : panel.free * byteSize[panel.dtype]);
    const shape = {
      rows,
      vectors: 1,
      resultRow: columnBlock * 4,
      adds: false,
      relaxed: operands.frame.options.relaxed,
      segments: segments.map(({ splat, panel }, i): TileSegment => {
        return { splatRow: splat.free * 4, splatStep: 4, panelType: panel.dtype, panelStep: steps[i] };
      }),
    };
    code.get(column).set(at).get(result).set(into);
    // Rows that overlap are no whole rows of the operand, whose end is known.
    const most = packed && packed.rowRuns * 32 >= k ? packedColumns(packed.type, rows, packed.rows.rounded) : 1;
    const widths = most === 1 ? [1] : this.#plan.columns % most === 0 ? [most] : [most, 1];
    for (const width of widths) {
      this.functions.push(packed ? emitDotTile(shape, width, packed) : emitDotColumn(shape));
      const made = this.functions.length - 1;
      code.loopUpTo(at, columnEnd, width, () => {
        code.get(into);
        if (packed) code.get(operands.frame.pointers[operand]);
        else code.i32(0);
        segments.forEach((s, i) => code.get(lefts[i]).get(rights[i]).i32(s.k));
        if (packed) code.get(packed.rows.sums);
        code.call(made);
        segments.forEach((_, i) => code.get(rights[i]).i32(width * steps[i]).op("i32.add").set(rights[i]));
        code.get(into).i32(width * 4).op("i32.add").set(into);
      });
    }
  }

  #tile(segments: readonly SegmentPlan[], rows: number, vectors: number): number {
    const key = `${this.#plan.segments.indexOf(segments[0])} ${rows}x${vectors}`;
    const known = this.#tiles.get(key);
    if (known !== undefined) return known;
    this.functions.push(emitTile({
      rows,
      vectors,
      resultRow: this.#plan.columnBlock * 4,
      adds: this.#operands.walks > 1,
      relaxed: this.#operands.frame.options.relaxed,
      segments: segments.map((s): TileSegment => {
        const splat = this.#operands.splatStride(s, rows);
        return {
          splatRow: splat.row,
          splatStep: splat.step,
          panelType: s.panelMode === "inPlace" ? s.panel.dtype : "f32",
          panelStep: this.#operands.panelStride(s).step,
        };
      }),
    }));
    this.#tiles.set(key, this.functions.length - 1);
    return this.functions.length - 1;
  }
}

/** Whether vectors along a side's free axis are copied from where they lie. */
function isCopied(side: Side, mode: SideMode): boolean {
  return mode === "copy" && side.free === 1 && !isPacked(side.dtype) && !side.index.dynamic?.length;
}
