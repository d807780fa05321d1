import type { Expr, Index } from "../ir/expr.ts";
import type { ShaderWriter } from "./shader.ts";

/** Whether `index` walks an array of `shape` in row-major order from its start. */
export function isContiguous(index: Index, shape: readonly number[]): boolean {
  if (index.offset !== 0 || index.dynamic?.length) return false;
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && index.strides[i] !== step) return false;
    step *= shape[i];
  }
  return true;
}

/** Whether `index` names one element at every point, and at the three that would follow along the last axis. */
export function isFixed(index: Index, shape: readonly number[]): boolean {
  const last = shape.length - 1;
  return !index.dynamic?.length && index.strides.every((stride, i) => stride === 0 || (shape[i] === 1 && i !== last));
}

/** The axes that the indices and expressions need by name. */
export function axesUsed(indices: Iterable<Index>, exprs: Iterable<Expr>): Set<number> {
  const used = new Set<number>();
  for (const index of indices) index.strides.forEach((stride, i) => stride !== 0 && used.add(i));
  for (const expr of exprs) if (expr.kind === "axis") used.add(expr.axis);
  return used;
}

/**
 * Writes `let` lines that take the flat number `flat` apart into the axes of `shape`, row-major, and returns the name of
 * each. Axes of one element are `0u`; those not in `used` are given no line.
 */
export function splitAxes(
  shader: ShaderWriter,
  flat: string,
  shape: readonly number[],
  used: ReadonlySet<number>,
  prefix = "a",
): string[] {
  let inner = shape.reduce((product, d) => product * d, 1);
  const total = inner;
  return shape.map((size, i) => {
    inner /= size;
    if (size === 1 || !used.has(i)) return "0u";
    let text = inner === 1 ? flat : `${flat} / ${inner}u`;
    if (inner * size !== total) text = inner === 1 ? `${flat} % ${size}u` : `(${text}) % ${size}u`;
    if (text === flat) return flat;
    shader.line(`let ${prefix}${i} = ${text};`);
    return `${prefix}${i}`;
  });
}
