/** Reads and writes at places that are data: rows of a table, windows of a buffer. Indices are i32. */
import { formatAval } from "../aval.ts";
import { ShapeError } from "../errors.ts";
import { bind1, type Primitive, type Value } from "../ir/graph.ts";
import { isPacked } from "../packed/blocks.ts";
import type { Operand } from "../tensor.ts";
import { areWhole, showArgument } from "./arguments.ts";
import { broadcastTo, full, reshape } from "./broadcast.ts";
import { asValue } from "./constant.ts";
import { add, and, clamp, convert, ge, lt, mul, select } from "./elementwise.ts";
import { asNumbers } from "./quantize.ts";
import { iota } from "./structure.ts";

/** table[v, …] at indices[i…] → [i…, …]; indices are clamped into the table. */
export const gatherPrim: Primitive<null> = {
  name: "gather",
  infer: ([table, indices]) => {
    if (indices.dtype !== "i32" || table.shape.length === 0) {
      throw new ShapeError(`Cannot gather rows of ${formatAval(table)} by ${formatAval(indices)}: indices are i32`);
    }
    if (table.shape[0] === 0 && !indices.shape.includes(0)) {
      throw new ShapeError(`Cannot gather rows of ${formatAval(table)} by ${formatAval(indices)}: there are no rows`);
    }
    return [{ shape: [...indices.shape, ...table.shape.slice(1)], dtype: table.dtype }];
  },
  vjp: ({ cts: [ct], needs, inputs: [table, indices] }) => [
    needs[0] && ct
      ? convert(scatterAdd(clamp(indices, 0, table.shape[0] - 1), convert(ct, "f32"), table.shape[0]), table.dtype)
      : null,
    null,
  ],
  batch: ({ inputs: [table, indices], batched, size }) => {
    if (!batched[0]) return [gather(table, indices)];
    const ids = batched[1] ? indices : broadcastTo(indices, [size, ...indices.shape], { leading: true });
    const shifted = flatRows(ids, table.shape[1]);
    return [gather(reshape(table, [size * table.shape[1], ...table.shape.slice(2)]), shifted)];
  },
  lowering: { kind: "gather" },
};

/** Batched tables as one flat table: row v of table b is row b·count + v, with v clamped before it can reach another. */
function flatRows(ids: Value, count: number): Value {
  return add(clamp(ids, 0, count - 1), mul(iota(ids.shape, 0), count));
}

/**
 * Rows of `table` (axis 0) at i32 `indices` of any shape: f32[words, width] at i32[B,T] is f32[B,T,width]. Indices are data, so
 * they can't be checked: one outside is clamped, a negative one to row 0 and one too large to the last row. The gradient goes
 * to the row that was read.
 *
 * @throws {ShapeError} when the indices are not i32, or the table has no rows
 */
export function gather(table: Operand, indices: Operand): Value {
  return bind1(gatherPrim, [asNumbers(table), asValue(indices, "i32")], null);
}

/**
 * A zero table [targets, …] with updates[i…, …] added at rows indices[i…], in increasing i: the same bits every run.
 * Rows at indices outside are dropped.
 */
export const scatterAddPrim: Primitive<{ targets: number }> = {
  name: "scatterAdd",
  infer: ([indices, updates], { targets }) => {
    const n = indices.shape.length;
    if (indices.dtype !== "i32" || updates.dtype !== "f32" || indices.shape.some((d, i) => d !== updates.shape[i])) {
      throw new ShapeError(
        `Cannot scatter ${formatAval(updates)} by ${
          formatAval(indices)
        }: i32 indices, f32 updates that begin with their shape`,
      );
    }
    return [{ shape: [targets, ...updates.shape.slice(n)], dtype: "f32" }];
  },
  vjp: (
    { cts: [ct], needs, inputs: [indices, updates] },
  ) => {
    if (!needs[1] || !ct) return [null, null];
    const [targets] = ct.shape;
    return [null, targets === 0 ? full(updates.shape, 0) : inside(gather(ct, indices), indices, targets)];
  },
  batch: ({ inputs: [indices, updates], batched, params: { targets }, size }) => {
    const lift = (x: Value, is: boolean) => is ? x : broadcastTo(x, [size, ...x.shape], { leading: true });
    const [ids, rows] = [lift(indices, batched[0]), lift(updates, batched[1])];
    const flat = scatterAdd(select(isInside(ids, targets), flatRows(ids, targets), -1), rows, size * targets);
    return [reshape(flat, [size, targets, ...flat.shape.slice(1)])];
  },
  lowering: { kind: "scatter" },
};

function isInside(indices: Value, targets: number): Value {
  return and(ge(indices, 0), lt(indices, targets));
}

/** Rows whose index was outside get zeros. */
function inside(rows: Value, indices: Value, targets: number): Value {
  const ok = isInside(indices, targets);
  const column = reshape(ok, [...ok.shape, ...rows.shape.slice(ok.shape.length).map(() => 1)]);
  return select(column, rows, 0);
}

/**
 * `targets` rows of zeros with row i of `updates` added at `indices[i]`: indices i32[…], updates [… , row]. An index outside
 * is left out. The same bits every run.
 */
export function scatterAdd(indices: Operand, updates: Operand, targets: number): Value {
  return bind1(scatterAddPrim, [asValue(indices, "i32"), asValue(updates)], { targets });
}

/** A window of `sizes` that starts at the i32 scalars that follow the input. */
export const dynamicSlicePrim: Primitive<{ sizes: readonly number[] }> = {
  name: "dynamicSlice",
  infer: ([x, ...starts], { sizes }) => {
    const fits = areWhole(sizes) && sizes.length === x.shape.length && sizes.every((d, i) => d <= x.shape[i]);
    if (!fits || starts.length !== sizes.length || starts.some((s) => s.shape.length > 0 || s.dtype !== "i32")) {
      throw new ShapeError(
        `Cannot take a ${showArgument(sizes)} window of ${formatAval(x)}: one i32 start and a size per axis`,
      );
    }
    return [{ shape: sizes, dtype: x.dtype }];
  },
  vjp: ({ cts: [ct], needs, inputs: [x, ...starts] }) => [
    needs[0] && ct ? dynamicUpdateSlice(full(x.shape, 0, x.dtype), ct, starts) : null,
    ...starts.map(() => null),
  ],
  batch: ({ inputs: [x, ...starts], batched, params, size }) => {
    if (batched.slice(1).some((b) => b)) {
      throw new ShapeError("vmap over the start of a dynamicSlice has no rule: use gather with indices instead");
    }
    return [dynamicSlice(x, [asValue(0, "i32"), ...starts], [size, ...params.sizes])];
  },
  lowering: { kind: "dynamicSlice" },
};

function startsOf(starts: readonly Operand[]): Value[] {
  if (!Array.isArray(starts)) {
    throw new ShapeError(`a window begins at a list of starts, not at ${showArgument(starts)}`);
  }
  return (starts as readonly Operand[]).map((s) => asValue(s, "i32", "begin a window"));
}

/**
 * The window of `sizes` of `x` that begins at `starts`, one i32 scalar an axis: data, so that no place needs a program. A window
 * that would reach outside is moved inside.
 */
export function dynamicSlice(x: Operand, starts: readonly Operand[], sizes: readonly number[]): Value {
  return bind1(dynamicSlicePrim, [asValue(x), ...startsOf(starts)], { sizes });
}

/** The input with `update` written over the window that starts at the i32 scalars that follow. */
export const dynamicUpdateSlicePrim: Primitive<null> = {
  name: "dynamicUpdateSlice",
  infer: ([x, update, ...starts]) => {
    const fits = x.shape.length === update.shape.length && update.shape.every((d, i) => d <= x.shape[i]);
    const scalars = starts.length === x.shape.length && starts.every((s) => s.shape.length === 0 && s.dtype === "i32");
    if (!fits || update.dtype !== x.dtype || isPacked(x.dtype) || !scalars) {
      throw new ShapeError(
        `Cannot write ${formatAval(update)} over a window of ${
          formatAval(x)
        }: it must fit inside, with one i32 start an axis`,
      );
    }
    return [x];
  },
  vjp: ({ cts: [ct], needs, inputs: [, update, ...starts] }) => [
    needs[0] && ct ? dynamicUpdateSlice(ct, full(update.shape, 0, update.dtype), starts) : null,
    needs[1] && ct ? dynamicSlice(ct, starts, update.shape) : null,
    ...starts.map(() => null),
  ],
  batch: ({ inputs: [x, update, ...starts], batched, size }) => {
    if (batched.slice(2).some((b) => b)) {
      throw new ShapeError("vmap over the start of a dynamicUpdateSlice has no rule: use scatterAdd instead");
    }
    const lift = (v: Value, is: boolean) => is ? v : broadcastTo(v, [size, ...v.shape], { leading: true });
    return [dynamicUpdateSlice(lift(x, batched[0]), lift(update, batched[1]), [asValue(0, "i32"), ...starts])];
  },
  lowering: { kind: "dynamicUpdate" },
};

/**
 * `x` with `update` written over it from `starts` on, one i32 scalar an axis; in place where `x` is not needed again. A window
 * that would reach outside is moved inside.
 */
export function dynamicUpdateSlice(x: Operand, update: Operand, starts: readonly Operand[]): Value {
  return bind1(dynamicUpdateSlicePrim, [asValue(x), asValue(update), ...startsOf(starts)], null);
}
