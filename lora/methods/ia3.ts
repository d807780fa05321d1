/**
 * IA3: one trained factor for each output of a module, or for each input of those in the feed-forward part.
 * Source: Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning".
 */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf } from "../../core/model.ts";
import { full, reshape } from "../../core/ops/broadcast.ts";
import { add, mul, sub } from "../../core/ops/elementwise.ts";
import { concat } from "../../core/ops/structure.ts";
import { type Operand, type Tensor, upload } from "../../core/tensor.ts";
import { outputsOf } from "../follow/effect.ts";
import { adaptedSites, choose } from "../follow/plan.ts";
import type { Modules, TuneOptions } from "../options.ts";
import { selectModules, type Selector } from "../targets.ts";
import type { Adapted, Method } from "./method.ts";

/** Which modules are rescaled, and on which side. */
export interface Ia3Options<P = unknown> extends TuneOptions<P> {
  /** Those of `targets` whose inputs are rescaled in place of their outputs: PEFT's feedforward_modules. */
  readonly feedforward?: Modules<P> | string;
}

interface Ia3Site extends Adapted {
  readonly of: "in" | "out";
}

/** The factors f32[n]: between 1 and what was trained where an adapter's weight says so. */
function factors(l: Leaf, adapterWeight?: Operand): Value {
  const value = reshape(l, [l.shape[0] * l.shape[1]]);
  return adapterWeight === undefined ? value : add(mul(sub(value, 1), adapterWeight), 1);
}

/** One factor for every output of the whole weight: 1 for those that are not meant. */
function ofOutputs(site: Ia3Site, l: Leaf, adapterWeight?: Operand): Value {
  const { start, end, of } = outputsOf(site);
  const ones = (count: number) => count === 0 ? [] : [full([count], 1)];
  return concat([...ones(start), factors(l, adapterWeight), ...ones(of - end)], 0);
}

export const method: Method<Ia3Site, Ia3Options<any>> = {
  name: "ia3",
  peftType: "IA3",
  options: {
    feedforward: { peft: "feedforward_modules", file: { is: "a list of names or one pattern", default: null } },
  },
  keys: [{ leaf: "l", ending: ".ia3_l" }],
  silent: ["fan_in_fan_out", "init_ia3_weights"], // found from the model; a file's factors are what they are
  sites: (outline, options) => {
    const chosen = choose(outline.modules, options), { feedforward } = options;
    const none = feedforward === undefined || feedforward === null || (feedforward as readonly string[]).length === 0;
    const inner = none ? [] : selectModules(feedforward as Selector, chosen, "feedforward").map(({ path }) => path);
    const of = (path: string) => inner.includes(path) ? "in" as const : "out" as const;
    const sites = adaptedSites(method, outline, chosen, options, (m, sizes) => {
      const side = of(m.path);
      if (m.kind === "embedding" || (side === "in" && m.part !== null)) {
        throw new OptionError(
          `IA3 can't rescale "${m.path}": ${
            m.kind === "embedding" ? "it is a table that is looked up" : "a part of the outputs has all of the inputs"
          }; leave it out of ${m.kind === "embedding" ? "targets" : "feedforward"}`,
        );
      }
      return { trained: { l: side === "in" ? [1, sizes.in] : [sizes.out, 1] } };
    });
    return sites.map((site) => ({ ...site, of: of(site.path) }));
  },
  first: ({ trained: { l: shape } }, weight) => ({
    l: upload((weight as Tensor).home, { shape, dtype: "f32", data: new Float32Array(shape[0] * shape[1]).fill(1) }),
  }),
  effect: (site, { l }, _weight, { adapterWeight }) => {
    const value = site.of === "in" ? factors(l!, adapterWeight) : ofOutputs(site, l!, adapterWeight);
    return { gain: { of: site.of, value } };
  },
  bias: (site, { l }, { adapterWeight }) => site.of === "in" ? null : { scale: ofOutputs(site, l!, adapterWeight) },
  config: (sites, { spell }) => {
    const named = (of: Ia3Site["of"]) => new Set(sites.filter((s) => s.of === of).map(({ path }) => spell(path)));
    const [inner, outer] = [named("in"), named("out")];
    // A name that means modules of both sides says neither.
    const clash = [...inner].some((name) => outer.has(name));
    return {
      ...{ fan_in_fan_out: sites.some((m) => m.match.layout === "in,out"), init_ia3_weights: true },
      modules_to_save: null,
      feedforward_modules: clash ? sites.flatMap((s) => s.of === "in" ? [s.hub] : []) : [...inner].sort(),
      ...(clash && { target_modules: sites.map(({ hub }) => hub) }),
    };
  },
};
