import { formatAval, sameShape } from "../core/aval.ts";
import { fromBf16, fromF16 } from "../core/dtype.ts";
import { LowrankError } from "../core/errors.ts";
import type { HostTensor } from "../core/tensor.ts";
import type { OracleTensor } from "./oracle.ts";
import { checkMembers, checkOptions } from "../core/options.ts";

/** How far two arrays may be apart: |a - b| ≤ rtol · max|b| + atol, for every element. */
export interface CloseOptions {
  /** Relative to the largest magnitude of the expected array. 1e-6 by default. */
  readonly rtol?: number;
  /** 1e-7 by default. */
  readonly atol?: number;
}

/** What can be compared: tensors as `read` gives them, or a number. */
export type Contents = HostTensor | OracleTensor | number;

const contents = "tensors as read gives them, or numbers";

/**
 * Fails unless two arrays have one shape and elements close to each other; NaN is close to nothing. The message tells the
 * worst element.
 */
export function assertAllClose(actual: Contents, expected: Contents, options: CloseOptions = {}): void {
  checkOptions("assertAllClose", options, { rtol: true, atol: true });
  const { rtol = 1e-6, atol = 1e-7 } = options;
  for (const x of [actual, expected]) {
    if (typeof x !== "number") checkMembers("assertAllClose", contents, x, ["shape", "data"]);
  }
  const [a, b] = [numbersOf(actual), numbersOf(expected)];
  if (!sameShape(a.shape, b.shape)) {
    throw new LowrankError(`expected ${formatAval(b)}, but got ${formatAval(a)}`);
  }
  const largest = b.data.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  const allowed = rtol * largest + atol;
  let worst = -1;
  a.data.forEach((x, i) => {
    const apart = Math.abs(x - b.data[i]);
    if (!(apart <= allowed) && !(worst >= 0 && apart <= Math.abs(a.data[worst] - b.data[worst]))) worst = i;
  });
  if (worst >= 0) {
    throw new LowrankError(
      `element ${worst} of ${formatAval(a)} is ${a.data[worst]} where ${b.data[worst]} is expected: ` +
        `apart by ${Math.abs(a.data[worst] - b.data[worst])}, allowed are ${allowed}`,
    );
  }
}

function numbersOf(x: Contents): { shape: readonly number[]; dtype: HostTensor["dtype"]; data: number[] } {
  if (typeof x === "number") return { shape: [], dtype: "f32", data: [x] };
  const bits = !(x.data instanceof Float64Array);
  const read = bits && x.dtype === "f16" ? fromF16 : bits && x.dtype === "bf16" ? fromBf16 : (v: number) => v;
  return { shape: x.shape, dtype: x.dtype, data: Array.from(x.data, read) };
}
