/** Folding of iteration axes: the fewer axes a kernel has, the longer its inner loop and the more kernels are the same. */
import type { Index } from "./expr.ts";

/** Runs of old axes folded into one new axis each; `keep` names the old axis whose stride the new one has. */
export interface Folding {
  readonly shape: readonly number[];
  readonly keep: readonly number[];
}

/** Drops axes of size 1 and merges neighbours that step evenly in every index. `axes` are taken in the order given. */
export function foldAxes(
  shape: readonly number[],
  axes: readonly number[],
  indices: readonly Pick<Index<unknown>, "strides">[],
): Folding {
  const out = { shape: [] as number[], keep: [] as number[] };
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

/** Whether axes are walked as one. */
export function isOneAxis(...given: Parameters<typeof foldAxes>): boolean {
  return foldAxes(...given).keep.length <= 1;
}
