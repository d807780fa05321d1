/** Packing and multiplying one area of a product, tile by tile. */
import { byteSize } from "../../core/dtype.ts";
import { isPacked } from "../../core/packed.ts";
import type { Code, Limit, Local } from "./assembler.ts";
import type { GemmOperands } from "./gemm_operands.ts";
import { type Depth, emitCopiedBlock, emitCopiedPanel, emitPackedSplat, emitTransposedPanel } from "./gemm_pack.ts";
import type { GemmPlan, SegmentPlan } from "./gemm_plan.ts";
import { emitDotColumn, emitDotTile, emitTile, type TileSegment } from "./gemm_tile.ts";
import { emitUnpackedPanel, emitUnpackedRows } from "./packed_panels.ts";
import { emitPreparedRows, packedColumns, type PackedDots, type PreparedRows } from "./packed_dots.ts";

/** What a unit works on now: rows [first, last) by columns [column, columnEnd) of one batch entry. */
export interface Area {
  readonly outer: readonly Local[];
  readonly first: Local;
  readonly last: Local;
  readonly column: Local;
  readonly columnEnd: Local;
}

/** Where in the thread's scratch a unit's sums and packed operands lie; null where an operand is read in place. */
export interface Block {
  readonly result: Local;
  readonly panels: readonly (Local | null)[];
  readonly splats: readonly (Local | null)[];
}

/** One walk of the tiles along a depth. */
interface Pass {
  /** Where it starts within the depth; 0 if null. */
  readonly start: Local | null;
  /** 0 in the first pass of all, which starts the sums; null if there is no other. */
  readonly first: Local | null;
  readonly length: Limit;
  /** Where it ends in the segment's k; null if it is the only pass. */
  readonly end: Local | null;
}

/** Emits the loops over an area; the tile functions that they call are collected in `functions`. */
export class GemmLoops {
  readonly functions: Code[] = [];
  readonly #operands: GemmOperands;
  readonly #code: Code;
  readonly #plan: GemmPlan;
  /** Positions of tile functions by rows and vectors. */
  readonly #tiles = new Map<string, number>();

  constructor(operands: GemmOperands) {
    this.#operands = operands;
    this.#code = operands.code;
    this.#plan = operands.plan;
  }

  /** Packs a segment's panels for the area's columns. */
  packPanels(segment: SegmentPlan, area: Area, depth: Depth, to: Local | null): void {
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
    } else if (panelMode === "copy" && panel.free === 1 && !isPacked(panel.dtype) && !panel.index.dynamic?.length) {
      code.loopUpTo(at, columnEnd, columnBlock, () => {
        const from = this.#operands.address(panel, outer, at, depth);
        emitCopiedBlock(code, panel, depth, from, columnBlock / width, width, into, next);
      });
    }
    code.loopUpTo(at, columnEnd, width, () => pack(width));
    const rest = columns % width;
    if (rest > 0) code.get(at).get(columnEnd).op("i32.lt_s").when(() => pack(rest));
  }

  /** Multiplies the area's rows by its columns into the block's result. */
  multiply(area: Area, depths: readonly Depth[], block: Block): void {
    const code = this.#code;
    const { rows, tileRows, columnBlock, segments } = this.#plan;
    const [row, into] = this.#operands.counters(2);
    const tiles = (count: number) => {
      const splats = segments.map((s, i) => {
        const to = block.splats[i];
        if (to === null) return this.#operands.address(s.splat, area.outer, row, depths[i]);
        emitPackedSplat(
          code,
          this.#operands.source(s.splat, area.outer),
          depths[i],
          row,
          count,
          s.splatMode === "byDepth",
          to,
        );
        return to;
      });
      this.#rowOfTiles(area, depths, count, into, splats, block.panels);
    };
    code.get(area.first).set(row).get(block.result).set(into);
    code.loopUpTo(row, area.last, tileRows, () => {
      tiles(tileRows);
      code.get(into).i32(tileRows * columnBlock * 4).op("i32.add").set(into);
    });
    const rest = rows % tileRows;
    if (rest > 0) code.get(row).get(area.last).op("i32.lt_s").when(() => tiles(rest));
  }

  /** One row of tiles over the area's columns. `splats` are the addresses of its rows at the depths' starts. */
  #rowOfTiles(
    area: Area,
    depths: readonly Depth[],
    count: number,
    into: Local,
    splats: readonly Local[],
    panels: readonly (Local | null)[],
  ): void {
    const code = this.#code;
    const { segments, vectors, columns } = this.#plan;
    const width = 4 * vectors;
    const push = (limit: Limit) => typeof limit === "number" ? code.get(limit) : code.i32(limit.constant);
    const bases = segments.map((s, i) =>
      panels[i] ?? this.#operands.address(s.panel, area.outer, area.column, depths[i])
    );
    this.#eachPass(depths[0], (pass) => {
      const [at, to, splat] = this.#operands.counters(3), cursors = this.#operands.counters(segments.length);
      const advance = (base: Local, step: number, into: Local) => {
        code.get(base);
        if (pass.start !== null) code.get(pass.start).i32(step).op("i32.mul", "i32.add");
        code.set(into);
      };
      const call = (wide: number) => {
        const tile = this.#tile(count, wide);
        code.get(to);
        if (pass.first === null) code.i32(0);
        else code.get(pass.first);
        segments.forEach((_, i) => {
          code.get(i === 0 ? splat : splats[i]).get(cursors[i]);
          push(i === 0 ? pass.length : depths[i].length);
          // Further segments continue the last pass over the first one's k.
          if (i > 0 && pass.end !== null) code.i32(0).get(pass.end).i32(segments[0].k).op("i32.eq", "select");
        });
        code.call(tile);
      };
      advance(splats[0], this.#operands.splatStride(segments[0], count).step, splat);
      advance(bases[0], this.#operands.panelStride(segments[0]).step, cursors[0]);
      bases.slice(1).forEach((base, i) => code.get(base).set(cursors[i + 1]));
      code.get(area.column).set(at).get(into).set(to);
      code.loopUpTo(at, area.columnEnd, width, () => {
        call(vectors);
        segments.forEach((s, i) =>
          code.get(cursors[i]).i32(this.#operands.panelStride(s).next).op("i32.add").set(cursors[i])
        );
        code.get(to).i32(width * 4).op("i32.add").set(to);
      });
      const rest = columns % width;
      if (rest === 0) return;
      // A packed panel is padded with zeros; one in place is only as wide as its columns.
      const padded = segments.every((s) => s.panelMode !== "inPlace");
      code.get(at).get(area.columnEnd).op("i32.lt_s").when(() => call(padded ? vectors : rest / 4));
    });
  }

  /** Calls `body` for each pass over a depth. */
  #eachPass(depth: Depth, body: (pass: Pass) => void): void {
    const code = this.#code, { pass } = this.#plan;
    if (depth.most <= pass) {
      const end = typeof depth.end === "number" ? depth.end : null;
      return body({ start: null, first: depth.start, length: depth.length, end });
    }
    if (depth.start !== null) throw new Error("a block of k is walked in one pass");
    const [start, end, length] = this.#operands.counters(3);
    code.i32(0).set(start);
    code.loopUpTo(start, depth.length, 1, () => {
      code.get(start).i32(pass).op("i32.add").set(end).limit(end, depth.length);
      code.get(end).get(start).op("i32.sub").set(length);
      body({ start, first: start, length, end });
      code.get(end).set(start);
    }, 0);
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
    let packed: PackedDots | null = null;
    if (isPacked(dtype)) {
      const reader = operands.reader(segments[0].panel);
      code.get(result).i32(rows * columnBlock * 4).op("i32.add").set(scratch);
      const sums = operands.counters(1)[0];
      let prepared!: PreparedRows;
      const prepare = () => {
        prepared = emitPreparedRows(reader, lefts[0], splat.free * 4, rows, k, scratch, sums);
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
    const most = packed && packed.rowRuns * 32 >= k ? packedColumns(packed.type, rows) : 1;
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

  #tile(rows: number, vectors: number): number {
    const key = `${rows}x${vectors}`;
    const known = this.#tiles.get(key);
    if (known !== undefined) return known;
    const { segments, columnBlock } = this.#plan;
    this.functions.push(emitTile({
      rows,
      vectors,
      resultRow: columnBlock * 4,
      adds: this.#plan.pass < segments[0].k,
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
