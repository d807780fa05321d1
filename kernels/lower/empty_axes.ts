/**
 * Kernels over axes of length 0. No emitter and no device meets one: what has no points is not launched, and what adds up
 * nothing at some points writes what is left of its stores there.
 */
import { sizeOf, stridesOf } from "../../core/aval.ts";
import { arithmeticType } from "../../core/dtype.ts";
import type { AttentionKernel, Expr, HeadLayout, Kernel, Store } from "../ir/kernel.ts";
import { rewriter } from "../ir/rewrite.ts";

/** A kernel and what its operands are. */
interface Bound<B> {
  readonly kernel: Kernel;
  readonly buffers: readonly B[];
}

/** The launches, none of them over an empty axis, that do what one does. */
export function withoutEmptyAxes<B, L extends Bound<B>>(launch: L & Bound<B>): readonly (L | Bound<B>)[] {
  const { kernel } = launch;
  switch (kernel.kind) {
    case "map":
      return sizeOf(kernel.shape) === 0 ? [] : [launch];
    case "row": {
      if (kernel.cols > 0 && sizeOf(kernel.rows) > 0) return [launch];
      const once = kernel.phases.flatMap((p) => p.kind === "once" ? p.stores : []);
      const identity = (phase: number) => {
        const reduce = kernel.phases[phase];
        if (reduce.kind !== "reduce" || reduce.op === "sum" || reduce.op === "argmax") return 0;
        return reduce.op === "min" ? Infinity : -Infinity;
      };
      return mapOf(launch, [...kernel.rows, 1], once, identity);
    }
    case "contract": {
      const shape = [...kernel.batch, kernel.m, kernel.n];
      const segments = kernel.segments.filter(({ k }) => k > 0);
      if (segments.length === kernel.segments.length && sizeOf(shape) > 0) return [launch];
      if (segments.length === 0 || sizeOf(shape) === 0) return mapOf(launch, shape, kernel.stores, () => 0);
      return [bindUsed({ ...launch, kernel: { ...kernel, segments } })];
    }
    case "scatter": {
      const { count, cols, targets } = kernel;
      return count * cols * targets > 0 ? [launch] : zeros(launch, 2, [targets, cols], [cols, 1]);
    }
    case "attention":
      return kernel.batch * kernel.heads * kernel.queries * kernel.keys * kernel.width > 0
        ? [launch]
        : kernel.operands.flatMap(({ access }, o) => access === "read" ? [] : zerosOfAttention(launch, kernel, o));
  }
}

/** A map of stores whose reductions had nothing to reduce. */
function mapOf<B>(
  { kernel, buffers }: Bound<B>,
  shape: readonly number[],
  stores: readonly Store[],
  identity: (phase: number) => number,
): Bound<B>[] {
  if (sizeOf(shape) === 0 || stores.length === 0) return [];
  const change = (e: Expr): Expr => e.kind === "result" ? { kind: "const", type: e.type, value: identity(e.phase) } : e;
  const { store } = rewriter(change, (o) => o);
  return [bindUsed({ kernel: { kind: "map", operands: kernel.operands, shape, stores: stores.map(store) }, buffers })];
}

/** Zeros in a window of one operand. */
function zeros<B>(launch: Bound<B>, operand: number, shape: number[], strides: number[], offset = 0): Bound<B>[] {
  const type = arithmeticType[launch.kernel.operands[operand].dtype];
  const value: Expr = { kind: "const", type, value: 0 };
  return mapOf(launch, shape, [{ operand, index: { offset, strides }, value }], () => 0);
}

/** A query that sees no key gives zeros, and so do all derivatives by what nothing was computed from. */
function zerosOfAttention<B>(launch: Bound<B>, kernel: AttentionKernel, operand: number): Bound<B>[] {
  const { batch, heads, kvHeads, queries, keys, width, pass } = kernel;
  const layout: HeadLayout | null = kernel.layouts[operand];
  if (layout === null) {
    const shape = [batch, heads, queries];
    return zeros(launch, operand, shape, stridesOf(shape));
  }
  const shape = pass === "backward-kv" ? [batch, keys, kvHeads, width] : [batch, queries, heads, width];
  return zeros(launch, operand, shape, [layout.batch, layout.token, layout.head, 1], layout.offset);
}

/** The launch with only those operands that its kernel still mentions. */
function bindUsed<B>({ kernel, buffers }: Bound<B>): Bound<B> {
  if (kernel.kind !== "map" && kernel.kind !== "contract") return { kernel, buffers };
  const used = new Set<number>();
  const note = (o: number) => (used.add(o), o);
  const noting = rewriter((e) => e, note);
  kernel.stores.forEach(noting.store);
  const segments = kernel.kind === "contract" ? kernel.segments : [];
  for (const { a, b } of segments) for (const side of [a, b]) noting.index(side.index), note(side.operand);
  const kept = [...used].sort((a, b) => a - b);
  const place = (o: number) => kept.indexOf(o);
  const { index, store } = rewriter((e) => e, place);
  const side = (s: { operand: number; index: Store["index"] }) => ({
    operand: place(s.operand),
    index: index(s.index),
  });
  const operands = kept.map((o) => kernel.operands[o]);
  const stores = kernel.stores.map(store);
  return {
    buffers: kept.map((o) => buffers[o]),
    kernel: kernel.kind === "map"
      ? { ...kernel, operands, stores }
      : { ...kernel, operands, stores, segments: segments.map((s) => ({ ...s, a: side(s.a), b: side(s.b) })) },
  };
}
