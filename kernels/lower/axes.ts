/** Merging of iteration axes: the fewer axes a kernel has, the longer its inner loop and the more kernels are the same. */
import type { Expr, Index } from "../ir/kernel.ts";
import type { Buffer, Draft, DraftIndex, DraftStore } from "./repr.ts";

/** Every index that some drafts and stores mention, those inside dynamic indices included. */
export function indicesOf(drafts: readonly Draft[], stores: readonly DraftStore[] = []): DraftIndex[] {
  const found = new Set<DraftIndex>();
  const seen = new Set<Draft>();
  const stack: Draft[] = [...drafts];
  const take = (index: DraftIndex) => {
    found.add(index);
    for (const d of index.dynamic ?? []) stack.push(d.value);
  };
  for (const s of stores) {
    take(s.index);
    stack.push(s.value);
  }
  while (stack.length > 0) {
    const d = stack.pop()!;
    if (seen.has(d)) continue;
    seen.add(d);
    if (d.kind === "load" || d.kind === "affine") take(d.index);
    else if (d.kind === "op" || d.kind === "threefry") stack.push(...d.args);
  }
  return [...found];
}

/** A run of old axes folded into one new axis each; `keep` names the old axis whose stride the new one has. */
export interface Folding {
  readonly shape: number[];
  readonly keep: number[];
}

/** Drops axes of size 1 and merges neighbours that step evenly in every index. `axes` are taken in the order given. */
export function foldAxes(shape: readonly number[], axes: readonly number[], indices: readonly DraftIndex[]): Folding {
  const out: Folding = { shape: [], keep: [] };
  for (const axis of axes) {
    if (shape[axis] === 1) continue;
    const last = out.keep.length - 1;
    const previous = out.keep[last];
    const even = last >= 0 && indices.every(({ strides }) => strides[previous] === strides[axis] * shape[axis]);
    if (even) {
      out.shape[last] *= shape[axis];
      out.keep[last] = axis;
    } else {
      out.shape.push(shape[axis]);
      out.keep.push(axis);
    }
  }
  return out;
}

/** Turns drafts into expressions over the kept axes (-1 is an axis of size 1); `operand` gives each buffer its place. */
export function finisher(keep: readonly number[], operand: (buffer: Buffer) => number): {
  expr: (draft: Draft) => Expr;
  index: (index: DraftIndex) => Index;
} {
  const done = new Map<Draft, Expr>();
  const index = (d: DraftIndex): Index => ({
    offset: d.offset,
    strides: keep.map((axis) => axis < 0 ? 0 : d.strides[axis] ?? 0),
    ...(d.dynamic && { dynamic: d.dynamic.map((x) => ({ value: expr(x.value), stride: x.stride })) }),
  });
  const expr = (d: Draft): Expr => {
    const known = done.get(d);
    if (known) return known;
    const made = make(d);
    done.set(d, made);
    return made;
  };
  const make = (d: Draft): Expr => {
    switch (d.kind) {
      case "const":
      case "result":
        return d;
      case "load":
        return { kind: "load", type: d.type, operand: operand(d.buffer), index: index(d.index) };
      case "op":
        return { kind: "op", type: d.type, op: d.op, args: d.args.map(expr) };
      case "threefry":
        return { kind: "threefry", type: "u32", lane: d.lane, args: d.args.map(expr) };
      case "affine": {
        const value = affine(index(d.index));
        return d.type === "i32" ? value : { kind: "op", type: d.type, op: "convert", args: [value] };
      }
    }
  };
  return { expr, index };
}

function affine({ offset, strides }: Index): Expr {
  const i32 = (value: number): Expr => ({ kind: "const", type: "i32", value });
  const op = (op: "add" | "mul", a: Expr, b: Expr): Expr => ({ kind: "op", type: "i32", op, args: [a, b] });
  let sum = offset === 0 ? null : i32(offset);
  strides.forEach((stride, axis) => {
    if (stride === 0) return;
    const counter: Expr = { kind: "axis", type: "i32", axis };
    const term = stride === 1 ? counter : op("mul", counter, i32(stride));
    sum = sum ? op("add", sum, term) : term;
  });
  return sum ?? i32(0);
}
