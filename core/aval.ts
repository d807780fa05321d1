import { byteSize, type DType } from "./dtype.ts";
import { ShapeError } from "./errors.ts";

/** What is known about a value before it is computed: its shape and dtype. Printed as `f32[2,3]`. */
export interface Aval {
  /** Sizes, outermost first; empty for a scalar. */
  readonly shape: readonly number[];
  /** What each element is. */
  readonly dtype: DType;
}

/** The number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  let size = 1;
  for (const d of shape) size *= d;
  return size;
}

/** Row-major strides of a shape, in elements. */
export function stridesOf(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step;
    step *= shape[i];
  }
  return strides;
}

/** Whether two shapes are the same. */
export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((d, i) => d === b[i]);
}

/** `f32[2,3]`. */
export function formatAval(aval: Aval): string {
  return `${aval.dtype}[${aval.shape.join(",")}]`;
}

/**
 * @throws {ShapeError} that begins with `what` (is asked to make), unless a shape is a list of whole numbers from 0
 */
export function checkShape(what: string, shape: readonly number[]): void {
  if (!Array.isArray(shape)) {
    throw new ShapeError(`${what} a value of shape ${String(shape)}: a shape is a list of sizes`);
  }
  const wrong = Array.from(shape).findIndex((d) => !Number.isSafeInteger(d) || d < 0);
  if (wrong < 0) return;
  throw new ShapeError(
    `${what} a value of shape [${Array.from(shape, String)}]: ${
      String(shape[wrong])
    } is no size, which is a whole number from 0`,
  );
}

/**
 * @throws {ShapeError} that begins with `what` (is asked to make), unless a shape is a shape and a dtype one that there is
 */
export function checkAval(what: string, aval: Aval): void {
  const { shape, dtype } = (aval ?? {}) as Aval; // nothing at all is refused as nothing
  checkShape(what, shape);
  if (typeof dtype === "string" && Object.hasOwn(byteSize, dtype)) return;
  throw new ShapeError(
    `${what} a value: there is no dtype ${String(dtype)}; choose one of ${Object.keys(byteSize).join(", ")}`,
  );
}
