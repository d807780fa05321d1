/**
 * Kernels over axes of length 0. No emitter and no device meets one: what has no points is not launched, and what adds up
 * nothing at some points writes what is left of its stores there.
 */
import { sizeOf, stridesOf } from "../../core/aval.ts";
import { arithmeticType } from "../../core/dtype.ts";
import { constOf, Rewriter, type Store } from "../ir/expr.ts";
import type { AttentionKernel } from "../ir/kernel.ts";
import type { Body, Launch, MapBody } from "./body.ts";
import type { Memory } from "./repr.ts";

/** What does, over no empty axis, what the given does. */
export function withoutEmptyAxes(given: Body | Launch): readonly (Body | Launch)[] {
  if ("kernel" in given) return withoutEmptyKernel(given);
  const { shape } = given;
  switch (given.kind) {
    case "map":
      return sizeOf(shape) === 0 ? [] : [given];
    case "row": {
      const { columns, phases } = given;
      if (sizeOf(shape) > 0) return [given];
      const once = phases.flatMap((p) => p.kind === "once" ? p.stores : []);
      const identity = (phase: number) => {
        const reduce = phases[phase];
        if (reduce.kind !== "reduce" || reduce.op === "sum" || reduce.op === "argmax") return 0;
        return reduce.op === "min" ? Infinity : -Infinity;
      };
      return mapOf(shape.map((size, i) => columns.includes(i) ? 1 : size), once, identity);
    }
    case "contract": {
      const segments = given.segments.filter(({ k }) => k > 0);
      if (segments.length === 0 || sizeOf(shape) === 0) return mapOf(shape, given.stores, () => 0);
      return [{ ...given, segments }];
    }
  }
}

function withoutEmptyKernel(launch: Launch): readonly (MapBody | Launch)[] {
  const { kernel } = launch;
  switch (kernel.kind) {
    case "scatter": {
      const { count, cols, targets } = kernel;
      return count * cols * targets > 0 ? [launch] : zeros(launch, 2, [targets, cols], [cols, 1]);
    }
    case "attention":
      return kernel.batch * kernel.heads * kernel.queries * kernel.keys * kernel.width > 0
        ? [launch]
        : kernel.operands.flatMap(({ access }, o) => access === "read" ? [] : zerosOfAttention(launch, kernel, o));
    default:
      return [launch];
  }
}

/** A map of stores whose reductions had nothing to reduce. */
function mapOf(
  shape: readonly number[],
  stores: readonly Store<Memory>[],
  identity: (phase: number) => number,
): MapBody[] {
  if (sizeOf(shape) === 0 || stores.length === 0) return [];
  const to = new Rewriter<Memory>({
    operand: (memory) => memory,
    leaf: (e) => e.kind === "result" ? constOf(e.type, identity(e.phase)) : null,
  });
  return [{ kind: "map", shape, stores: stores.map((s) => to.store(s)) }];
}

/** Zeros in a window of one operand. */
function zeros({ buffers }: Launch, operand: number, shape: number[], strides: number[], offset = 0): MapBody[] {
  const buffer = buffers[operand];
  const value = constOf(arithmeticType[buffer.dtype], 0);
  return mapOf(shape, [{ operand: buffer, index: { offset, strides }, value }], () => 0);
}

/** A query that sees no key gives zeros, and so do all derivatives by what nothing was computed from. */
function zerosOfAttention(launch: Launch, kernel: AttentionKernel, operand: number): MapBody[] {
  const { batch, heads, kvHeads, queries, keys, width, pass } = kernel;
  const layout = kernel.layouts[operand];
  if (layout === null) {
    const shape = [batch, heads, queries];
    return zeros(launch, operand, shape, stridesOf(shape));
  }
  const shape = pass === "backward-kv" ? [batch, keys, kvHeads, width] : [batch, queries, heads, width];
  return zeros(launch, operand, shape, [layout.batch, layout.token, layout.head, 1], layout.offset);
}
