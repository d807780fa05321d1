/**
 * Wide values in chunks of rows. A value [...rows, C] (the logits of a large vocabulary) that is made row by row, out of narrow
 * rows and values that all rows share, can be made again for any few of its rows; so what reads it row by row never needs all
 * of it at once.
 */
import { sameShape, sizeOf } from "../aval.ts";
import { bind1, type Node, type Value } from "../ir/graph.ts";
import { broadcastPrim, broadcastTo, reshape, reshapePrim } from "../ops/broadcast.ts";
import { dot, dotPrim } from "../ops/contract.ts";

/** How a value is made of rows. */
export interface RowWise {
  /** The narrow values that its rows are made from, as [rows, K] each. */
  readonly sources: readonly Value[];
  /** The value for n rows, [n, C], from the same n rows of each source. */
  build(rows: readonly Value[]): Value;
}

/** Makes a wide value's rows from those of the wide values it is made from, and of one narrow source. */
type Rule = (wide: readonly Value[], source: () => Value, count: number) => Value;

interface Found {
  readonly rule: Rule;
  readonly wide: readonly Value[];
  readonly source?: Value;
}

/**
 * How `value` [...rows, C] is made row by row, or null where something on the way is not: products of narrow rows with one
 * matrix, elementwise operations, what is the same in all rows, and other groupings of the rows.
 */
export function rowWise(value: Value): RowWise | null {
  const order: { readonly value: Value; readonly found: Found }[] = [];
  const seen = new Set<Value>();
  const pending = [value];
  while (pending.length > 0) {
    const v = pending.pop()!;
    if (seen.has(v)) continue;
    seen.add(v);
    const found = ruleOf(v);
    if (found === null) return null;
    order.push({ value: v, found });
    pending.push(...found.wide);
  }
  order.sort((a, b) => a.value.node.serial - b.value.node.serial);
  const sources = [...new Set(order.flatMap(({ found }) => found.source ?? []))];
  return {
    sources: sources.map(asRows),
    build: (rows) => {
      const made = new Map<Value, Value>();
      for (const { value: v, found } of order) {
        const source = () => rows[sources.indexOf(found.source!)];
        made.set(v, found.rule(found.wide.map((w) => made.get(w)!), source, rows[0].shape[0]));
      }
      return made.get(value)!;
    },
  };
}

/** [...rows, C] as [rows, C]. */
function asRows(x: Value): Value {
  return reshape(x, [-1, x.shape.at(-1)!]);
}

function ruleOf(v: Value): Found | null {
  const { prim, inputs, params }: Node = v.node;
  const columns = v.shape.at(-1)!;
  const [x] = inputs;
  if (prim === reshapePrim) {
    const regrouped = x.shape.at(-1) === columns && v.shape.length > 1 && x.shape.length > 1;
    return regrouped ? { rule: ([rows]) => rows, wide: [x] } : null;
  }
  if (prim === broadcastPrim) {
    const last = v.shape.length - 1;
    const dims = params.dims as readonly number[];
    const shared = dims.every((d, i) => d === last || x.shape[i] === 1);
    const flat = sizeOf(x.shape) === 1 ? [] : [columns];
    return shared ? { rule: (_, __, n) => broadcastTo(reshape(x, flat), [n, columns]), wide: [] } : null;
  }
  if (prim === dotPrim) {
    const [contract, [batch]] = [params.contract, params.batch] as readonly (readonly (readonly number[])[])[];
    const [, matrix] = inputs;
    const rowsFirst = batch.length === 0 && contract[0].length === 1 && contract[0][0] === x.shape.length - 1 &&
      matrix.shape.length === 2;
    if (!rowsFirst) return null;
    const dims = { contract: [[1], contract[1]], batch: [[], []] } as const;
    return { rule: (_, source) => dot(source(), matrix, dims), wide: [], source: x };
  }
  const elementwise = prim.lowering.kind === "scalar" && inputs.every((i) => sameShape(i.shape, v.shape));
  return elementwise ? { rule: (wide) => bind1(prim, wide, params), wide: inputs } : null;
}
