/** Small random models of every architecture, as the files that hold them: their keys are the literal's own, with its `example`'s. */
import { assert } from "@std/assert";
import { normalAt } from "../core/random.ts";
import type { HostTensor } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { type Family, hubNameOf, readSizes, type SizeKeys } from "../models/families/family.ts";
import { parseConfig } from "../models/load/config.ts";
import { ggufSizes } from "../models/load/gguf/config.ts";
import { type GgufFamily, ggufModules } from "../models/load/gguf/names.ts";
import { rotateHalfRows } from "../models/load/gguf/source.ts";
import { f32Tensor, makeGguf, type Meta, type RawTensor } from "../testing/make_gguf.ts";

/** Heads are narrower than their share of the width where that can be; ε is the same number as f32. */
const small: Readonly<Record<keyof SizeKeys, number>> = {
  ...{ width: 16, layers: 2, heads: 4, kvHeads: 2, headDim: 6, inner: 24, context: 32, eps: 2 ** -17 },
};
export const vocabulary = 40;
const labels = ["no", "perhaps", "yes"];

const isShape = (x: unknown): x is number[] => Array.isArray(x) && typeof x[0] === "number";

/** The config.json of a small model. */
export function configOf({ keys, modelType, className, head, example }: Family): Record<string, unknown> {
  const sizes = (Object.entries(keys) as [keyof SizeKeys, string][]).map(([size, key]) => [key, small[size]]);
  return {
    ...{ model_type: modelType, architectures: [className], vocab_size: vocabulary },
    ...Object.fromEntries(sizes),
    ...(head?.startsWith("classifier") && { id2label: Object.fromEntries(labels.entries()) }),
    ...example,
  };
}

/** Weights by their names in files: norms near 1, everything else small. */
export function weightsOf(family: Family, config: Record<string, unknown>): Map<string, HostTensor> {
  const shapeOf = () => [labels.length, small.width];
  const { shapes } = family.build(
    parseConfig(config, "config.json"),
    { path: "a model", has: () => true, shapeOf },
    {},
  );
  const { paths, leaves } = flatten<number[]>(shapes, isShape);
  return new Map(paths.map((path, n) => {
    const shape = leaves[n], size = shape.reduce((a, b) => a * b, 1);
    const centre = shape.length === 1 && path.endsWith("weight") ? 1 : 0;
    // Some formats hold a norm's scale from 1 on: these survive that.
    const exact = (x: number) => shape.length === 1 ? Math.round(x * 2 ** 12) / 2 ** 12 : x;
    const data = Float32Array.from({ length: size }, (_, i) => exact(centre + 0.3 * normalAt([7, n], i)));
    return [hubNameOf(family, path), { shape, dtype: "f32", data }];
  }));
}

/** The same model as a GGUF file, as llama.cpp's converter makes one. */
export function ggufOf(family: GgufFamily, config: Record<string, unknown>, without?: string): Uint8Array<ArrayBuffer> {
  const { heads, kvHeads } = readSizes(family, parseConfig(config, "config.json"));
  const places = ggufModules(family, layersOf(family));
  const tensors: Record<string, RawTensor> = {};
  for (const [name, { shape, data }] of weightsOf(family, config)) {
    const [, module, part] = /^(.*)\.(\w+)$/.exec(name)!;
    const place = places.get(module);
    assert(place !== undefined, `${module} has a name in GGUF files`);
    const [rows, columns = 1] = shape;
    const values = Float32Array.from(data);
    if (place.layout === "fromOne") data.forEach((x, i) => values[i] = x + 1);
    const turned = place.layout === "transposed" && shape.length === 2;
    if (turned) data.forEach((x, i) => values[(i % columns) * rows + Math.floor(i / columns)] = x);
    if (place.layout === "heads" || place.layout === "kvHeads") {
      const rowOf = rotateHalfRows(rows, place.layout === "heads" ? heads : kvHeads, name);
      for (let i = 0; i < values.length; i++) {
        values[i] = data[rowOf(Math.floor(i / columns)) * columns + i % columns];
      }
    }
    tensors[place.tensor.replace(/weight$/, part)] = f32Tensor(turned ? [columns, rows] : shape, values);
  }
  const names = ggufSizes(family.gguf), { name } = family.gguf;
  const sizes = (Object.entries(family.keys) as [keyof SizeKeys, string][]).map(([size, key]): [string, Meta] => [
    `${name}.${names[size]}`,
    size === "eps" ? { f32: small[size] } : { u32: config[key] as number },
  ]);
  return makeGguf({
    ...{ "general.architecture": { text: name }, "tokenizer.ggml.model": { text: "none" } },
    [`${name}.vocab_size`]: { u32: vocabulary },
    ...Object.fromEntries(sizes),
    ...(family.keys.headDim && { [`${name}.attention.value_length`]: { u32: config[family.keys.headDim] as number } }),
    ...Object.fromEntries(
      Object.entries(family.gguf.keys ?? {}).filter(([key]) => key !== without)
        .map(([key, { config: hub, type, write }]) => {
          assert(Object.hasOwn(config, hub), `the example says ${hub}, for ${name}.${key}`);
          const value = write === undefined ? config[hub] : write(config[hub], config);
          return [`${name}.${key}`, { [type]: value } as unknown as Meta];
        }),
    ),
  }, tensors);
}

/** How many layers a small model has. */
export const layersOf = (family: Family) => configOf(family)[family.keys.layers] as number;
