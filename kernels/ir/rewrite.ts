/** Rebuilding the expressions of a kernel. */
import type { Expr, Index, Store } from "./kernel.ts";

/** Rebuilds expressions and what holds them; what is shared stays shared. */
export interface Rewriter {
  expr(e: Expr): Expr;
  index(index: Index): Index;
  store(store: Store): Store;
}

/** `change` is given each expression with its inputs rebuilt, and `operand` the number of each operand. */
export function rewriter(change: (e: Expr) => Expr, operand: (o: number) => number): Rewriter {
  const done = new Map<Expr, Expr>();
  const index = (x: Index): Index =>
    x.dynamic ? { ...x, dynamic: x.dynamic.map((d) => ({ ...d, value: expr(d.value) })) } : x;
  const expr = (e: Expr): Expr => {
    const known = done.get(e);
    if (known) return known;
    const made = change(
      e.kind === "load"
        ? { ...e, operand: operand(e.operand), index: index(e.index) }
        : e.kind === "op" || e.kind === "threefry"
        ? { ...e, args: e.args.map(expr) }
        : e,
    );
    done.set(e, made);
    return made;
  };
  return {
    expr,
    index,
    store: (s) => ({ operand: operand(s.operand), index: index(s.index), value: expr(s.value) }),
  };
}
