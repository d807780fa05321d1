/** One very long row is reduced in two stages: many parts of it side by side, and then the parts' results. */
import { sizeOf } from "../../core/aval.ts";
import type { DType } from "../../core/dtype.ts";
import { type Expr, Rewriter, walk } from "../ir/expr.ts";
import type { RowKernel } from "../ir/kernel.ts";
import type { Launch } from "./body.ts";
import type { Buffer } from "./repr.ts";

/** Rows up to which there are too few to keep a device busy, elements from which on a row is long, and most parts of it. */
const [fewRows, longRow, maxParts] = [16, 2 ** 15, 256];
/** The fewest elements of a part. */
const minPart = 1024;

/**
 * The two launches that a reduction of few long rows is made of, or null where it is to stay one: where there are many rows,
 * the row does not part evenly, or the value depends on the column's number.
 */
export function splitLongRow(
  { kernel, buffers }: Launch,
  newBuffer: (dtype: DType, size: number) => Buffer,
): readonly Launch[] | null {
  if (kernel.kind !== "row" || kernel.phases.length !== 2) return null;
  const [reduce, once] = kernel.phases;
  if (reduce.kind !== "reduce" || once.kind !== "once" || (reduce.op !== "sum" && reduce.op !== "max")) return null;
  const parts = partsOf(kernel);
  const value = parts > 1 && withParts(reduce.value, kernel.rows.length, kernel.cols / parts);
  if (!value || value.type === "bool" || once.stores.length !== 1) return null;
  const [store] = once.stores;
  const partial = newBuffer(value.type, sizeOf(kernel.rows) * parts);
  const operand = (access: "read" | "write") => ({ dtype: value.type, size: partial.size, access }) as const;
  const inner = kernel.rows.map((_, i) => parts * sizeOf(kernel.rows.slice(i + 1)));
  const result: Expr = { kind: "result", type: value.type, phase: 0 };
  const first: RowKernel = {
    ...kernel,
    operands: kernel.operands.map((o, i) => i === store.operand ? operand("write") : o),
    rows: [...kernel.rows, parts],
    cols: kernel.cols / parts,
    phases: [
      { ...reduce, value },
      {
        kind: "once",
        stores: [{ operand: store.operand, index: { offset: 0, strides: [...inner, 1, 0] }, value: result }],
      },
    ],
  };
  const second: RowKernel = {
    kind: "row",
    operands: [operand("read"), kernel.operands[store.operand]],
    rows: kernel.rows,
    cols: parts,
    phases: [
      {
        ...reduce,
        value: { kind: "load", type: value.type, operand: 0, index: { offset: 0, strides: [...inner, 1] } },
      },
      { kind: "once", stores: [{ ...store, operand: 1 }] },
    ],
  };
  const to = buffers[store.operand];
  return [
    { kernel: first, buffers: buffers.map((b, i) => i === store.operand ? partial : b) },
    { kernel: second, buffers: [partial, to] },
  ];
}

/** Into how many equal parts a row is cut: a power of two, 1 where it stays whole. */
function partsOf({ rows, cols }: RowKernel): number {
  if (sizeOf(rows) > fewRows || cols < longRow) return 1;
  let parts = maxParts;
  while (parts > 1 && (cols % parts !== 0 || cols / parts < minPart)) parts /= 2;
  return parts;
}

/** The expression over [...rows, part, column of the part], or null where it is no function of windows on operands. */
function withParts(root: Expr, column: number, size: number): Expr | null {
  const parts = [...walk([root])].every((e) =>
    e.kind === "load" ? !e.index.dynamic?.length : e.kind === "axis" ? e.axis !== column : e.kind !== "result"
  );
  const strides = (old: readonly number[]) => {
    const stride = old[column] ?? 0;
    return [...old.slice(0, column), stride * size, stride];
  };
  return parts ? new Rewriter({ operand: (o) => o, strides }).expr(root) : null;
}
