/**
 * Fusion: elementwise values of one shape, and at most one product, gathered into groups that become one kernel each.
 * A group is open until something outside it needs one of its values; an elementwise node joins the open groups of its
 * inputs. Open groups never depend on each other, so they may be merged and launched in any order.
 */
import type { ScalarOp } from "../../core/ops/elementwise.ts";
import { sameShape, stridesOf } from "../../core/aval.ts";
import { arithmeticType } from "../../core/dtype.ts";
import { LowrankError } from "../../core/errors.ts";
import type { Node, Value } from "../../core/ir/graph.ts";
import { childrenOf, constOf, type Expr, opOf, type Store } from "../ir/expr.ts";
import { maxFused } from "../ir/kernel.ts";
import type { Context } from "./context.ts";
import { type Contraction, launchContract } from "./contract.ts";
import { copyOf } from "./copy.ts";
import { type Buffer, exprOf, isBuffer, type Memory, type Repr } from "./repr.ts";

export interface Group {
  readonly shape: readonly number[];
  readonly exprs: Map<Value, Expr<Memory>>;
  readonly contraction: Contraction | null;
  open: boolean;
  /** The place among the launches where all that it reads is there. */
  at: number;
}

export class Groups {
  readonly #of = new Map<Value, Group>();
  readonly #buffers = new Map<Expr<Memory>, ReadonlySet<Buffer>>();
  /** `most` buffers may be bound by one kernel. */
  constructor(readonly ctx: Context, readonly most: number) {}

  /** How a value is represented outside its group; the group is launched if it has not been. */
  repr(v: Value): Repr {
    const known = this.ctx.reprs.get(v);
    if (known) return known;
    const group = this.#of.get(v);
    if (group) this.close(group);
    else if (this.ctx.inlined.has(v)) this.#storeAlone(v);
    const repr = this.ctx.reprs.get(v);
    if (!repr) throw new LowrankError(`${v.toString()} was never computed: this is a bug of lowering`);
    return repr;
  }

  /** A value in memory: counters and constants are written out. */
  #inBuffer(v: Value): Repr & { readonly base: Buffer } {
    const repr = this.repr(v);
    return (isBuffer(repr.base) ? repr : copyOf(this.ctx, repr)) as Repr & { readonly base: Buffer };
  }

  /** An inlined value that has to be stored after all. */
  #storeAlone(v: Value): void {
    const { buffer, repr } = this.ctx.newWhole(v.aval);
    const index = { offset: 0, strides: stridesOf(v.shape) };
    this.ctx.launch({ kind: "map", shape: v.shape, stores: [{ operand: buffer, index, value: this.expr(v) }] });
    this.ctx.reprs.set(v, repr);
  }

  /** The expression of a value at the axes of its own shape; inlined values are computed in place. */
  expr(v: Value, memo = new Map<Value, Expr<Memory>>()): Expr<Memory> {
    const known = memo.get(v);
    if (known) return known;
    const made = this.ctx.inlined.has(v) && !this.ctx.reprs.has(v)
      ? this.#operation(v.node, v, (x) => this.expr(x, memo))
      : exprOf(this.repr(v));
    memo.set(v, made);
    return made;
  }

  /** What an elementwise node computes, from the expressions of its inputs. */
  #operation(node: Node, out: Value, expr: (v: Value) => Expr<Memory>): Expr<Memory> {
    const { lowering } = node.prim;
    const inputs = this.ctx.inputs(node);
    const type = arithmeticType[out.dtype];
    switch (lowering.kind) {
      case "scalar": {
        const args = inputs.map(expr);
        if (lowering.op === "convert" && args[0].type === type) return args[0];
        return opOf(lowering.op as ScalarOp, type, ...args);
      }
      case "random": {
        const key = this.#inBuffer(inputs[0]);
        const rank = out.shape.length;
        const word = (i: number): Expr<Memory> => ({
          kind: "load",
          type: "u32",
          operand: key.base,
          index: { offset: key.view.offset + i * key.view.strides[0], strides: new Array(rank).fill(0) },
        });
        const index = { offset: 0, strides: stridesOf(out.shape) };
        const counter: Expr<Memory> = { kind: "load", type: "u32", operand: "counter", index };
        return { kind: "threefry", type: "u32", lane: 0, args: [word(0), word(1), counter, constOf("u32", 0)] };
      }
      case "gather": {
        const table = this.#inBuffer(inputs[0]);
        const indices = this.repr(inputs[1]);
        const n = inputs[1].shape.length;
        const rest = table.view.strides.slice(1);
        const at = exprOf(indices, [...indices.view.strides, ...rest.map(() => 0)]);
        return windowed(table, type, [...new Array(n).fill(0), ...rest], [
          { value: clamp(at, inputs[0].shape[0] - 1), stride: table.view.strides[0] },
        ]);
      }
      case "dynamicSlice": {
        const source = this.#inBuffer(inputs[0]);
        const zeros = new Array(out.shape.length).fill(0);
        const starts = inputs.slice(1).map((s, axis) => ({
          value: clamp(exprOf(this.repr(s), zeros), inputs[0].shape[axis] - out.shape[axis]),
          stride: source.view.strides[axis],
        }));
        return windowed(source, type, source.view.strides, starts);
      }
      default:
        throw new LowrankError(`${node.prim.name} is not elementwise: this is a bug of lowering`);
    }
  }

  /** A product starts a group of its own, which elementwise work on its result may join. */
  addContraction(v: Value, contraction: Contraction): void {
    const exprs = new Map<Value, Expr<Memory>>([[v, { kind: "result", type: "f32", phase: 0 }]]);
    this.#of.set(v, { shape: v.shape, exprs, contraction, open: true, at: this.ctx.nextPlace() });
  }

  /** Puts an elementwise node into the open groups of its inputs, merged, or into a new one. */
  join(node: Node): void {
    const v = node.outs[0];
    const found = new Set<Group>();
    // Only a scalar operation reads its inputs point by point; the others read buffers.
    for (const x of node.prim.lowering.kind === "scalar" ? this.ctx.inputs(node) : []) {
      const group = this.#of.get(x);
      const narrow = x.dtype === "f16" || x.dtype === "bf16";
      if (group?.open && !narrow && sameShape(group.shape, v.shape) && group.exprs.size < maxFused) found.add(group);
    }
    const group = this.#merge([...found], node) ?? newGroup(v, this.ctx.nextPlace());
    if (!group.exprs.has(v)) {
      const expr = this.#operation(node, v, (x) => group.exprs.get(x) ?? this.expr(x));
      // Reading other values may have launched what this group was waiting for, never the group itself.
      group.exprs.set(v, expr);
      if (!this.ctx.writtenBefore(this.#buffersOf(expr), group.at)) group.at = this.ctx.nextPlace();
    }
    this.#of.set(v, group);
    if (this.#width(group, (n) => this.#mayJoin(n, group)) > this.most) this.#split(group, node);
  }

  /** One group from several; null where there is none to join. Two bare products that are added share an accumulator. */
  #merge(groups: Group[], node: Node): Group | null {
    if (groups.length === 0) return null;
    if (groups.length === 1) return groups[0];
    const products = groups.filter((g) => g.contraction);
    if (products.length > 1) {
      const bare = groups.every((g) => g.contraction && g.exprs.size === 1);
      const { lowering } = node.prim;
      const inputs = this.ctx.inputs(node);
      const sole = inputs.every((x) => this.#sole(x, node));
      const segments = products.flatMap((g) => g.contraction!.segments);
      const adds = lowering.kind === "scalar" && lowering.op === "add" && inputs[0] !== inputs[1];
      const alike = new Set(products.map((g) => g.contraction!.batch + "," + g.contraction!.free)).size === 1;
      const plain = segments.every((s) => !s.rounded);
      if (bare && plain && adds && sole && alike && segments.length * 2 < this.most) {
        const merged: Group = {
          shape: groups[0].shape,
          exprs: new Map([[node.outs[0], { kind: "result", type: "f32", phase: 0 }]]),
          contraction: { ...products[0].contraction!, segments },
          open: true,
          at: Math.max(...groups.map((g) => g.at)),
        };
        return merged;
      }
      // Only one accumulator a kernel: the others are launched and become operands of its epilogue.
      for (const g of products.slice(0, -1)) this.close(g);
      return this.#merge(groups.filter((g) => g.open), node);
    }
    const into: Group = {
      shape: groups[0].shape,
      exprs: new Map(groups.flatMap((g) => [...g.exprs])),
      contraction: products[0]?.contraction ?? null,
      open: true,
      at: Math.max(...groups.map((g) => g.at)),
    };
    const large = into.exprs.size >= maxFused;
    if (large || this.#width(into, (n) => n === node || this.#mayJoin(n, into)) > this.most - 1) {
      for (const g of groups.slice(0, -1)) this.close(g);
      return groups.at(-1)!;
    }
    for (const v of into.exprs.keys()) this.#of.set(v, into);
    return into;
  }

  /** Whether `node` is all that uses `x`. */
  #sole(x: Value, node: Node): boolean {
    return !this.ctx.outputs.has(x) && this.ctx.consumers.get(x)!.every((n) => n === node);
  }

  /** Whether a consumer that is not lowered yet may still become a member. */
  #mayJoin(n: Node, group: Group): boolean {
    const [v] = n.outs;
    const pending = !this.#of.has(v) && !this.ctx.reprs.has(v) && !this.ctx.inlined.has(v);
    return n.prim.lowering.kind === "scalar" && pending && sameShape(v.shape, group.shape);
  }

  /** The members that are needed outside the group, but for consumers that `ignore` names. */
  #exports(group: Group, ignore: (n: Node) => boolean = () => false): Value[] {
    const outside = (n: Node) => !n.outs.every((o) => group.exprs.has(o)) && !ignore(n);
    return [...group.exprs.keys()].filter((v) => this.ctx.outputs.has(v) || this.ctx.consumers.get(v)?.some(outside));
  }

  /** How many buffers the group's kernel would bind if it were launched now. */
  #width(group: Group, ignore?: (n: Node) => boolean): number {
    const exports = this.#exports(group, ignore);
    const buffers = new Set<Buffer>();
    for (const v of ignore ? group.exprs.keys() : exports) {
      for (const b of this.#buffersOf(group.exprs.get(v)!)) buffers.add(b);
    }
    for (const { a, b } of group.contraction?.segments ?? []) {
      for (const r of [a, b]) if (isBuffer(r.base)) buffers.add(r.base);
    }
    return buffers.size + exports.length;
  }

  /** The buffers that an expression reads; each expression is looked at once. */
  #buffersOf(expr: Expr<Memory>): ReadonlySet<Buffer> {
    const known = this.#buffers.get(expr);
    if (known) return known;
    const parts = childrenOf(expr).map((child) => this.#buffersOf(child));
    let found = parts[0];
    if (parts.length !== 1 || expr.kind === "load") {
      const own = expr.kind === "load" && expr.operand !== "counter" ? [expr.operand] : [];
      found = new Set([...own, ...parts.flatMap((part) => [...part])]);
    }
    this.#buffers.set(expr, found);
    return found;
  }

  /** The group without its newest member is launched; the member starts a new one. */
  #split(group: Group, node: Node): void {
    const v = node.outs[0];
    group.exprs.delete(v);
    if (group.exprs.size > 0) this.close(group);
    const expr = this.#operation(node, v, (x) => this.expr(x));
    const fresh = newGroup(v, this.ctx.nextPlace());
    fresh.exprs.set(v, expr);
    this.#of.set(v, fresh);
  }

  /** Members that were expected to stay inside did not: as many of the first as fit are one kernel, the rest another. */
  #closeInParts(group: Group): void {
    group.open = false;
    const members = [...group.exprs];
    let first: Group, count = members.length;
    do {
      count--;
      first = { ...group, exprs: new Map(members.slice(0, count)), open: true };
    } while (count > 1 && this.#width(first) > this.most);
    for (const v of first.exprs.keys()) this.#of.set(v, first);
    this.close(first);
    const rest: Group = { ...group, exprs: new Map(), contraction: null, open: true };
    for (const [v] of members.slice(count)) {
      rest.exprs.set(v, this.#operation(v.node, v, (x) => rest.exprs.get(x) ?? this.expr(x)));
      this.#of.set(v, rest);
    }
    this.close(rest);
  }

  /** Launches a group: one kernel that stores what is needed outside. */
  close(group: Group): void {
    if (!group.open) return;
    if (this.#width(group) > this.most) return this.#closeInParts(group);
    group.open = false;
    const exports = this.#exports(group);
    const stores: Store<Memory>[] = exports.map((v) => {
      const { buffer, repr } = this.ctx.destination(v);
      this.ctx.reprs.set(v, repr);
      const { offset, strides } = repr.view;
      return { operand: buffer, index: { offset, strides }, value: group.exprs.get(v)! };
    });
    if (stores.length === 0) return;
    this.ctx.place = group.at;
    if (group.contraction) launchContract(this.ctx, group.shape, group.contraction, stores);
    else this.ctx.launch({ kind: "map", shape: group.shape, stores });
    this.ctx.place = null;
  }
}

function newGroup(v: Value, at: number): Group {
  return { shape: v.shape, exprs: new Map(), contraction: null, open: true, at };
}

function windowed(
  { base, view }: Repr & { readonly base: Buffer },
  type: Expr["type"],
  strides: readonly number[],
  dynamic: { value: Expr<Memory>; stride: number }[],
): Expr<Memory> {
  return { kind: "load", type, operand: base, index: { offset: view.offset, strides, dynamic } };
}

/** An index limited to [0, most]. */
export function clamp(value: Expr<Memory>, most: number): Expr<Memory> {
  return opOf("max", "i32", opOf("min", "i32", value, constOf("i32", most)), constOf("i32", 0));
}
