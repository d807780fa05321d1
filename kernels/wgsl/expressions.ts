import type { Expr, Index, Store } from "../ir/kernel.ts";

/** The expressions an expression reads directly. */
export function inputsOf(expr: Expr): readonly Expr[] {
  switch (expr.kind) {
    case "op":
    case "threefry":
      return expr.args;
    case "load":
      return expr.index.dynamic?.map((term) => term.value) ?? [];
    default:
      return [];
  }
}

/** The expressions that stores begin from: their values and the moving parts of their indices. */
export function rootsOf(stores: readonly Store[]): Expr[] {
  return stores.flatMap((store) => [store.value, ...(store.index.dynamic?.map((term) => term.value) ?? [])]);
}

/** How often each expression under `roots` is read, roots once more; operands come before their readers. */
export function countUses(roots: readonly Expr[]): Map<Expr, number> {
  const uses = new Map<Expr, number>();
  const order: Expr[] = [];
  const visit = (expr: Expr) => {
    const seen = uses.get(expr);
    uses.set(expr, (seen ?? 0) + 1);
    if (seen !== undefined) return;
    inputsOf(expr).forEach(visit);
    order.push(expr);
  };
  roots.forEach(visit);
  return new Map(order.map((expr) => [expr, uses.get(expr)!]));
}

/** Whether an expression has another value at another position along `axis`. */
export function variesAlong(expr: Expr, axis: number): boolean {
  if (expr.kind === "axis") return expr.axis === axis;
  if (expr.kind === "load" && (expr.index.strides[axis] ?? 0) !== 0) return true;
  return inputsOf(expr).some((input) => variesAlong(input, axis));
}

/** Every index that the expressions and stores use, with the operand it is an index of. */
export function accessesOf(
  exprs: Iterable<Expr>,
  stores: readonly Store[],
): { readonly operand: number; readonly index: Index }[] {
  const loads = [...exprs].filter((expr) => expr.kind === "load");
  return [...loads, ...stores].map(({ operand, index }) => ({ operand, index }));
}
