/** Rewrites of a kernel's iteration axes: neighbouring axes that every access walks as one become one. */
import type { Expr, Index, Store } from "../ir/kernel.ts";

/** What each old axis becomes: an axis of the new space, or always 0. */
export type AxisMap = readonly (number | null)[];

/** Rewrites expressions to new axes, keeping shared objects shared. */
export class AxisRewriter {
  readonly #done = new Map<Expr, Expr>();

  /** `rank` is the number of new axes. Strides of old axes that become 0 are dropped; of merged axes the last counts. */
  constructor(readonly axes: AxisMap, readonly rank: number) {}

  expr(expr: Expr): Expr {
    const done = this.#done.get(expr);
    if (done) return done;
    const made = this.#rewrite(expr);
    this.#done.set(expr, made);
    return made;
  }

  index(index: Index): Index {
    const strides = new Array<number>(this.rank).fill(0);
    index.strides.forEach((stride, i) => {
      const axis = this.axes[i];
      if (axis !== null) strides[axis] = stride;
    });
    const dynamic = index.dynamic?.map((d) => ({ value: this.expr(d.value), stride: d.stride }));
    return { offset: index.offset, strides, dynamic };
  }

  store(store: Store): Store {
    return { operand: store.operand, index: this.index(store.index), value: this.expr(store.value) };
  }

  #rewrite(expr: Expr): Expr {
    switch (expr.kind) {
      case "axis": {
        const axis = this.axes[expr.axis];
        return axis === null ? { kind: "const", type: "i32", value: 0 } : { ...expr, axis };
      }
      case "load":
        return { ...expr, index: this.index(expr.index) };
      case "op":
      case "threefry":
        return { ...expr, args: expr.args.map((arg) => this.expr(arg)) };
      default:
        return expr;
    }
  }
}

/**
 * The shape with axes of one element dropped and mergeable neighbours merged, and the map to it. The last `kept` axes
 * stay as they are.
 */
export function collapseAxes(
  shape: readonly number[],
  roots: readonly Expr[],
  stores: readonly Store[],
  kept: number,
): { shape: number[]; axes: AxisMap } {
  const { indices, counted } = collectAccesses(roots, stores);
  const merged: number[] = [];
  const axes: (number | null)[] = [];
  let previous = -1;
  shape.forEach((size, i) => {
    const fixed = i >= shape.length - kept;
    if (size === 1 && !fixed) return void axes.push(null);
    const joins = !fixed && previous >= 0 && !counted.has(previous) && !counted.has(i) &&
      indices.every((index) => (index.strides[previous] ?? 0) === (index.strides[i] ?? 0) * size);
    if (joins) merged[merged.length - 1] *= size;
    else merged.push(size);
    axes.push(merged.length - 1);
    previous = i;
  });
  return { shape: merged, axes };
}

/** Every index that roots and stores use, and the axes whose counter is a value. */
export function collectAccesses(
  roots: readonly Expr[],
  stores: readonly Store[],
): { indices: Index[]; counted: Set<number>; loads: Extract<Expr, { kind: "load" }>[] } {
  const indices: Index[] = [], counted = new Set<number>(), seen = new Set<Expr>();
  const loads: Extract<Expr, { kind: "load" }>[] = [];
  const pending: Expr[] = [...roots];
  for (const store of stores) {
    indices.push(store.index);
    pending.push(store.value, ...(store.index.dynamic ?? []).map((d) => d.value));
  }
  for (let expr = pending.pop(); expr; expr = pending.pop()) {
    if (seen.has(expr)) continue;
    seen.add(expr);
    if (expr.kind === "axis") counted.add(expr.axis);
    else if (expr.kind === "op" || expr.kind === "threefry") pending.push(...expr.args);
    else if (expr.kind === "load") {
      indices.push(expr.index);
      loads.push(expr);
      pending.push(...(expr.index.dynamic ?? []).map((d) => d.value));
    }
  }
  return { indices, counted, loads };
}
