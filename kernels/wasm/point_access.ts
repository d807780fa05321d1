/** How a point reaches its operands: addresses, and loads and stores of one lane or four. */
import { byteSize, type DType } from "../../core/dtype.ts";
import { isPacked, type PackedType } from "../../core/packed/blocks.ts";
import type { AxesOf, Expr, Index } from "../ir/expr.ts";
import type { Operand } from "../ir/kernel.ts";
import type { Code, Local } from "./assembler.ts";
import { PackedReader } from "./packed/packed.ts";
import { emitNarrow, emitWiden } from "./storage.ts";

/** Where points lie: what the surrounding loops provide. */
export interface Space {
  readonly code: Code;
  readonly relaxed: boolean;
  readonly operands: readonly Operand[];
  /** The base address of each operand. */
  readonly pointers: readonly Local[];
  /** The i32 counter of each axis; a number where it never changes. */
  readonly axes: readonly (Local | { readonly fixed: number })[];
  /** The axis along which four lanes lie. */
  readonly laneAxis: number;
  /** The axis of the innermost loop: what does not vary along it is computed before that loop. */
  readonly loopAxis: number;
  /** The reduction results and accumulators in reach: their axes as a bit set, and how to push one. */
  readonly result?: { readonly axes: number; push(phase: number, lanes: 1 | 4): void };
}

/** Emits the accesses of one kernel's points. */
export class PointAccess {
  readonly #space: Space;
  readonly #code: Code;
  #bases = new Map<string | Index, Local>();

  /** `push` computes a value that moves an index at the current point and leaves it on the stack. */
  constructor(space: Space, readonly axes: AxesOf, readonly push: (expr: Expr) => void) {
    this.#space = space;
    this.#code = space.code;
  }

  /** Forgets the addresses that were hoisted. */
  forget(): void {
    this.#bases = new Map();
  }

  /** Pushes the counter of an axis. */
  pushAxis(axis: number): void {
    const counter = this.#space.axes[axis];
    if (typeof counter === "number") this.#code.get(counter);
    else this.#code.i32(counter.fixed);
  }

  /** What one element adds to an access's address: its bytes; packed elements have none, and are numbered instead. */
  #step(operand: number): number {
    const { dtype } = this.#space.operands[operand];
    return isPacked(dtype) ? 1 : byteSize[dtype];
  }

  /** A local with an access's address less what varies along the loop axis. */
  base(operand: number, index: Index): Local {
    const key = index.dynamic?.length ? index : `${operand}:${index.offset}:${index.strides}`;
    const known = this.#bases.get(key);
    if (known !== undefined) return known;
    const { pointers, loopAxis } = this.#space;
    const size = this.#step(operand);
    const code = this.#code;
    if (isPacked(this.#space.operands[operand].dtype)) code.i32(0);
    else code.get(pointers[operand]);
    if (index.offset !== 0) code.i32(index.offset * size).op("i32.add");
    index.strides.forEach((stride, axis) => {
      if (stride === 0 || axis === loopAxis) return;
      this.pushAxis(axis);
      code.i32(stride * size).op("i32.mul", "i32.add");
    });
    for (const { value, stride } of index.dynamic ?? []) {
      if (this.axes.varies(value, loopAxis) || this.#laneVaries(value)) continue;
      this.push(value);
      code.lane("i32x4.extract_lane", 0).i32(stride * size).op("i32.mul", "i32.add");
    }
    const local = code.local("i32");
    code.set(local);
    this.#bases.set(key, local);
    return local;
  }

  #laneVaries(expr: Expr): boolean {
    return this.axes.varies(expr, this.#space.laneAxis);
  }

  /** Pushes an access's address at the current point (lane 0), but for dynamic parts that differ between lanes. */
  #address(operand: number, index: Index): void {
    const { loopAxis } = this.#space;
    const size = this.#step(operand);
    const code = this.#code;
    code.get(this.base(operand, index));
    const stride = index.strides[loopAxis] ?? 0;
    if (stride !== 0) {
      this.pushAxis(loopAxis);
      code.i32(stride * size).op("i32.mul", "i32.add");
    }
    for (const { value, stride } of index.dynamic ?? []) {
      if (!this.axes.varies(value, loopAxis) || this.#laneVaries(value)) continue;
      this.push(value);
      code.lane("i32x4.extract_lane", 0).i32(stride * size).op("i32.mul", "i32.add");
    }
  }

  /** How an access spreads over the lanes. */
  #spread(index: Index): { stride: number; gathered: { value: Expr; stride: number }[] } {
    const gathered = (index.dynamic ?? []).filter((d) => this.#laneVaries(d.value));
    return { stride: index.strides[this.#space.laneAxis] ?? 0, gathered };
  }

  /** Calls `access` once a lane with that lane's address on the stack (under `below`, if any). */
  #eachLane(operand: number, index: Index, count: number, access: (lane: number) => void, below: () => void): void {
    const { stride, gathered } = this.#spread(index);
    const size = this.#step(operand);
    const code = this.#code;
    const address = code.local("i32");
    this.#address(operand, index);
    code.set(address);
    const parts = gathered.map(({ value, stride }) => {
      const local = code.local("v128");
      this.push(value);
      code.set(local);
      return { local, stride };
    });
    for (let lane = 0; lane < count; lane++) {
      code.get(address);
      if (lane * stride !== 0) code.i32(lane * stride * size).op("i32.add");
      for (const part of parts) {
        code.get(part.local).lane("i32x4.extract_lane", lane).i32(part.stride * size).op("i32.mul", "i32.add");
      }
      below();
      access(lane);
    }
    code.release("i32", address);
    for (const part of parts) code.release("v128", part.local);
  }

  /** Pushes an operand's elements, widened. */
  load(operand: number, index: Index, count: 1 | 4): void {
    const code = this.#code;
    const dtype: DType = this.#space.operands[operand].dtype;
    if (isPacked(dtype)) return this.#loadPacked(operand, index, dtype, count);
    const half = byteSize[dtype] === 2;
    const { stride, gathered } = this.#spread(index);
    if (gathered.length === 0 && (stride === 0 || count === 1)) {
      this.#address(operand, index);
      if (half) code.memory("i32.load16_u").op("i32x4.splat");
      else code.memory("v128.load32_splat");
    } else if (gathered.length === 0 && stride === 1) {
      this.#address(operand, index);
      code.memory(half ? "v128.load16x4_u" : "v128.load");
    } else {
      const lanes = code.local("v128"), word = code.local("i32");
      this.#eachLane(operand, index, count, (lane) => {
        if (half) code.memory("i32.load16_u").set(word).get(lanes).get(word).lane("i32x4.replace_lane", lane);
        else code.get(lanes).laneMemory("v128.load32_lane", lane);
        code.set(lanes);
      }, () => {});
      code.release("i32", word);
      code.get(lanes);
      code.release("v128", lanes);
    }
    emitWiden(code, dtype);
  }

  /** A packed operand, one lane after the other: rows of a few tokens, and the ends of products. */
  #loadPacked(operand: number, index: Index, type: PackedType, most: 1 | 4): void {
    const code = this.#code, { relaxed, operands, pointers } = this.#space;
    const reader = new PackedReader(code, type, operands[operand].size, pointers[operand], relaxed);
    const lanes = code.local("v128"), value = code.local("v128"), element = code.local("i32");
    const { stride, gathered } = this.#spread(index);
    const count = stride === 0 && gathered.length === 0 ? 1 : most;
    this.#eachLane(operand, index, count, (lane) => {
      code.set(element);
      reader.element(element);
      if (lane > 0) {
        // The value stands in every lane: it keeps the lanes below.
        code.set(value).get(lanes).get(value);
        code.shuffle(...([0, 1, 2, 3].map((l) => l < lane ? l : 4 + l) as [number, number, number, number]));
      }
      code.set(lanes);
    }, () => {});
    code.get(lanes);
    code.release("v128", lanes, value);
    code.release("i32", element);
    reader.release();
  }

  /** Stores the value that `push` pushes, rounded to the operand's type. */
  store(operand: number, index: Index, count: 1 | 4, push: () => void): void {
    const code = this.#code;
    const dtype = this.#space.operands[operand].dtype;
    const half = byteSize[dtype] === 2;
    const { stride, gathered } = this.#spread(index);
    const pushValue = () => {
      push();
      emitNarrow(code, dtype);
    };
    if (gathered.length === 0 && (count === 1 || stride === 0)) {
      // A stride of 0 along the lanes writes one element: the last lane's, as a plain loop leaves it.
      const lane = count === 1 ? 0 : 3;
      this.#address(operand, index);
      pushValue();
      if (half) code.laneMemory("v128.store16_lane", 2 * lane);
      else code.laneMemory("v128.store32_lane", lane);
    } else if (gathered.length === 0 && stride === 1) {
      this.#address(operand, index);
      pushValue();
      if (half) {
        const words = code.local("v128");
        code.tee(words).get(words).op("i16x8.narrow_i32x4_u").laneMemory("v128.store64_lane", 0);
        code.release("v128", words);
      } else code.memory("v128.store");
    } else {
      const words = code.local("v128");
      pushValue();
      code.set(words);
      this.#eachLane(operand, index, count, (lane) => {
        if (half) code.laneMemory("v128.store16_lane", 2 * lane);
        else code.laneMemory("v128.store32_lane", lane);
      }, () => code.get(words));
      code.release("v128", words);
    }
  }
}
