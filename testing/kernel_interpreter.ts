/**
 * What every kernel means, by plain loops in f64: the direct evaluator that emitted WGSL and WebAssembly are tested
 * against. Values are f64 between load and store; integers wrap to 32 bits. Slow, and only for tests.
 */
import { byteSize, type DType, type HostArray, hostArray, type ScalarType } from "../core/dtype.ts";
import { isPacked } from "../core/packed/blocks.ts";
import { type Expr, type Index, rootsOf, type Store, walk } from "../kernels/ir/expr.ts";
import type {
  BufferRef,
  ContractKernel,
  Kernel,
  Program,
  RowKernel,
  ScalarOp,
  ScatterKernel,
} from "../kernels/ir/kernel.ts";
import { interpretAttention } from "./attention_interpreter.ts";
import { binary, bitcastTo, convertTo, threefry, unary, wrap } from "./oracle_scalar.ts";
import { Cells } from "./cells.ts";
import { roundToBytes } from "./rounded_reference.ts";

/** Runs one kernel on host buffers; `buffers[i]` is operand i, of at least its size. Writes in place. */
export function interpretKernel(kernel: Kernel, buffers: readonly HostArray[]): void {
  const memory = kernel.operands.map((operand, i) => new Cells(operand.dtype, buffers[i], operand.size));
  switch (kernel.kind) {
    case "map": {
      const point = new Point(memory, kernel.stores);
      forEachIndex(kernel.shape, (axes) => point.run(axes));
      return;
    }
    case "row":
      return interpretRow(kernel, memory);
    case "contract":
      return interpretContract(kernel, memory);
    case "scatter":
      return interpretScatter(kernel, memory);
    case "attention":
      return interpretAttention(kernel, memory);
  }
}

/** Runs a whole program on host arrays; a donated output must be given as the argument's own array. */
export function interpretProgram(program: Program, args: readonly HostArray[], outputs: readonly HostArray[]): void {
  const arena = new ArrayBuffer(Math.ceil(program.arenaBytes / 8) * 8);
  const resolve = (ref: BufferRef, dtype: DType, size: number): HostArray => {
    if (ref.kind === "arena") return hostArray(dtype, size, arena, ref.offset);
    const whole = ref.kind === "argument" ? args[ref.index] : outputs[ref.index];
    if (isPacked(dtype)) return whole;
    return hostArray(dtype, Math.min(size, whole.byteLength / byteSize[dtype]), whole.buffer, whole.byteOffset);
  };
  for (const { kernel, buffers } of program.steps) {
    interpretKernel(kernel, buffers.map((ref, i) => resolve(ref, kernel.operands[i].dtype, kernel.operands[i].size)));
  }
}

/** Evaluates stores or an expression at points, each expression object once per point. */
class Point {
  readonly #order: readonly Expr[];
  readonly #slots = new Map<Expr, number>();
  readonly #values: Float64Array;

  constructor(
    readonly memory: readonly Cells[],
    readonly stores: readonly Store[],
    readonly root: Expr | null = null,
    readonly results: readonly number[] = [],
  ) {
    this.#order = [...walk([...rootsOf(stores), ...(root ? [root] : [])])];
    this.#order.forEach((expr, i) => this.#slots.set(expr, i));
    this.#values = new Float64Array(this.#order.length);
  }

  /** Evaluates at `axes`, performs the stores, and returns the root's value. */
  run(axes: readonly number[]): number {
    this.#order.forEach((expr, i) => this.#values[i] = this.#evaluate(expr, axes));
    for (const { operand, index, value } of this.stores) {
      this.memory[operand].set(this.#locate(index, axes), this.#value(value));
    }
    return this.root ? this.#value(this.root) : 0;
  }

  #value(expr: Expr): number {
    return this.#values[this.#slots.get(expr)!];
  }

  #locate(index: Index, axes: readonly number[]): number {
    let at = locate(index, axes);
    for (const { value, stride } of index.dynamic ?? []) at += stride * this.#value(value);
    return at;
  }

  #evaluate(expr: Expr, axes: readonly number[]): number {
    switch (expr.kind) {
      case "const":
        return expr.type === "f32" ? Math.fround(expr.value) : wrap(expr.value, expr.type);
      case "axis":
        return axes[expr.axis];
      case "load":
        return this.memory[expr.operand].get(this.#locate(expr.index, axes));
      case "result":
        return this.results[expr.phase];
      case "threefry": {
        const [key0, key1, low, high] = expr.args.map((a) => this.#value(a));
        return threefry([key0, key1], low, high)[expr.lane];
      }
      case "op":
        return applyScalar(expr.op, expr.type, expr.args.map((a) => a.type), expr.args.map((a) => this.#value(a)));
    }
  }
}

/** The static part of an index. */
function locate(index: Index, axes: readonly number[]): number {
  let at = index.offset;
  for (let i = 0; i < index.strides.length; i++) at += index.strides[i] * axes[i];
  return at;
}

function forEachIndex(shape: readonly number[], visit: (axes: readonly number[]) => void): void {
  if (shape.some((d) => d === 0)) return;
  const axes = shape.map(() => 0);
  for (;;) {
    visit(axes);
    let i = shape.length - 1;
    for (; i >= 0; i--) {
      if (++axes[i] < shape[i]) break;
      axes[i] = 0;
    }
    if (i < 0) return;
  }
}

/** One scalar operation in f64 or 32-bit integers; `types` are the operands' types and `type` the result's. */
export function applyScalar(
  op: ScalarOp,
  type: ScalarType,
  types: readonly ScalarType[],
  args: readonly number[],
): number {
  const [x, y, z] = args, [from] = types;
  switch (op) {
    case "select":
      return x !== 0 ? y : z;
    case "convert":
      return convertTo(x, type, from);
    case "bitcast":
      return bitcastTo(x, type, from);
    case "isFinite":
      // What is computed in f64 may be more than f32 holds.
      return +Number.isFinite(Math.fround(x));
    default:
      return wrap(y === undefined ? unary[op](x, from) : binary[op](x, y, from), type);
  }
}

function interpretRow(kernel: RowKernel, memory: readonly Cells[]): void {
  const results: number[] = [];
  const points = kernel.phases.map((phase) =>
    phase.kind === "reduce"
      ? new Point(memory, [], phase.value, results)
      : new Point(memory, phase.stores, null, results)
  );
  forEachIndex(kernel.rows, (row) => {
    kernel.phases.forEach((phase, p) => {
      if (phase.kind === "once") return points[p].run([...row, 0]);
      if (phase.kind === "each") {
        for (let c = 0; c < kernel.cols; c++) points[p].run([...row, c]);
        return;
      }
      let value = phase.op === "sum" ? 0 : phase.op === "min" ? Infinity : -Infinity;
      let at = 0;
      for (let c = 0; c < kernel.cols; c++) {
        const x = points[p].run([...row, c]);
        if (phase.op === "sum") value += x;
        else if (phase.op === "min") value = Math.min(value, x);
        else if (phase.op === "max") value = Math.max(value, x);
        else if (x > value) [value, at] = [x, c];
      }
      results[p] = phase.op === "argmax" ? at : wrap(value, phase.value.type);
    });
  });
}

function interpretContract(kernel: ContractKernel, memory: readonly Cells[]): void {
  const results = [0];
  const store = new Point(memory, kernel.stores, null, results);
  const operands = kernel.segments.map(({ a, b }) =>
    [a, b].map(({ operand, index }) => new Point(memory, [], { kind: "load", type: "f32", operand, index }, results))
  );
  forEachIndex([...kernel.batch, kernel.m, kernel.n], (axes) => {
    const batch = axes.slice(0, -2), [m, n] = axes.slice(-2);
    results[0] = 0;
    kernel.segments.forEach((segment, s) => {
      const [a, b] = operands[s];
      const row = Float64Array.from({ length: segment.k }, (_, k) => a.run([...batch, m, k]));
      (segment.rounded ? roundToBytes(row) : row).forEach((x, k) => results[0] += x * b.run([...batch, k, n]));
    });
    store.run(axes);
  });
}

function interpretScatter(kernel: ScatterKernel, memory: readonly Cells[]): void {
  const [indices, updates, out] = memory;
  const sums = new Float64Array(kernel.targets * kernel.cols);
  for (let i = 0; i < kernel.count; i++) {
    const target = indices.get(i);
    if (target < 0 || target >= kernel.targets) continue;
    for (let c = 0; c < kernel.cols; c++) sums[target * kernel.cols + c] += updates.get(i * kernel.cols + c);
  }
  sums.forEach((x, i) => out.set(i, x));
}
