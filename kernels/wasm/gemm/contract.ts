/** Matrix products: blocks are packed, multiplied tile by tile, and stored while they are in cache. */
import type { ContractKernel } from "../../ir/kernel.ts";
import type { Code, Local } from "../assembler.ts";
import type { EmittedKernel, KernelFrame } from "../frame.ts";
import { blasImport, emitBlasProducts } from "./blas.ts";
import { type Area, GemmLoops, type Packed, type Part } from "./loops.ts";
import { GemmOperands } from "./operands.ts";
import { type Depth, emitTransposedBlock } from "./pack.ts";
import { roundUp, type SegmentPlan } from "./plan.ts";
import { emitGemv } from "./gemv.ts";
import { PointEmitter } from "../point.ts";
import type { Space } from "../point_access.ts";
import type { Schedule } from "../schedule.ts";

export function emitContract(frame: KernelFrame<"contract">): EmittedKernel {
  return new GemmEmitter(frame).emit();
}

class GemmEmitter {
  readonly #kernel: ContractKernel;
  readonly #plan: Schedule<"contract">;
  readonly #frame: KernelFrame<"contract">;
  readonly #code: Code;
  readonly #operands: GemmOperands;
  readonly #loops: GemmLoops;
  #scratchBytes = 0;
  /** The first unit of a call. */
  readonly #began: Local;

  constructor(frame: KernelFrame<"contract">) {
    this.#kernel = frame.kernel;
    this.#plan = frame.schedule;
    this.#frame = frame;
    this.#code = frame.code;
    this.#operands = new GemmOperands(frame);
    this.#loops = new GemmLoops(this.#operands);
    this.#began = this.#code.local("i32");
  }

  emit(): EmittedKernel {
    const { batch } = this.#kernel;
    const { rows, columns, rowBlock, columnBlock, transposed, by } = this.#plan;
    const code = this.#code, { unit } = this.#frame;
    const rowBlocks = Math.ceil(rows / rowBlock), columnBlocks = Math.ceil(columns / columnBlock);
    const result = this.#reserve(rowBlock * columnBlock * 4 + this.#operands.preparedBytes);
    const packed = by === "tiles" ? this.#reservePacked() : [];
    const turned = transposed ? this.#reserve(roundUp(rowBlock, 4) * columnBlock * 4) : result;
    const [rest, flat, first, last, column, columnEnd] = this.#operands.counters(6);
    code.get(unit).set(this.#began);
    this.#frame.eachUnit(() => {
      code.get(unit).i32(columnBlocks).op("i32.rem_u").i32(columnBlock).op("i32.mul").set(column);
      code.get(unit).i32(columnBlocks).op("i32.div_u").tee(rest);
      code.i32(rowBlocks).op("i32.rem_u").i32(rowBlock).op("i32.mul").set(first);
      code.get(rest).i32(rowBlocks).op("i32.div_u").set(flat);
      code.get(column).i32(columnBlock).op("i32.add").set(columnEnd).limit(columnEnd, { constant: columns });
      code.get(first).i32(rowBlock).op("i32.add").set(last).limit(last, { constant: rows });
      const area: Area = { outer: this.#frame.unflatten(flat, batch), first, last, column, columnEnd };
      if (by === "blas") return this.#multiplyByBlas(area, result);
      if (by === "gemv") emitGemv(this.#operands, area, result, this.#loops.functions);
      else if (by === "dotGemv") this.#loops.dotProducts(area, result, this.#began);
      else this.#multiply(area, packed, result);
      if (transposed) {
        const turnedRow = roundUp(rowBlock, 4) * 4;
        emitTransposedBlock(code, result, columnBlock * 4, roundUp(rowBlock, 4), turned, turnedRow, columnBlock);
      }
      this.#stores(area, turned);
    });
    const functions = [...this.#loops.functions, code], imported = by === "blas" ? [blasImport] : [];
    return this.#frame.finish(this.#scratchBytes, functions, imported);
  }

  /** A local with the address of this many bytes of scratch memory. */
  #reserve(bytes: number): Local {
    const local = this.#code.local("i32");
    this.#code.get(this.#frame.scratch).i32(this.#scratchBytes).op("i32.add").set(local);
    this.#scratchBytes += roundUp(bytes, 64);
    return local;
  }

  /** Room for the packed operands of one walk: those of a chain's first segment, of its second, and so on. */
  #reservePacked(): Packed[] {
    const operands = this.#operands, { chains } = operands;
    const room = (i: number, bytes: (segment: SegmentPlan) => number) => {
      const most = Math.max(...chains.map((chain) => i < chain.length ? bytes(chain[i]) : 0));
      return most === 0 ? null : this.#reserve(most);
    };
    return Array.from({ length: Math.max(...chains.map(({ length }) => length)) }, (_, i) => ({
      panels: room(i, (s) => s.panelMode === "inPlace" ? 0 : operands.panelsBytes(s)),
      splat: room(i, (s) => s.splatMode === "inPlace" ? 0 : this.#plan.tileRows * operands.deepest(s) * 4),
    }));
  }

  /** An area by register tiles: block by block of each chain's k. */
  #multiply(area: Area, packed: readonly Packed[], result: Local): void {
    this.#operands.chains.forEach((chain, c) => {
      const part = (i: number, depth: Depth): Part => {
        const segment = chain[i], { panels, splat } = packed[i];
        return {
          segment,
          depth,
          panels: segment.panelMode === "inPlace" ? null : panels,
          splat: segment.splatMode === "inPlace" ? null : splat,
        };
      };
      const short = chain.slice(1).map((s, i) => part(i + 1, wholeDepth(s.k)));
      for (const one of short) this.#loops.packPanels(one, area);
      this.#eachDepthBlock(chain[0], (depth) => {
        const long = part(0, depth);
        this.#loops.packPanels(long, area);
        this.#loops.multiply(area, [long, ...short], c > 0 ? { constant: 1 } : depth.start ?? { constant: 0 }, result);
      });
    });
  }

  /** A whole unit by the BLAS: into its place where the product is all that is stored, else by way of the block. */
  #multiplyByBlas(area: Area, block: Local): void {
    const code = this.#code;
    if (this.#plan.inPlace) {
      const [{ index, operand }] = this.#kernel.stores, { outer, first, column } = area;
      const strides = index.strides.slice(outer.length);
      const [row] = this.#plan.swapped ? strides.reverse() : strides;
      const pushTo = () => {
        code.get(this.#frame.pointers[operand]).get(column).i32(index.offset).op("i32.add");
        code.get(first).i32(row).op("i32.mul", "i32.add");
        outer.forEach((axis, i) => code.get(axis).i32(index.strides[i]).op("i32.mul", "i32.add"));
        code.i32(4).op("i32.mul", "i32.add");
      };
      return emitBlasProducts(this.#operands, area, pushTo, row, (bytes) => this.#reserve(bytes));
    }
    const { columnBlock } = this.#plan;
    emitBlasProducts(this.#operands, area, () => code.get(block), columnBlock, (bytes) => this.#reserve(bytes));
    this.#stores(area, block);
  }

  /** Calls `body` for each block of a segment's k. */
  #eachDepthBlock(segment: SegmentPlan, body: (part: Depth) => void): void {
    const code = this.#code, most = this.#operands.deepest(segment), k = { constant: segment.k };
    if (most >= segment.k) return body(wholeDepth(segment.k));
    const [start, end, length] = this.#operands.counters(3);
    code.i32(0).set(start);
    code.loopUpTo(start, k, 1, () => {
      code.get(start).i32(most).op("i32.add").set(end).limit(end, k);
      code.get(end).get(start).op("i32.sub").set(length);
      body({ start, length, end, most });
      code.get(end).set(start);
    }, 0);
  }

  /** Runs the kernel's stores over the finished block, whose lanes lie along the stores' contiguous axis. */
  #stores({ outer, first, last, column, columnEnd }: Area, block: Local): void {
    const code = this.#code;
    const { swapped, transposed, columnBlock, rowBlock } = this.#plan;
    const [across, along, base] = this.#operands.counters(3);
    // The block is [rows][columns], or [columns][rows] once transposed; `along` runs through its inner axis.
    const [slow, slowEnd, fast, fastEnd, pitch] = transposed
      ? [column, columnEnd, first, last, roundUp(rowBlock, 4)]
      : [first, last, column, columnEnd, columnBlock];
    const alongN = transposed === swapped;
    const rank = outer.length, fastAxis = alongN ? rank + 1 : rank;
    const space: Space = {
      ...this.#operands.space(alongN ? [...outer, across, along] : [...outer, along, across]),
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

/** All of a k at once. */
function wholeDepth(k: number): Depth {
  return { start: null, length: { constant: k }, end: { constant: k }, most: k };
}
