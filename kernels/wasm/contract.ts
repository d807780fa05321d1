/** Matrix products: blocks are packed, multiplied tile by tile, and stored while they are in cache. */
import { sizeOf } from "../../core/aval.ts";
import { byteSize } from "../../core/dtype.ts";
import type { ContractKernel } from "../kernel.ts";
import type { Code, Local } from "./assembler.ts";
import { type EmitOptions, type EmittedKernel, KernelFrame } from "./frame.ts";
import {
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
    const result = this.#reserve(group * columnBlock * 4);
    const turned = transposed ? this.#reserve(roundUp(group, 4) * columnBlock * 4) : result;
    const panels = segments.map((s) =>
      s.panelMode === "inPlace"
        ? null
        : this.#reserve(columnBlock / (4 * this.#plan.vectors) * this.#panelStride(s).next)
    );
    const splats = segments.map((s) => s.splatMode === "inPlace" ? null : this.#reserve(this.#plan.tileRows * s.k * 4));
    const [rest, flat, row, column, rowEnd, columnEnd, first, last] = this.#counters(8);
    this.#frame.eachUnit(() => {
      code.get(unit).i32(columnBlocks).op("i32.rem_u").i32(columnBlock).op("i32.mul").set(column);
      code.get(unit).i32(columnBlocks).op("i32.div_u").tee(rest);
      code.i32(rowBlocks).op("i32.rem_u").i32(rowBlock).op("i32.mul").set(row);
      code.get(rest).i32(rowBlocks).op("i32.div_u").set(flat);
      this.#lesser(column, columnBlock, { constant: columns }, columnEnd);
      this.#lesser(row, rowBlock, { constant: rows }, rowEnd);
      const outer = this.#frame.unflatten(flat, batch);
      segments.forEach((s, i) => this.#packPanels(s, outer, column, columnEnd, panels[i]));
      code.get(row).set(first);
      code.loopUpTo(first, rowEnd, 1, () => {
        this.#lesser(first, group, rowEnd, last);
        if (dots) this.#dotProducts(outer, column, columnEnd, result);
        else this.#multiply(outer, first, last, column, columnEnd, result, panels, splats);
        if (transposed) {
          const turnedRow = roundUp(group, 4) * 4;
          emitTransposedBlock(code, result, columnBlock * 4, roundUp(group, 4), turned, turnedRow, columnBlock);
        }
        this.#stores(outer, first, last, column, columnEnd, turned);
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
  #lesser(from: Local, step: number, limit: Local | { readonly constant: number }, into: Local): void {
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

  /** A local with the address of a side's element [free, k 0] (which has no dynamic part). */
  #address(side: Side, outer: readonly Local[], free: Local): Local {
    const code = this.#code, size = byteSize[side.dtype];
    const local = code.local("i32");
    code.get(this.#frame.pointers[side.operand]).i32(side.index.offset * size).op("i32.add");
    outer.forEach((axis, i) => code.get(axis).i32(side.index.strides[i] * size).op("i32.mul", "i32.add"));
    code.get(free).i32(side.free * size).op("i32.mul", "i32.add").set(local);
    return local;
  }

  /** Packs a segment's panels for columns [column, columnEnd). */
  #packPanels(segment: SegmentPlan, outer: readonly Local[], column: Local, columnEnd: Local, to: Local | null): void {
    if (to === null) return;
    const code = this.#code, width = 4 * this.#plan.vectors, { k, panel, panelMode } = segment;
    const [at, into] = this.#counters(2);
    code.get(column).set(at).get(to).set(into);
    const pack = (count: number) => {
      if (panelMode === "transpose") {
        const from = this.#address(panel, outer, at);
        emitTransposedPanel(code, panel, k, from, count, width, into);
      } else emitCopiedPanel(code, this.#source(panel, outer), k, at, count, width, into);
      code.get(into).i32(this.#panelStride(segment).next).op("i32.add").set(into);
    };
    const { columnBlock } = this.#plan;
    if (panelMode === "copy" && panel.free === 1 && !panel.index.dynamic?.length) {
      const { next } = this.#panelStride(segment);
      code.loopUpTo(at, columnEnd, columnBlock, () => {
        emitCopiedBlock(code, panel, k, this.#address(panel, outer, at), columnBlock / width, width, into, next);
      });
    }
    code.loopUpTo(at, columnEnd, width, () => pack(width));
    const rest = this.#plan.columns % width;
    if (rest > 0) code.get(at).get(columnEnd).op("i32.lt_s").when(() => pack(rest));
  }

  /** Multiplies rows [first, last) by columns [column, columnEnd) into the block at `result`. */
  #multiply(
    outer: readonly Local[],
    first: Local,
    last: Local,
    column: Local,
    columnEnd: Local,
    result: Local,
    panels: readonly (Local | null)[],
    splats: readonly (Local | null)[],
  ): void {
    const code = this.#code;
    const { rows, tileRows, columnBlock, segments } = this.#plan;
    const [row, into] = this.#counters(2);
    const tiles = (count: number) => {
      segments.forEach((s, i) => {
        const to = splats[i];
        if (to === null) return;
        emitPackedSplat(code, this.#source(s.splat, outer), s.k, row, count, s.splatMode === "byDepth", to);
      });
      const from = segments.map((s, i) => splats[i] ?? this.#address(s.splat, outer, row));
      this.#rowOfTiles(outer, count, column, columnEnd, into, from, panels);
    };
    code.get(first).set(row).get(result).set(into);
    code.loopUpTo(row, last, tileRows, () => {
      tiles(tileRows);
      code.get(into).i32(tileRows * columnBlock * 4).op("i32.add").set(into);
    });
    const rest = rows % tileRows;
    if (rest > 0) code.get(row).get(last).op("i32.lt_s").when(() => tiles(rest));
  }

  /** All rows by columns [column, columnEnd), as dot products along k. */
  #dotProducts(outer: readonly Local[], column: Local, columnEnd: Local, result: Local): void {
    const code = this.#code;
    const { rows, columns, columnBlock, segments } = this.#plan;
    const [at, into, zero] = this.#counters(3);
    const lefts = segments.map((s) => this.#address(s.splat, outer, zero));
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
      const rights = segments.map((s) => this.#address(s.panel, outer, at));
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

  /** One row of tiles, over all columns of the block and all k. `splats` are the addresses of its rows at k 0. */
  #rowOfTiles(
    outer: readonly Local[],
    count: number,
    column: Local,
    columnEnd: Local,
    into: Local,
    splats: readonly Local[],
    panels: readonly (Local | null)[],
  ): void {
    const code = this.#code;
    const { segments, vectors, columns, depthBlock } = this.#plan;
    const [at, to, start, length] = this.#counters(4);
    const width = 4 * vectors;
    const bases = segments.map((s, i) => panels[i] ?? this.#address(s.panel, outer, column));
    const splat0 = code.local("i32"), cursors = this.#counters(segments.length);
    const call = (wide: number) => {
      const tile = this.#tile(count, wide);
      code.get(to).get(start).get(splat0).get(cursors[0]).get(length);
      segments.slice(1).forEach((s, i) => {
        code.get(splats[i + 1]).get(cursors[i + 1]);
        // Further segments continue the last block of the first one's k.
        code.i32(s.k).i32(0).get(start).get(length).op("i32.add").i32(segments[0].k).op("i32.eq", "select");
      });
      code.call(tile);
    };
    code.i32(0).set(start);
    code.loopUpTo(start, { constant: Math.max(1, segments[0].k) }, 1, () => {
      this.#lesser(start, depthBlock, { constant: segments[0].k }, length);
      code.get(length).get(start).op("i32.sub").set(length);
      code.get(splats[0]).get(start).i32(this.#splatStride(segments[0], count).step).op("i32.mul", "i32.add").set(
        splat0,
      );
      segments.forEach((s, i) => {
        code.get(bases[i]);
        if (i === 0) code.get(start).i32(this.#panelStride(s).step).op("i32.mul", "i32.add");
        code.set(cursors[i]);
      });
      code.get(column).set(at).get(into).set(to);
      code.loopUpTo(at, columnEnd, width, () => {
        call(vectors);
        segments.forEach((s, i) => code.get(cursors[i]).i32(this.#panelStride(s).next).op("i32.add").set(cursors[i]));
        code.get(to).i32(width * 4).op("i32.add").set(to);
      });
      const rest = columns % width;
      if (rest > 0) {
        // A packed panel is padded with zeros; one in place is only as wide as its columns.
        const padded = segments.every((s) => s.panelMode !== "inPlace");
        code.get(at).get(columnEnd).op("i32.lt_s").when(() => call(padded ? vectors : rest / 4));
      }
      code.get(start).i32(depthBlock).op("i32.add").set(start);
    }, 0);
  }

  /** Bytes from one row, and one k, of a segment's splat side to the next, as a tile of `count` rows sees it. */
  #splatStride({ splat, splatMode, k }: SegmentPlan, count: number): { row: number; step: number } {
    if (splatMode === "inPlace") return { row: splat.free * 4, step: splat.k * 4 };
    return splatMode === "byRow" ? { row: k * 4, step: 4 } : { row: 4, step: count * 4 };
  }

  /** Bytes from one k of a segment's panel to the next, and from one panel to the next. */
  #panelStride({ panel, panelMode, k }: SegmentPlan): { step: number; next: number } {
    const width = 4 * this.#plan.vectors;
    // A line more than a panel needs: panels whose rows fall on the same cache sets would push each other out.
    if (panelMode !== "inPlace") return { step: width * 4, next: width * k * 4 + 64 };
    const size = byteSize[panel.dtype];
    return { step: panel.k * size, next: width * size };
  }

  #tile(rows: number, vectors: number): number {
    const key = `${rows}x${vectors}`;
    const known = this.#tiles.get(key);
    if (known !== undefined) return known;
    const { segments, columnBlock, depthBlock } = this.#plan;
    this.#functions.push(emitTile({
      rows,
      vectors,
      resultRow: columnBlock * 4,
      adds: depthBlock < segments[0].k,
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
  #stores(outer: readonly Local[], first: Local, last: Local, column: Local, columnEnd: Local, block: Local): void {
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
