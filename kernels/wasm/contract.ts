/** Matrix products: blocks are packed, multiplied tile by tile, and stored while they are in cache. */
import { sizeOf } from "../../core/aval.ts";
import { byteSize } from "../../core/dtype.ts";
import type { ContractKernel } from "../kernel.ts";
import type { Code, Limit, Local } from "./assembler.ts";
import { type EmitOptions, type EmittedKernel, KernelFrame } from "./frame.ts";
import {
  type Depth,
  emitCopiedBlock,
  emitCopiedPanel,
  emitPackedSplat,
  emitTransposedBlock,
  emitTransposedPanel,
  type Source,
} from "./gemm_pack.ts";
import { type GemmPlan, planGemm, type SegmentPlan, type Side } from "./gemm_plan.ts";
import { emitDotTile, emitTile, type TileSegment } from "./gemm_tile.ts";
import { AxisRewriter } from "./iteration.ts";
import { PointEmitter, type Space } from "./point.ts";

/** Multiplications that make a call of tens of microseconds. */
const productsPerCall = 1 << 19;

export function emitContract(kernel: ContractKernel, options: EmitOptions): EmittedKernel {
  return new GemmEmitter(kernel, planGemm(kernel), options).emit();
}

/** What a unit works on now: rows [first, last) by columns [column, columnEnd) of one batch entry. */
interface Area {
  readonly outer: readonly Local[];
  readonly first: Local;
  readonly last: Local;
  readonly column: Local;
  readonly columnEnd: Local;
}

/** Where in the thread's scratch a unit's sums and packed operands lie; null where an operand is read in place. */
interface Block {
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

class GemmEmitter {
  readonly #kernel: ContractKernel;
  readonly #plan: GemmPlan;
  readonly #frame: KernelFrame;
  readonly #code: Code;
  /** Tile functions by rows and vectors; they come before the kernel's own function. */
  readonly #tiles = new Map<string, number>();
  readonly #functions: Code[] = [];
  #scratchBytes = 0;

  constructor(kernel: ContractKernel, plan: GemmPlan, options: EmitOptions) {
    this.#kernel = kernel;
    this.#plan = plan;
    this.#frame = new KernelFrame(kernel.operands, options);
    this.#code = this.#frame.code;
  }

  emit(): EmittedKernel {
    const { batch } = this.#kernel;
    const { rows, columns, rowBlock, columnBlock, group, segments, transposed, dots } = this.#plan;
    const code = this.#code, { unit } = this.#frame;
    const rowBlocks = Math.ceil(rows / rowBlock), columnBlocks = Math.ceil(columns / columnBlock);
    const whole = segments.map((s): Depth => {
      return { start: null, length: { constant: s.k }, end: { constant: s.k }, most: s.k };
    });
    const block: Block = {
      result: this.#reserve(group * columnBlock * 4),
      panels: segments.map((s) => s.panelMode === "inPlace" ? null : this.#reserve(this.#panelsBytes(s))),
      splats: segments.map((s) =>
        s.splatMode === "inPlace" ? null : this.#reserve(this.#plan.tileRows * this.#deepest(s) * 4)
      ),
    };
    const turned = transposed ? this.#reserve(roundUp(group, 4) * columnBlock * 4) : block.result;
    const [rest, flat, row, column, rowEnd, columnEnd, first, last] = this.#counters(8);
    this.#frame.eachUnit(() => {
      code.get(unit).i32(columnBlocks).op("i32.rem_u").i32(columnBlock).op("i32.mul").set(column);
      code.get(unit).i32(columnBlocks).op("i32.div_u").tee(rest);
      code.i32(rowBlocks).op("i32.rem_u").i32(rowBlock).op("i32.mul").set(row);
      code.get(rest).i32(rowBlocks).op("i32.div_u").set(flat);
      this.#lesser(column, columnBlock, { constant: columns }, columnEnd);
      this.#lesser(row, rowBlock, { constant: rows }, rowEnd);
      const outer = this.#frame.unflatten(flat, batch);
      const area: Area = { outer, first, last, column, columnEnd };
      segments.forEach((s, i) => {
        if (i > 0 || !this.#blocked) this.#packPanels(s, area, whole[i], block.panels[i]);
      });
      code.get(row).set(first);
      code.loopUpTo(first, rowEnd, 1, () => {
        this.#lesser(first, group, rowEnd, last);
        if (dots) this.#dotProducts(area, block.result);
        else if (!this.#blocked) this.#multiply(area, whole, block);
        else {
          this.#eachDepthBlock((part) => {
            this.#packPanels(segments[0], area, part, block.panels[0]);
            this.#multiply(area, [part, ...whole.slice(1)], block);
          });
        }
        if (transposed) {
          const turnedRow = roundUp(group, 4) * 4;
          emitTransposedBlock(code, block.result, columnBlock * 4, roundUp(group, 4), turned, turnedRow, columnBlock);
        }
        this.#stores(area, turned);
        code.get(first).i32(group).op("i32.add").set(first);
      }, 0);
    });
    const depth = segments.reduce((sum, { k }) => sum + k, 0);
    const units = sizeOf(batch) * rowBlocks * columnBlocks;
    this.#functions.push(code);
    const products = Math.min(rowBlock, rows) * Math.min(columnBlock, columns) * depth;
    return this.#frame.finish(units, productsPerCall / products, this.#scratchBytes, this.#functions);
  }

  #counters(count: number): Local[] {
    return Array.from({ length: count }, () => this.#code.local("i32"));
  }

  /** A local with the address of so many bytes of the scratch. */
  #reserve(bytes: number): Local {
    const local = this.#code.local("i32");
    this.#code.get(this.#frame.scratch).i32(this.#scratchBytes).op("i32.add").set(local);
    this.#scratchBytes += roundUp(bytes, 64);
    return local;
  }

  /** into = min(from + step, limit) */
  #lesser(from: Local, step: number, limit: Limit, into: Local): void {
    const code = this.#code;
    const push = () => typeof limit === "number" ? code.get(limit) : code.i32(limit.constant);
    code.get(from).i32(step).op("i32.add").tee(into);
    push();
    code.get(into);
    push();
    code.op("i32.lt_s", "select").set(into);
  }

  /** A side as a load over [...batch, free, k]. */
  #source(side: Side, outer: readonly Local[]): Source {
    const rank = outer.length;
    const batch = outer.map((_, i) => i);
    const rewriter = new AxisRewriter(side.kFirst ? [...batch, rank + 1, rank] : [...batch, rank, rank + 1], rank + 2);
    const axis = { free: rank, k: rank + 1 };
    return {
      side,
      value: { kind: "load", type: "f32", operand: side.operand, index: rewriter.index(side.index) },
      space: (free, k, laneAxis, loopAxis): Space => ({
        ...this.#space([...outer, free, k]),
        laneAxis: axis[laneAxis],
        loopAxis: axis[loopAxis],
      }),
    };
  }

  #space(axes: readonly Local[]): Space {
    const { operands } = this.#kernel;
    const { pointers, options: { relaxed } } = this.#frame;
    return {
      code: this.#code,
      relaxed,
      operands,
      pointers,
      axes,
      laneAxis: axes.length - 1,
      loopAxis: axes.length - 1,
    };
  }

  /** Whether k is walked in several blocks. */
  get #blocked(): boolean {
    const { dots, depthBlock, segments } = this.#plan;
    return !dots && depthBlock < segments[0].k;
  }

  /** The deepest part of a segment that is packed at once. */
  #deepest(segment: SegmentPlan): number {
    return segment === this.#plan.segments[0] ? Math.min(segment.k, this.#plan.depthBlock) : segment.k;
  }

  #panelsBytes(segment: SegmentPlan): number {
    return this.#plan.columnBlock / (4 * this.#plan.vectors) * this.#panelStride(segment).next;
  }

  /** Calls `body` for each block of the first segment's k. */
  #eachDepthBlock(body: (part: Depth) => void): void {
    const code = this.#code, { depthBlock, segments } = this.#plan;
    const [start, end, length] = this.#counters(3);
    code.i32(0).set(start);
    code.loopUpTo(start, { constant: segments[0].k }, 1, () => {
      this.#lesser(start, depthBlock, { constant: segments[0].k }, end);
      code.get(end).get(start).op("i32.sub").set(length);
      body({ start, length, end, most: depthBlock });
      code.get(end).set(start);
    }, 0);
  }

  /** A local with the address of a side's element [free, k] at the depth's start (it has no dynamic part). */
  #address(side: Side, outer: readonly Local[], free: Local, depth: Depth): Local {
    const code = this.#code, size = byteSize[side.dtype];
    const local = code.local("i32");
    code.get(this.#frame.pointers[side.operand]).i32(side.index.offset * size).op("i32.add");
    outer.forEach((axis, i) => code.get(axis).i32(side.index.strides[i] * size).op("i32.mul", "i32.add"));
    if (depth.start !== null) code.get(depth.start).i32(side.k * size).op("i32.mul", "i32.add");
    code.get(free).i32(side.free * size).op("i32.mul", "i32.add").set(local);
    return local;
  }

  /** Packs a segment's panels for the area's columns. */
  #packPanels(segment: SegmentPlan, area: Area, depth: Depth, to: Local | null): void {
    if (to === null) return;
    const code = this.#code, width = 4 * this.#plan.vectors, { panel, panelMode } = segment;
    const { columnBlock, columns } = this.#plan, { outer, column, columnEnd } = area;
    const { next } = this.#panelStride(segment);
    const [at, into] = this.#counters(2);
    code.get(column).set(at).get(to).set(into);
    const pack = (count: number) => {
      if (panelMode === "transpose") {
        emitTransposedPanel(code, panel, depth, this.#address(panel, outer, at, depth), count, width, into);
      } else emitCopiedPanel(code, this.#source(panel, outer), depth, at, count, width, into);
      code.get(into).i32(next).op("i32.add").set(into);
    };
    if (panelMode === "copy" && panel.free === 1 && !panel.index.dynamic?.length) {
      code.loopUpTo(at, columnEnd, columnBlock, () => {
        const from = this.#address(panel, outer, at, depth);
        emitCopiedBlock(code, panel, depth, from, columnBlock / width, width, into, next);
      });
    }
    code.loopUpTo(at, columnEnd, width, () => pack(width));
    const rest = columns % width;
    if (rest > 0) code.get(at).get(columnEnd).op("i32.lt_s").when(() => pack(rest));
  }

  /** Multiplies the area's rows by its columns into the block's result. */
  #multiply(area: Area, depths: readonly Depth[], block: Block): void {
    const code = this.#code;
    const { rows, tileRows, columnBlock, segments } = this.#plan;
    const [row, into] = this.#counters(2);
    const tiles = (count: number) => {
      const splats = segments.map((s, i) => {
        const to = block.splats[i];
        if (to === null) return this.#address(s.splat, area.outer, row, depths[i]);
        emitPackedSplat(code, this.#source(s.splat, area.outer), depths[i], row, count, s.splatMode === "byDepth", to);
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
    const bases = segments.map((s, i) => panels[i] ?? this.#address(s.panel, area.outer, area.column, depths[i]));
    this.#eachPass(depths[0], (pass) => {
      const [at, to, splat] = this.#counters(3), cursors = this.#counters(segments.length);
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
      advance(splats[0], this.#splatStride(segments[0], count).step, splat);
      advance(bases[0], this.#panelStride(segments[0]).step, cursors[0]);
      bases.slice(1).forEach((base, i) => code.get(base).set(cursors[i + 1]));
      code.get(area.column).set(at).get(into).set(to);
      code.loopUpTo(at, area.columnEnd, width, () => {
        call(vectors);
        segments.forEach((s, i) => code.get(cursors[i]).i32(this.#panelStride(s).next).op("i32.add").set(cursors[i]));
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
    const [start, end, length] = this.#counters(3);
    code.i32(0).set(start);
    code.loopUpTo(start, depth.length, 1, () => {
      this.#lesser(start, pass, depth.length, end);
      code.get(end).get(start).op("i32.sub").set(length);
      body({ start, first: start, length, end });
      code.get(end).set(start);
    }, 0);
  }

  /** All rows by the area's columns, as dot products along k. */
  #dotProducts({ outer, column, columnEnd }: Area, result: Local): void {
    const code = this.#code;
    const { rows, columns, columnBlock, segments } = this.#plan;
    const all: Depth = { start: null, length: { constant: 0 }, end: { constant: 0 }, most: 0 };
    const [at, into, zero] = this.#counters(3);
    const lefts = segments.map((s) => this.#address(s.splat, outer, zero, all));
    const tile = (count: number) => {
      const shape = {
        rows,
        vectors: 1,
        resultRow: columnBlock * 4,
        adds: false,
        relaxed: this.#frame.options.relaxed,
        segments: segments.map(({ splat, panel }): TileSegment => ({
          splatRow: splat.free * 4,
          splatStep: 4,
          panelType: panel.dtype,
          panelStep: panel.free * byteSize[panel.dtype],
        })),
      };
      this.#functions.push(emitDotTile(shape, count));
      const made = this.#functions.length - 1;
      const rights = segments.map((s) => this.#address(s.panel, outer, at, all));
      code.get(into).i32(0);
      segments.forEach((s, i) => code.get(lefts[i]).get(rights[i]).i32(s.k));
      code.call(made);
    };
    code.get(column).set(at).get(result).set(into);
    code.loopUpTo(at, columnEnd, 4, () => {
      tile(4);
      code.get(into).i32(16).op("i32.add").set(into);
    });
    if (columns % 4 > 0) code.get(at).get(columnEnd).op("i32.lt_s").when(() => tile(columns % 4));
  }

  /** Bytes from one row, and one k, of a segment's splat side to the next, as a tile of `count` rows sees it. */
  #splatStride(segment: SegmentPlan, count: number): { row: number; step: number } {
    const { splat, splatMode } = segment;
    if (splatMode === "inPlace") return { row: splat.free * 4, step: splat.k * 4 };
    return splatMode === "byRow" ? { row: this.#deepest(segment) * 4, step: 4 } : { row: 4, step: count * 4 };
  }

  /** Bytes from one k of a segment's panel to the next, and from one panel to the next. */
  #panelStride(segment: SegmentPlan): { step: number; next: number } {
    const { panel, panelMode } = segment;
    const width = 4 * this.#plan.vectors;
    // A line more than a panel needs: panels whose rows fall on the same cache sets would push each other out.
    if (panelMode !== "inPlace") return { step: width * 4, next: width * this.#deepest(segment) * 4 + 64 };
    const size = byteSize[panel.dtype];
    return { step: panel.k * size, next: width * size };
  }

  #tile(rows: number, vectors: number): number {
    const key = `${rows}x${vectors}`;
    const known = this.#tiles.get(key);
    if (known !== undefined) return known;
    const { segments, columnBlock } = this.#plan;
    this.#functions.push(emitTile({
      rows,
      vectors,
      resultRow: columnBlock * 4,
      adds: this.#plan.pass < segments[0].k,
      relaxed: this.#frame.options.relaxed,
      segments: segments.map((s): TileSegment => {
        const splat = this.#splatStride(s, rows);
        return {
          splatRow: splat.row,
          splatStep: splat.step,
          panelType: s.panelMode === "inPlace" ? s.panel.dtype : "f32",
          panelStep: this.#panelStride(s).step,
        };
      }),
    }));
    this.#tiles.set(key, this.#functions.length - 1);
    return this.#functions.length - 1;
  }

  /** Runs the kernel's stores over the finished block, whose lanes lie along the stores' contiguous axis. */
  #stores({ outer, first, last, column, columnEnd }: Area, block: Local): void {
    const code = this.#code;
    const { swapped, transposed, columnBlock, group } = this.#plan;
    const [across, along, base] = this.#counters(3);
    // The block is [rows][columns], or [columns][rows] once transposed; `along` runs through its inner axis.
    const [slow, slowEnd, fast, fastEnd, pitch] = transposed
      ? [column, columnEnd, first, last, roundUp(group, 4)]
      : [first, last, column, columnEnd, columnBlock];
    const alongN = transposed === swapped;
    const rank = outer.length, fastAxis = alongN ? rank + 1 : rank;
    const space: Space = {
      ...this.#space(alongN ? [...outer, across, along] : [...outer, along, across]),
      laneAxis: fastAxis,
      loopAxis: fastAxis,
      result: {
        axes: (1 << rank) | (1 << (rank + 1)),
        push: (_, lanes) => {
          code.get(base).get(along).i32(4).op("i32.mul", "i32.add");
          code.memory(lanes === 4 ? "v128.load" : "v128.load32_zero");
        },
      },
    };
    const stores = this.#kernel.stores;
    code.get(slow).set(across);
    code.loopUpTo(across, slowEnd, 1, () => {
      code.get(across).get(slow).op("i32.sub").i32(pitch).op("i32.mul").get(fast).op("i32.sub");
      code.i32(4).op("i32.mul").get(block).op("i32.add").set(base);
      const point = new PointEmitter(space);
      point.hoist([], stores);
      code.get(fast).set(along);
      code.loopUpTo(along, fastEnd, 4, () => point.store(stores, 4));
      code.loopUpTo(along, fastEnd, 1, () => point.store(stores, 1));
    });
  }
}

function roundUp(x: number, step: number): number {
  return Math.ceil(x / step) * step;
}
