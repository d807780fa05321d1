/**
 * Code for one point of a kernel, or for four neighbours along its lane axis at once. A single point runs the same vector
 * instructions with one lane in use, so a value has the same bits wherever the split into vectors falls.
 */
import { byteSize, type DType } from "../../core/dtype.ts";
import { isPacked, type PackedType } from "../../core/packed.ts";
import type { Expr, Index, Operand, Store } from "../kernel.ts";
import type { Code, Local } from "./assembler.ts";
import { MathEmitter } from "./math.ts";
import { PackedReader } from "./packed.ts";
import { emitScalar } from "./scalar.ts";
import { emitNarrow, emitWiden } from "./storage.ts";
import { emitThreefry } from "./threefry.ts";

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

/** Emits expressions and stores of one kernel into its function. */
export class PointEmitter {
  readonly #space: Space;
  readonly #code: Code;
  readonly #math: MathEmitter;
  readonly #axes = new Map<Expr, number>();
  #hoisted = new Map<Expr, Local>();
  #bases = new Map<string | Index, Local>();
  #values = new Map<Expr, Local>();
  #uses = new Map<Expr, number>();
  #random: { args: readonly Expr[]; words: [Local, Local] }[] = [];
  #lanes: 1 | 4 = 4;

  constructor(space: Space) {
    this.#space = space;
    this.#code = space.code;
    this.#math = new MathEmitter(space.code, space.relaxed);
  }

  /** Emits, before the innermost loop, everything in `roots` and `stores` that does not vary along it. */
  hoist(roots: readonly Expr[], stores: readonly Store[], lanes: 1 | 4 = 4): void {
    this.#lanes = lanes;
    this.#beginPoint();
    const seen = new Set<Expr>();
    for (const root of roots) this.#hoist(root, seen);
    for (const store of stores) {
      this.#hoist(store.value, seen);
      store.index.dynamic?.forEach((d) => this.#hoist(d.value, seen));
      this.#base(store.operand, store.index);
    }
    this.#endPoint();
  }

  /** Forgets what was hoisted: needed where loads may see other values than before. */
  forget(): void {
    this.#hoisted = new Map();
    this.#bases = new Map();
  }

  /** Computes `root` at the current point and leaves it on the stack. */
  push(root: Expr, lanes: 1 | 4): void {
    this.#lanes = lanes;
    this.#beginPoint();
    this.#count(root);
    this.#push(root);
    this.#endPoint();
  }

  /** Performs stores at the current point; every value is computed before the first is written. */
  store(stores: readonly Store[], lanes: 1 | 4): void {
    this.#lanes = lanes;
    this.#beginPoint();
    for (const store of stores) {
      this.#count(store.value);
      store.index.dynamic?.forEach((d) => this.#count(d.value));
    }
    const early = stores.length > 1 && this.#space.operands.some((o) => o.access === "inout");
    const values = stores.map((store) => {
      if (!early) return null;
      const local = this.#code.local("v128");
      this.#push(store.value);
      this.#code.set(local);
      return local;
    });
    stores.forEach((store, i) => this.#store(store, values[i]));
    for (const local of values) if (local !== null) this.#code.release("v128", local);
    this.#endPoint();
  }

  /** The axes that an expression depends on, as a bit set. */
  axesOf(expr: Expr): number {
    const known = this.#axes.get(expr);
    if (known !== undefined) return known;
    let axes = 0;
    if (expr.kind === "axis") axes = 1 << expr.axis;
    else if (expr.kind === "load") axes = this.#axesOfIndex(expr.index);
    else if (expr.kind === "result") axes = this.#space.result?.axes ?? 0;
    else if (expr.kind !== "const") { for (const arg of expr.args) axes |= this.axesOf(arg); }
    this.#axes.set(expr, axes);
    return axes;
  }

  #axesOfIndex(index: Index): number {
    let axes = 0;
    index.strides.forEach((stride, i) => axes |= stride !== 0 ? 1 << i : 0);
    index.dynamic?.forEach((d) => axes |= this.axesOf(d.value));
    return axes;
  }

  #varies(axes: number, axis: number): boolean {
    return ((axes >> axis) & 1) !== 0;
  }

  #beginPoint(): void {
    this.#values = new Map();
    this.#uses = new Map();
    this.#random = [];
  }

  #endPoint(): void {
    this.#code.release("v128", ...this.#values.values(), ...this.#random.flatMap((r) => r.words));
    this.#values = new Map();
    this.#random = [];
  }

  #count(expr: Expr): void {
    const uses = this.#uses.get(expr) ?? 0;
    this.#uses.set(expr, uses + 1);
    if (uses > 0 || this.#hoisted.has(expr)) return;
    if (expr.kind === "op" || expr.kind === "threefry") expr.args.forEach((arg) => this.#count(arg));
    if (expr.kind === "load") expr.index.dynamic?.forEach((d) => this.#count(d.value));
  }

  #hoist(expr: Expr, seen: Set<Expr>): void {
    if (seen.has(expr)) return;
    seen.add(expr);
    if (!this.#varies(this.axesOf(expr), this.#space.loopAxis)) {
      if (expr.kind === "const" || expr.kind === "result" || this.#hoisted.has(expr)) return;
      this.#count(expr);
      this.#push(expr);
      const local = this.#code.local("v128");
      this.#code.set(local);
      this.#hoisted.set(expr, local);
      return;
    }
    if (expr.kind === "op" || expr.kind === "threefry") expr.args.forEach((arg) => this.#hoist(arg, seen));
    if (expr.kind === "load") {
      expr.index.dynamic?.forEach((d) => this.#hoist(d.value, seen));
      this.#base(expr.operand, expr.index);
    }
  }

  #push(expr: Expr): void {
    const code = this.#code;
    const ready = this.#hoisted.get(expr) ?? this.#values.get(expr);
    if (ready !== undefined) return void code.get(ready);
    this.#compute(expr);
    if ((this.#uses.get(expr) ?? 0) > 1 && expr.kind !== "const") {
      const local = code.local("v128");
      code.tee(local);
      this.#values.set(expr, local);
    }
  }

  #compute(expr: Expr): void {
    const code = this.#code;
    switch (expr.kind) {
      case "const":
        if (expr.type === "f32") code.f32x4(expr.value);
        else {
          const word = expr.type === "bool" ? (expr.value !== 0 ? -1 : 0) : expr.value | 0;
          code.i32x4(word, word, word, word);
        }
        return;
      case "axis": {
        this.#pushAxis(expr.axis);
        code.op("i32x4.splat");
        if (expr.axis === this.#space.laneAxis && this.#lanes === 4) code.i32x4(0, 1, 2, 3).op("i32x4.add");
        return;
      }
      case "load":
        return this.#load(expr.operand, expr.index);
      case "result":
        return this.#space.result!.push(expr.phase, this.#lanes);
      case "threefry": {
        const [word0, word1] = this.#threefry(expr.args);
        code.get(expr.lane === 0 ? word0 : word1);
        return;
      }
      case "op": {
        const { op, args } = expr;
        if (op === "select") {
          this.#push(args[1]);
          this.#push(args[2]);
          this.#push(args[0]);
          code.op("v128.bitselect");
          return;
        }
        if ((op === "shl" || op === "shr") && args[1].kind === "const") {
          this.#push(args[0]);
          code.i32(args[1].value).op(op === "shl" ? "i32x4.shl" : expr.type === "i32" ? "i32x4.shr_s" : "i32x4.shr_u");
          return;
        }
        args.forEach((arg) => this.#push(arg));
        emitScalar(op, { code, math: this.#math, from: args[0].type, to: expr.type });
      }
    }
  }

  #threefry(args: readonly Expr[]): [Local, Local] {
    const known = this.#random.find((r) => r.args.every((arg, i) => arg === args[i]));
    if (known) return known.words;
    args.forEach((arg) => this.#push(arg));
    const words = emitThreefry(this.#code);
    this.#random.push({ args, words });
    return words;
  }

  #pushAxis(axis: number): void {
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
  #base(operand: number, index: Index): Local {
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
      this.#pushAxis(axis);
      code.i32(stride * size).op("i32.mul", "i32.add");
    });
    for (const { value, stride } of index.dynamic ?? []) {
      if (this.#varies(this.axesOf(value), loopAxis) || this.#laneVaries(value)) continue;
      this.#push(value);
      code.lane("i32x4.extract_lane", 0).i32(stride * size).op("i32.mul", "i32.add");
    }
    const local = code.local("i32");
    code.set(local);
    this.#bases.set(key, local);
    return local;
  }

  #laneVaries(expr: Expr): boolean {
    return this.#varies(this.axesOf(expr), this.#space.laneAxis);
  }

  /** Pushes an access's address at the current point (lane 0), but for dynamic parts that differ between lanes. */
  #address(operand: number, index: Index): void {
    const { loopAxis } = this.#space;
    const size = this.#step(operand);
    const code = this.#code;
    code.get(this.#base(operand, index));
    const stride = index.strides[loopAxis] ?? 0;
    if (stride !== 0) {
      this.#pushAxis(loopAxis);
      code.i32(stride * size).op("i32.mul", "i32.add");
    }
    for (const { value, stride } of index.dynamic ?? []) {
      if (!this.#varies(this.axesOf(value), loopAxis) || this.#laneVaries(value)) continue;
      this.#push(value);
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
      this.#push(value);
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

  #load(operand: number, index: Index): void {
    const code = this.#code;
    const dtype: DType = this.#space.operands[operand].dtype;
    if (isPacked(dtype)) return this.#loadPacked(operand, index, dtype);
    const half = byteSize[dtype] === 2;
    const { stride, gathered } = this.#spread(index);
    if (gathered.length === 0 && (stride === 0 || this.#lanes === 1)) {
      this.#address(operand, index);
      if (half) code.memory("i32.load16_u").op("i32x4.splat");
      else code.memory("v128.load32_splat");
    } else if (gathered.length === 0 && stride === 1) {
      this.#address(operand, index);
      code.memory(half ? "v128.load16x4_u" : "v128.load");
    } else {
      const lanes = code.local("v128"), word = code.local("i32");
      this.#eachLane(operand, index, this.#lanes, (lane) => {
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
  #loadPacked(operand: number, index: Index, type: PackedType): void {
    const code = this.#code, { relaxed, operands, pointers } = this.#space;
    const reader = new PackedReader(code, type, operands[operand].size, pointers[operand], relaxed);
    const lanes = code.local("v128"), value = code.local("v128"), element = code.local("i32");
    const { stride, gathered } = this.#spread(index);
    const count = stride === 0 && gathered.length === 0 ? 1 : this.#lanes;
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

  #store(store: Store, value: Local | null): void {
    const { operand, index } = store;
    const code = this.#code;
    const dtype = this.#space.operands[operand].dtype;
    const half = byteSize[dtype] === 2;
    const { stride, gathered } = this.#spread(index);
    const pushValue = () => {
      if (value === null) this.#push(store.value);
      else code.get(value);
      emitNarrow(code, dtype);
    };
    if (gathered.length === 0 && (this.#lanes === 1 || stride === 0)) {
      // A stride of 0 along the lanes writes one element: the last lane's, as a plain loop leaves it.
      const lane = this.#lanes === 1 ? 0 : 3;
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
      this.#eachLane(operand, index, this.#lanes, (lane) => {
        if (half) code.laneMemory("v128.store16_lane", 2 * lane);
        else code.laneMemory("v128.store32_lane", lane);
      }, () => code.get(words));
      code.release("v128", words);
    }
  }
}
