/**
 * Reductions of one row that share a reading of it, though one needs the result of another: a sum is kept at the running
 * estimate of that result and moved whenever the estimate changes. The sum of e^(x - max) is scaled, as in Milakov and
 * Gimelshein 2018, "Online normalizer calculation for softmax"; a sum of polynomials in the estimate, such as the squared
 * distances from the mean, is moved by its Taylor series, which for these is exact: Welford's method.
 */
import { constOf, type Expr, opOf, walk } from "../../ir/expr.ts";
import type { Reduction } from "./join.ts";

/** A reduction that runs beside others. */
export interface OnlineReduction {
  readonly phase: number;
  readonly op: Reduction["op"];
  /** What is reduced: the phase's value without `factor`. */
  readonly value: Expr;
  /** What the whole sum is multiplied by at the end; the same at every column. */
  readonly factor: Expr | null;
  /** The phase on whose estimate the value depends; null where on none. */
  readonly by: number | null;
  /** How the sum follows the estimate: its derivatives by it, which are summed too, or by one exponential. */
  readonly follows: "exp" | readonly Expr[];
}

/** The most derivatives that a sum may have besides itself. */
const maxDerivatives = 2;

/**
 * How phase number `phase` runs in one reading of the row with the phases `alongside` (by number), or null where it must wait
 * for their results.
 */
export function onlineReduction(
  phase: number,
  { op, value }: Reduction,
  alongside: ReadonlyMap<number, Reduction>,
  varies: (expr: Expr) => boolean,
): OnlineReduction | null {
  const needs = (expr: Expr) => [...resultsOf(expr)].filter((p) => alongside.has(p));
  if (needs(value).length === 0) return { phase, op, value, factor: null, by: null, follows: [] };
  if (op !== "sum" || value.type !== "f32") return null;
  const [factor, rest] = parted(value, varies);
  const [by, ...others] = needs(rest);
  if (by === undefined) return { phase, op, value: rest, factor, by: null, follows: [] };
  if (others.length > 0) return null;
  const of = alongside.get(by)!;
  if (of.value.type !== "f32" || needs(of.value).length > 0) return null;
  const made = { phase, op, value: rest, factor, by };
  if (of.op === "max" && isShiftedExp(rest, of.value, by)) return { ...made, follows: "exp" };
  if (of.op !== "max" && of.op !== "sum") return null;
  const chain: Expr[] = [];
  for (let next = derivative(rest, by); next !== null; next = derivative(next, by)) {
    if (next === "none" || chain.length === maxDerivatives) return null;
    chain.push(next);
  }
  return { ...made, follows: chain };
}

/** e^(x - r), where r is the greatest x: never above 1. */
function isShiftedExp(expr: Expr, x: Expr, phase: number): boolean {
  if (expr.kind !== "op" || expr.op !== "exp") return false;
  const [inner] = expr.args;
  if (inner.kind !== "op" || inner.op !== "sub") return false;
  const [a, b] = inner.args;
  return a === x && b.kind === "result" && b.phase === phase;
}

/** The numbers of the phases whose results an expression reads. */
export function resultsOf(root: Expr): Set<number> {
  return new Set([...walk([root])].flatMap((e) => e.kind === "result" ? [e.phase] : []));
}

const op = (name: "add" | "sub" | "mul" | "div", ...args: Expr[]) => opOf<number>(name, "f32", ...args);
const number = (value: number): Expr => constOf("f32", value);

/** a·b, with the numbers of both gathered in front. */
function times(a: Expr, b: Expr): Expr {
  const [[m, x], [n, y]] = [a, b].map(scaled);
  const rest = x && y ? op("mul", x, y) : x ?? y;
  return rest === null ? number(m * n) : m * n === 1 ? rest : op("mul", number(m * n), rest);
}

/** An expression as a number times the rest, null where that is all. */
function scaled(e: Expr): readonly [number, Expr | null] {
  if (e.kind === "const") return [e.value, null];
  const [first, rest] = e.kind === "op" && e.op === "mul" ? e.args : [e, e];
  return first.kind === "const" ? [first.value, rest] : [1, e];
}

/** A product as the factors that are the same at every column and read results, and the rest. */
function parted(value: Expr, varies: (expr: Expr) => boolean): readonly [factor: Expr | null, rest: Expr] {
  if (value.kind !== "op" || value.op !== "mul") return [null, value];
  const [[f, a], [g, b]] = value.args.map((arg) =>
    !varies(arg) && resultsOf(arg).size > 0 ? [arg, number(1)] as const : parted(arg, varies)
  );
  if (f === null && g === null) return [null, value];
  return [f === null ? g : g === null ? f : times(f, g), times(a, b)];
}

/** The derivative by a phase's result: null where it is 0, "none" where it is not known. */
function derivative(e: Expr, by: number): Expr | null | "none" {
  if (e.kind === "result" && e.phase === by) return number(1);
  if (!resultsOf(e).has(by)) return null;
  if (e.kind !== "op") return "none";
  const parts = e.args.map((arg) => derivative(arg, by));
  if (parts.includes("none")) return "none";
  const [a, b] = e.args, [da, db, dc] = parts as (Expr | null)[];
  switch (e.op) {
    case "neg":
      return times(number(-1), da!);
    case "add":
      return da && db ? op("add", da, db) : da ?? db;
    case "sub":
      return da && db ? op("sub", da, db) : da ?? times(number(-1), db!);
    case "mul":
      if (a === b) return times(number(2), times(a, da!));
      if (da && db) return op("add", times(da, b), times(a, db));
      return da ? times(da, b) : times(a, db!);
    case "div":
      return db ? "none" : op("div", da!, b);
    case "select":
      return da ? "none" : { ...e, args: [a, db ?? number(0), dc ?? number(0)] };
    default:
      return "none";
  }
}
