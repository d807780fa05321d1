/** Axes, shapes and places as users give them. One rule for every operation, NumPy's: axis -1 is the last. */
import { type Aval, checkShape, formatAval } from "../aval.ts";
import { ShapeError } from "../errors.ts";

/**
 * An axis as its place from the front.
 *
 * @throws {ShapeError} when `x` has no such axis
 */
export function axisOf(name: string, x: Aval, axis: number): number {
  const rank = x.shape.length;
  if (Number.isInteger(axis) && axis >= -rank && axis < rank) return axis < 0 ? axis + rank : axis;
  const there = rank === 0 ? "it has none" : `its axes are 0 to ${rank - 1}, or -${rank} to -1 from the end`;
  throw new ShapeError(`Cannot ${name} ${formatAval(x)} along axis ${showArgument(axis)}: ${there}`);
}

/**
 * Axes as their places from the front, in the order given; all of them by default.
 *
 * @throws {ShapeError} when `x` has no such axis, or one is named twice
 */
export function axesOf(name: string, x: Aval, axes: number | readonly number[] | undefined): number[] {
  if (axes === undefined) return x.shape.map((_, i) => i);
  const list = (Array.isArray(axes) ? axes as readonly number[] : [axes as number]).map((a) => axisOf(name, x, a));
  const twice = list.find((a, i) => list.indexOf(a) !== i);
  if (twice === undefined) return list;
  throw new ShapeError(`Cannot ${name} ${formatAval(x)} over axes [${axes}]: axis ${twice} is named twice`);
}

/** Whether every one of some places is a whole number from 0. */
export function areWhole(list: readonly number[]): boolean {
  return Array.isArray(list) && Array.from(list).every((n) => Number.isSafeInteger(n) && n >= 0);
}

/** A shape that a user gave, before anything is made of it. */
export function shapeOf(name: string, shape: readonly number[]): readonly number[] {
  checkShape(`Cannot ${name} to`, shape);
  return shape;
}

/** Anything, in a sentence. */
export function showArgument(x: unknown): string {
  if (Array.isArray(x)) return `[${Array.from(x, showArgument)}]`;
  if (typeof x === "object" && x !== null) return `an object of ${Object.keys(x).join(", ") || "nothing"}`;
  return typeof x === "string" ? JSON.stringify(x) : String(x);
}
