/** The operands of a product as its loops reach them: addresses, strides, and where packed copies lie. */
import { byteSize } from "../../../core/dtype.ts";
import { isPacked } from "../../../core/packed/blocks.ts";
import { Rewriter } from "../../ir/expr.ts";
import type { ContractKernel } from "../../ir/kernel.ts";
import type { Code, Local } from "../assembler.ts";
import type { KernelFrame } from "../frame.ts";
import type { Depth, Source } from "./pack.ts";
import { evenBlock, type GemmPlan, type SegmentPlan, type Side } from "./plan.ts";
import { PackedReader } from "../packed/packed.ts";
import { roundedBytes } from "../packed/bytes.ts";
import { preparedBytes } from "../packed/floats.ts";
import type { Space } from "../point_access.ts";

/** How far apart, in bytes, the tiles find what they read. */
export class GemmOperands {
  readonly kernel: ContractKernel;
  readonly plan: GemmPlan;
  readonly code: Code;

  constructor(readonly frame: KernelFrame<"contract">) {
    ({ kernel: this.kernel, schedule: this.plan, code: this.code } = frame);
  }

  /** Fresh i32 locals. */
  counters(count: number): Local[] {
    return Array.from({ length: count }, () => this.code.local("i32"));
  }

  space(axes: readonly Local[]): Space {
    return this.frame.space(axes);
  }

  /** A side as a load over [...batch, free, k]. */
  source(side: Side, outer: readonly Local[]): Source {
    const rank = outer.length;
    const from = (axis: number) => side.kFirst && axis >= rank ? 2 * rank + 1 - axis : axis;
    const turned = new Rewriter({
      operand: (o) => o,
      strides: (strides) => strides.map((_, axis) => strides[from(axis)]),
      leaf: (e) => e.kind === "axis" ? { ...e, axis: from(e.axis) } : null,
    });
    const axis = { free: rank, k: rank + 1 };
    return {
      side,
      value: { kind: "load", type: "f32", operand: side.operand, index: turned.index(side.index) },
      space: (free, k, laneAxis, loopAxis): Space => ({
        ...this.space([...outer, free, k]),
        laneAxis: axis[laneAxis],
        loopAxis: axis[loopAxis],
      }),
    };
  }

  /** A local with the address of a side's element [free, k] at the depth's start (it has no dynamic part). */
  address(side: Side, outer: readonly Local[], free: Local, depth: Depth): Local {
    const code = this.code, size = byteSize[side.dtype];
    const local = code.local("i32");
    code.get(this.frame.pointers[side.operand]).i32(side.index.offset * size).op("i32.add");
    outer.forEach((axis, i) => code.get(axis).i32(side.index.strides[i] * size).op("i32.mul", "i32.add"));
    if (depth.start !== null) code.get(depth.start).i32(side.k * size).op("i32.mul", "i32.add");
    code.get(free).i32(side.free * size).op("i32.mul", "i32.add").set(local);
    return local;
  }

  /** A reader of a packed side. */
  reader(side: Side): PackedReader {
    const { dtype, operand } = side;
    if (!isPacked(dtype)) throw new Error(`${dtype} is not packed`);
    const { pointers, options } = this.frame;
    return new PackedReader(this.code, dtype, this.kernel.operands[operand].size, pointers[operand], options.relaxed);
  }

  /** A local with the number of a packed side's run that begins with element [free, k] at the depth's start. */
  run(side: Side, outer: readonly Local[], free: Local, depth: Depth): Local {
    const code = this.code, local = code.local("i32");
    code.i32(side.index.offset);
    outer.forEach((axis, i) => code.get(axis).i32(side.index.strides[i]).op("i32.mul", "i32.add"));
    if (depth.start !== null) code.get(depth.start).i32(side.k).op("i32.mul", "i32.add");
    code.get(free).i32(side.free).op("i32.mul", "i32.add").i32(5).op("i32.shr_u").set(local);
    return local;
  }

  /** Bytes after the block of sums in which dot products with packed rows keep what they prepare of the splat side. */
  get preparedBytes(): number {
    const { by, rows, segments: [{ k, panel, rounded }] } = this.plan;
    if (by !== "dotGemv" || !isPacked(panel.dtype)) return 0;
    return rounded ? roundedBytes(panel.dtype, rows, k) : preparedBytes(rows, k);
  }

  /** The deepest part of a segment that is packed at once: equal blocks, of whole runs where a side is packed. */
  deepest({ k, splat, panel }: SegmentPlan): number {
    return evenBlock(k, this.plan.depthBlock, isPacked(splat.dtype) || isPacked(panel.dtype) ? 32 : 4);
  }

  /**
   * The segments in the order in which they are walked, block by block of k: each with those that its last block takes with
   * it, since they are too short for a walk of their own, as low-rank pairs are.
   */
  get chains(): readonly (readonly SegmentPlan[])[] {
    const chains: SegmentPlan[][] = [];
    for (const segment of this.plan.segments) {
      if (chains.length > 0 && segment.short) chains[chains.length - 1].push(segment);
      else chains.push([segment]);
    }
    return chains;
  }

  /** How often the tiles are walked: more than once, their sums are added to what lies there. */
  get walks(): number {
    return this.chains.reduce((sum, [first]) => sum + Math.ceil(first.k / this.deepest(first)), 0);
  }

  panelsBytes(segment: SegmentPlan): number {
    return this.plan.columnBlock / (4 * this.plan.vectors) * this.panelStride(segment).next;
  }

  /** Bytes from one row, and one k, of a segment's splat side to the next, as a tile of `count` rows sees it. */
  splatStride(segment: SegmentPlan, count: number): { row: number; step: number } {
    const { splat, splatMode } = segment;
    return splatMode === "inPlace" ? { row: splat.free * 4, step: splat.k * 4 } : { row: 4, step: count * 4 };
  }

  /** Bytes from one k of a segment's panel to the next, and from one panel to the next. */
  panelStride(segment: SegmentPlan): { step: number; next: number } {
    const { panel, panelMode } = segment;
    const width = 4 * this.plan.vectors;
    // A line more than a panel needs: panels whose rows fall on the same cache sets would push each other out.
    if (panelMode !== "inPlace") return { step: width * 4, next: width * this.deepest(segment) * 4 + 64 };
    const size = byteSize[panel.dtype];
    return { step: panel.k * size, next: width * size };
  }
}
