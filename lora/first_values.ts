import { newInput } from "../core/ir/graph.ts";
import type { Leaf } from "../core/model.ts";
import { Tensor } from "../core/tensor.ts";
import type { FlatTree } from "../core/tree.ts";
import type { Plan } from "./follow/edit.ts";
import type { Trainable } from "./options.ts";

/**
 * The values before the first step, which change nothing. They live where the base's weights live; what starts as something
 * of the base is a value made of its tensors; beside placeholders all are placeholders.
 */
export function firstValues(
  { leaves, paths }: Pick<FlatTree<Leaf>, "leaves" | "paths">,
  { adapted, edits }: Plan,
  options: object,
  encode?: (text: string) => readonly number[],
): Trainable {
  const entries: Record<string, Record<string, Leaf>> = {};
  [...adapted, ...edits].forEach((site, index) => {
    const { method, path, trained } = site;
    const weight = leaves[paths.indexOf(site.leafPath)];
    const first = (): Record<string, Leaf> => {
      const drawn = method.first(site, weight, { index, options, encode });
      return { ...drawn, ...method.derived?.(site, drawn, weight) };
    };
    const places = () => Object.entries(trained).map(([name, shape]) => [name, newInput({ shape, dtype: "f32" })]);
    entries[path] = { ...entries[path], ...(weight instanceof Tensor ? first() : Object.fromEntries(places())) };
  });
  return entries;
}
