/** Biases of the model that are trained beside an adapter. */
import type { TuneOptions } from "../options.ts";
import type { Adapted, Edit, Method } from "./method.ts";
import { leafSites, namedLeaves, wholeLeaf } from "./whole_leaf.ts";

export const method: Method<Edit, TuneOptions<any>> = {
  ...wholeLeaf,
  name: "biases",
  options: { bias: { peft: "bias", file: { is: ["none", "all", "lora_only"], default: "none" } } },
  keys: [{ leaf: "bias", ending: ".bias" }, { leaf: "bias", ending: ".base_layer.bias", on: "adapted" }],
  sites: (outline, options) => {
    const { bias = "none" } = options;
    if (bias === "none") return [];
    const adapted = new Set((outline.taken as readonly Adapted[]).map((m) => m.bias));
    const names = namedLeaves(outline, options).filter(({ part, leafPath }) =>
      part === "bias" && (bias === "all" || adapted.has(leafPath))
    );
    return leafSites(method, "bias", outline, names);
  },
  config: (sites, { adapted }) => {
    const paths = new Set(adapted.map(({ path }) => path));
    return { bias: sites.every(({ path }) => paths.has(path)) ? "lora_only" : "all" };
  },
};
