/** First values of what a site trains. */
import { normalAt, randomKey, threefry2x32, uniformAt } from "../../core/random.ts";
import { type Tensor, upload } from "../../core/tensor.ts";
import type { Leaf } from "../../core/model.ts";
import type { Site } from "./method.ts";

/** What fills an array at a place. */
export type Fill = (key: readonly [number, number], i: number) => number;

/** Standard normal numbers. */
export const normal: Fill = normalAt;

/** PyTorch's own start of a matrix with so many columns: uniform in ±1/√columns. */
export function kaiming(columns: number): Fill {
  return (key, i) => (2 * uniformAt(key, i) - 1) / Math.sqrt(columns);
}

/** One array, filled place by place, or with zeros. */
export function drawArray(
  weight: Leaf,
  shape: readonly number[],
  key: readonly [number, number],
  fill: Fill | undefined,
): Tensor {
  const data = new Float32Array(shape.reduce((n, d) => n * d, 1));
  if (fill !== undefined) { for (let i = 0; i < data.length; i++) data[i] = fill(key, i); }
  return upload((weight as Tensor).home, { shape, dtype: "f32", data });
}

/** Each array of a site filled as it is named, else with zeros; drawn from a seed, the site's number and the array's. */
export function firstDraws(
  { trained }: Site,
  weight: Leaf,
  { index, seed = 0, fills = {} }: {
    readonly index: number;
    readonly seed?: number;
    readonly fills?: Readonly<Record<string, Fill | undefined>>;
  },
): Record<string, Tensor> {
  const [high, low] = randomKey(seed).data;
  return Object.fromEntries(
    Object.entries(trained).map(([name, shape], which) => [
      name,
      drawArray(weight, shape, threefry2x32([high, low], [index, which + 1]), fills[name]),
    ]),
  );
}
