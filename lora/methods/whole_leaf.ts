/** Leaves of the model that are trained themselves: what whole modules and biases have in common. */
import { formatAval } from "../../core/aval.ts";
import { isFloat } from "../../core/dtype.ts";
import { OptionError } from "../../core/errors.ts";
import { asValue } from "../../core/ops/constant.ts";
import { isPacked } from "../../core/packed/blocks.ts";
import { widened } from "../follow/effect.ts";
import type { Saved, TuneOptions } from "../options.ts";
import type { Edit, Method, Outline } from "./method.ts";

/** One name of a leaf: a tied weight has two. */
export interface NamedLeaf extends Pick<Edit, "path" | "hub" | "leafPath" | "into" | "split"> {
  readonly part: "weight" | "bias";
}

/** Every leaf by the module that it belongs to, under each of its names, in the order of the parameters. */
export function namedLeaves(
  { params, modules, hubName }: Outline,
  { tie = "use" }: TuneOptions<any>,
): NamedLeaf[] {
  return params.paths.flatMap((leafPath): NamedLeaf[] => {
    const part = /(^|\.)bias$/.test(leafPath) ? "bias" : "weight";
    const path = leafPath.replace(/\.(weight|bias)$/, "");
    const one = { path, hub: hubName(path), part, leafPath, into: leafPath, split: null } as const;
    const alias = modules.find((m) => m.leafPath === leafPath && m.only === "product" && m.part === null);
    if (alias === undefined) return [one];
    const split = tie === "all" ? null : `${alias.path}.weight`;
    return [{ ...one, split }, { ...one, path: alias.path, hub: alias.hub, split, into: split ?? leafPath }];
  });
}

/** Sites at some leaves, each once and not where a whole leaf is trained already. */
export function leafSites(
  method: Method,
  by: Saved["by"],
  { params, taken }: Outline,
  names: readonly NamedLeaf[],
): Edit[] {
  const seen = new Set(taken.filter((site) => site.method.replace !== undefined).map(({ into }) => into));
  return names.flatMap(({ part, ...name }): Edit[] => {
    const { path, leafPath, into } = name;
    const { aval } = params.leaves[params.paths.indexOf(leafPath)];
    if (!isFloat(aval.dtype) && !isPacked(aval.dtype)) {
      throw new OptionError(`${by} names ${leafPath}, which is ${formatAval(aval)}: only floats can be trained`);
    }
    if (seen.has(into)) return [];
    seen.add(into);
    const trained = { [part]: aval.shape };
    return [{ ...name, method, trained, saved: { path, part, by, shape: aval.shape } }];
  });
}

/** What is alike of methods whose sites are whole leaves. */
export const wholeLeaf: Pick<Method<Edit>, "options" | "first" | "replace" | "lost" | "restore"> = {
  options: {},
  first: ({ saved: { part } }, leaf) => ({ [part]: widened(asValue(leaf)) }),
  replace: ({ saved: { part } }, entry) => asValue(entry[part]!),
  lost: ({ saved: { part } }, _entry, leaf) => ({ [part]: leaf }),
  restore: ({ saved: { part } }, _leaf, lost) => lost(part),
};
