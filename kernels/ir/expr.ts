/**
 * Scalar expressions over the iteration axes of a kernel, and the ways of going through them. Expressions are shared by
 * identity: an emitter computes each object once per point, and whoever walks them meets it once.
 */
import type { ScalarType } from "../../core/dtype.ts";
import type { ScalarOp } from "../../core/ops/elementwise.ts";

/** `O` says what is read: an operand of a kernel by its number, or, before operands are numbered, memory. */
export type Expr<O = number> =
  | { readonly kind: "const"; readonly type: ScalarType; readonly value: number }
  /** The i32 counter of iteration axis `axis`. */
  | { readonly kind: "axis"; readonly type: "i32"; readonly axis: number }
  /** An element of an operand, widened to its arithmetic type. */
  | { readonly kind: "load"; readonly type: ScalarType; readonly operand: O; readonly index: Index<O> }
  | { readonly kind: "op"; readonly type: ScalarType; readonly op: ScalarOp; readonly args: readonly Expr<O>[] }
  /** Word `lane` (0 or 1) of threefry2x32 with 20 rounds; args are four u32: key 0, key 1, counter 0, counter 1. */
  | { readonly kind: "threefry"; readonly type: "u32"; readonly lane: 0 | 1; readonly args: readonly Expr<O>[] }
  /** The result of reduce phase `phase` of a row kernel, or the accumulator of a contract kernel (phase 0). */
  | { readonly kind: "result"; readonly type: ScalarType; readonly phase: number };

/** An element index: offset + Σ strides[i]·axis[i] + Σ stride·(value of an i32 expression, already within bounds). */
export interface Index<O = number> {
  readonly offset: number;
  readonly strides: readonly number[];
  readonly dynamic?: readonly { readonly value: Expr<O>; readonly stride: number }[];
}

/** Writes `value`, narrowed to the operand's dtype, at `index`. */
export interface Store<O = number> {
  readonly operand: O;
  readonly index: Index<O>;
  readonly value: Expr<O>;
}

/** A scalar operation on expressions. */
export function opOf<O>(op: ScalarOp, type: ScalarType, ...args: readonly Expr<O>[]): Expr<O> {
  return { kind: "op", type, op, args };
}

export function constOf(type: ScalarType, value: number): Expr<never> {
  return { kind: "const", type, value };
}

const none: readonly never[] = [];
const movers = <O>({ dynamic }: Index<O>): readonly Expr<O>[] => dynamic?.map(({ value }) => value) ?? none;

/** The expressions that one reads: its arguments, or what moves the index of a load. */
export function childrenOf<O>(expr: Expr<O>): readonly Expr<O>[] {
  switch (expr.kind) {
    case "op":
    case "threefry":
      return expr.args;
    case "load":
      return movers(expr.index);
    default:
      return none;
  }
}

/** The expressions that stores begin from: their values and the moving parts of their indices. */
export function rootsOf<O>(stores: readonly Store<O>[]): Expr<O>[] {
  return stores.flatMap(({ value, index }) => [value, ...movers(index)]);
}

/** Each expression under some, once, after those that it reads. */
export function walk<O>(roots: Iterable<Expr<O>>): Set<Expr<O>> {
  const met = new Set<Expr<O>>();
  const visit = (expr: Expr<O>) => {
    if (met.has(expr)) return;
    for (const child of childrenOf(expr)) visit(child);
    met.add(expr);
  };
  for (const root of roots) visit(root);
  return met;
}

/** How often each expression under `roots` is read, roots once more; in the order of {@link walk}. */
export function countUses<O>(roots: readonly Expr<O>[]): Map<Expr<O>, number> {
  const uses = new Map<Expr<O>, number>();
  const use = (expr: Expr<O>) => uses.set(expr, uses.get(expr)! + 1);
  for (const expr of walk(roots)) {
    uses.set(expr, 0);
    childrenOf(expr).forEach(use);
  }
  roots.forEach(use);
  return uses;
}

/** An access: what is read or written, and where. */
export interface Access<O = number> {
  readonly operand: O;
  readonly index: Index<O>;
}

/** Every load among the expressions and every store. */
export function accessesOf<O>(exprs: Iterable<Expr<O>>, stores: readonly Store<O>[]): Access<O>[] {
  const found: Access<O>[] = [];
  for (const expr of exprs) if (expr.kind === "load") found.push(expr);
  found.push(...stores);
  return found;
}

/** Which axes expressions vary along, as sets of bits; `results` are those of results. Each is looked at once. */
export class AxesOf<O = number> {
  readonly #known = new Map<Expr<O>, number>();

  constructor(readonly results = 0) {}

  expr(expr: Expr<O>): number {
    const known = this.#known.get(expr);
    if (known !== undefined) return known;
    const axes = expr.kind === "load"
      ? this.index(expr.index)
      : expr.kind === "axis"
      ? 1 << expr.axis
      : expr.kind === "result"
      ? this.results
      : childrenOf(expr).reduce((axes, child) => axes | this.expr(child), 0);
    this.#known.set(expr, axes);
    return axes;
  }

  index(index: Index<O>): number {
    const static_ = index.strides.reduce((axes, stride, i) => stride === 0 ? axes : axes | 1 << i, 0);
    return movers(index).reduce((axes, value) => axes | this.expr(value), static_);
  }

  /** Whether an expression has another value at another position along `axis`. */
  varies(expr: Expr<O>, axis: number): boolean {
    return ((this.expr(expr) >> axis) & 1) !== 0;
  }
}

/** Whether an expression has another value at another position along `axis`. */
export function variesAlong(expr: Expr, axis: number): boolean {
  return new AxesOf().varies(expr, axis);
}

/** What an expression is rebuilt by; a rule that is not given changes nothing. */
export interface Rules<A, B> {
  /** What stands for an operand that is read or written. */
  operand(operand: A, access: "read" | "write"): B;
  /** The strides over the new axes. */
  strides?(strides: readonly number[]): readonly number[];
  /** What stands for an expression that reads no other; null leaves it to the rules above. */
  leaf?(expr: Expr<A>): Expr<B> | null;
}

/** Rebuilds expressions and what holds them; what is shared stays shared. */
export class Rewriter<A = number, B = A> {
  readonly #done = new Map<Expr<A>, Expr<B>>();

  constructor(readonly rules: Rules<A, B>) {}

  expr(expr: Expr<A>): Expr<B> {
    let made = this.#done.get(expr);
    if (made === undefined) this.#done.set(expr, made = this.#rebuild(expr));
    return made;
  }

  #rebuild(expr: Expr<A>): Expr<B> {
    // Written out and not spread: objects of one kind that are made in one way are read fastest.
    switch (expr.kind) {
      case "op":
        return { kind: "op", type: expr.type, op: expr.op, args: expr.args.map((arg) => this.expr(arg)) };
      case "threefry":
        return { kind: "threefry", type: "u32", lane: expr.lane, args: expr.args.map((arg) => this.expr(arg)) };
      case "load": {
        const { type, operand, index } = expr;
        return this.rules.leaf?.(expr) ??
          { kind: "load", type, operand: this.rules.operand(operand, "read"), index: this.index(index) };
      }
      default:
        return this.rules.leaf?.(expr) ?? expr;
    }
  }

  index({ offset, strides: old, dynamic }: Index<A>): Index<B> {
    const strides = this.rules.strides?.(old) ?? old;
    if (!dynamic) return { offset, strides };
    return { offset, strides, dynamic: dynamic.map(({ value, stride }) => ({ value: this.expr(value), stride })) };
  }

  store({ operand, index, value }: Store<A>): Store<B> {
    const made = this.expr(value), at = this.index(index);
    return { operand: this.rules.operand(operand, "write"), index: at, value: made };
  }
}
