/** Matrix products: blocks are packed, multiplied tile by tile, and stored while they are in cache. */
import { sizeOf } from "../../core/aval.ts";
import type { ContractKernel } from "../kernel.ts";
import type { Code, Local } from "./assembler.ts";
import { type EmitOptions, type EmittedKernel, KernelFrame } from "./frame.ts";
import { blasImport, emitBlasProducts, planBlas, soleStore } from "./gemm_blas.ts";
import { type Area, type Block, GemmLoops } from "./gemm_loops.ts";
import { GemmOperands } from "./gemm_operands.ts";
import { type Depth, emitTransposedBlock } from "./gemm_pack.ts";
import { type GemmPlan, planGemm } from "./gemm_plan.ts";
import { emitSweep, planSweep } from "./gemm_sweep.ts";
import { PointEmitter, type Space } from "./point.ts";

/** Multiplications that make a call of tens of microseconds. */
const productsPerCall = 1 << 18;

export function emitContract(kernel: ContractKernel, options: EmitOptions): EmittedKernel {
  const blas = options.blasFrom == null ? null : planBlas(kernel, options.blasFrom);
  return new GemmEmitter(kernel, blas ?? planSweep(kernel) ?? planGemm(kernel), options).emit();
}

class GemmEmitter {
  readonly #kernel: ContractKernel;
  readonly #plan: GemmPlan;
  readonly #frame: KernelFrame;
  readonly #code: Code;
  readonly #operands: GemmOperands;
  readonly #loops: GemmLoops;
  #scratchBytes = 0;
  /** The first unit of a call. */
  readonly #began: Local;

  constructor(kernel: ContractKernel, plan: GemmPlan, options: EmitOptions) {
    this.#kernel = kernel;
    this.#plan = plan;
    this.#frame = new KernelFrame(kernel.operands, options);
    this.#code = this.#frame.code;
    this.#operands = new GemmOperands(kernel, plan, this.#frame);
    this.#loops = new GemmLoops(this.#operands);
    this.#began = this.#code.local("i32");
  }

  emit(): EmittedKernel {
    const { batch } = this.#kernel;
    const { rows, columns, rowBlock, columnBlock, group, segments, transposed, by } = this.#plan;
    const code = this.#code, { unit } = this.#frame;
    const rowBlocks = Math.ceil(rows / rowBlock), columnBlocks = Math.ceil(columns / columnBlock);
    const whole = segments.map((s): Depth => {
      return { start: null, length: { constant: s.k }, end: { constant: s.k }, most: s.k };
    });
    const block: Block = {
      result: this.#reserve(group * columnBlock * 4 + this.#operands.preparedBytes),
      panels: segments.map((s) => s.panelMode === "inPlace" ? null : this.#reserve(this.#operands.panelsBytes(s))),
      splats: segments.map((s) =>
        s.splatMode === "inPlace" ? null : this.#reserve(this.#plan.tileRows * this.#operands.deepest(s) * 4)
      ),
    };
    const turned = transposed ? this.#reserve(roundUp(group, 4) * columnBlock * 4) : block.result;
    const [rest, flat, row, column, rowEnd, columnEnd, first, last] = this.#operands.counters(8);
    code.get(unit).set(this.#began);
    this.#frame.eachUnit(() => {
      code.get(unit).i32(columnBlocks).op("i32.rem_u").i32(columnBlock).op("i32.mul").set(column);
      code.get(unit).i32(columnBlocks).op("i32.div_u").tee(rest);
      code.i32(rowBlocks).op("i32.rem_u").i32(rowBlock).op("i32.mul").set(row);
      code.get(rest).i32(rowBlocks).op("i32.div_u").set(flat);
      code.get(column).i32(columnBlock).op("i32.add").set(columnEnd).limit(columnEnd, { constant: columns });
      code.get(row).i32(rowBlock).op("i32.add").set(rowEnd).limit(rowEnd, { constant: rows });
      const outer = this.#frame.unflatten(flat, batch);
      const area: Area = { outer, first, last, column, columnEnd };
      segments.forEach((s, i) => {
        if (i > 0 || !this.#operands.blocked) this.#loops.packPanels(s, area, whole[i], block.panels[i]);
      });
      code.get(row).set(first);
      code.loopUpTo(first, rowEnd, 1, () => {
        code.get(first).i32(group).op("i32.add").set(last).limit(last, rowEnd);
        if (by === "blas") this.#multiplyByBlas(area, block.result);
        else {
          this.#multiply(area, whole, block);
          if (transposed) {
            const turnedRow = roundUp(group, 4) * 4;
            emitTransposedBlock(code, block.result, columnBlock * 4, roundUp(group, 4), turned, turnedRow, columnBlock);
          }
          this.#stores(area, turned);
        }
        code.get(first).i32(group).op("i32.add").set(first);
      }, 0);
    });
    const depth = segments.reduce((sum, { k }) => sum + k, 0);
    const units = sizeOf(batch) * rowBlocks * columnBlocks;
    const products = Math.min(rowBlock, rows) * Math.min(columnBlock, columns) * depth;
    const functions = [...this.#loops.functions, code], imported = by === "blas" ? [blasImport] : [];
    // Few rows take memory's time, not that of multiplying.
    const perCall = by === "dots" ? productsPerCall / 4 : productsPerCall;
    return this.#frame.finish(units, perCall / products, this.#scratchBytes, functions, imported);
  }

  /** A local with the address of so many bytes of the scratch. */
  #reserve(bytes: number): Local {
    const local = this.#code.local("i32");
    this.#code.get(this.#frame.scratch).i32(this.#scratchBytes).op("i32.add").set(local);
    this.#scratchBytes += roundUp(bytes, 64);
    return local;
  }

  /** A group of rows by the kernels' own tiles or dot products, into the block. */
  #multiply(area: Area, whole: readonly Depth[], block: Block): void {
    const { by, segments } = this.#plan;
    if (by === "sweep") return emitSweep(this.#operands, area, block.result, this.#loops.functions);
    if (by === "dots") return this.#loops.dotProducts(area, block.result, this.#began);
    if (!this.#operands.blocked) return this.#loops.multiply(area, whole, block);
    this.#eachDepthBlock((part) => {
      this.#loops.packPanels(segments[0], area, part, block.panels[0]);
      this.#loops.multiply(area, [part, ...whole.slice(1)], block);
    });
  }

  /** A whole unit by the BLAS: into its place where the product is all that is stored, else by way of the block. */
  #multiplyByBlas(area: Area, block: Local): void {
    const code = this.#code, store = soleStore(this.#kernel, this.#plan);
    if (store) {
      const { index, operand } = store, { outer, first, column } = area;
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

  /** Calls `body` for each block of the first segment's k. */
  #eachDepthBlock(body: (part: Depth) => void): void {
    const code = this.#code, { depthBlock, segments } = this.#plan;
    const [start, end, length] = this.#operands.counters(3);
    code.i32(0).set(start);
    code.loopUpTo(start, { constant: segments[0].k }, 1, () => {
      code.get(start).i32(depthBlock).op("i32.add").set(end).limit(end, { constant: segments[0].k });
      code.get(end).get(start).op("i32.sub").set(length);
      body({ start, length, end, most: depthBlock });
      code.get(end).set(start);
    }, 0);
  }

  /** Runs the kernel's stores over the finished block, whose lanes lie along the stores' contiguous axis. */
  #stores({ outer, first, last, column, columnEnd }: Area, block: Local): void {
    const code = this.#code;
    const { swapped, transposed, columnBlock, group } = this.#plan;
    const [across, along, base] = this.#operands.counters(3);
    // The block is [rows][columns], or [columns][rows] once transposed; `along` runs through its inner axis.
    const [slow, slowEnd, fast, fastEnd, pitch] = transposed
      ? [column, columnEnd, first, last, roundUp(group, 4)]
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

function roundUp(x: number, step: number): number {
  return Math.ceil(x / step) * step;
}
