/**
 * Bottleneck layers between a model's own: a layer down to a small width, an activation, and one up again, added to what they read.
 * Sources: Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP"; Pfeiffer et al. 2020, "AdapterFusion".
 */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import { gelu, silu } from "../../core/nn/activation.ts";
import { matmul } from "../../core/ops/contract.ts";
import { add, max, mul } from "../../core/ops/elementwise.ts";
import { adaptedSites, choose } from "../follow/plan.ts";
import type { TuneOptions } from "../options.ts";
import { type Fill, firstDraws, normal } from "./first_draws.ts";
import type { Adapted, Method } from "./method.ts";

const activations = { relu: (x: Value): Value => max(x, 0), gelu, swish: silu } as const;
const architectures = ["houlsby", "pfeiffer"] as const;

/** Options of bottleneck layers, in AdapterHub's words. */
export interface BottleneckOptions<P = unknown> extends Omit<TuneOptions<P>, "targets"> {
  /** After every attention and feed-forward part (`houlsby`, the default), or after the latter alone and reading the stream. */
  readonly architecture?: typeof architectures[number];
  /** How many times smaller than the model's the inner width is. 16 by default. */
  readonly reductionFactor?: number;
  /** By default `swish`, or `relu` with `pfeiffer`. */
  readonly nonLinearity?: keyof typeof activations;
  /** What the layer's output is multiplied by before it is added. 1 by default. */
  readonly scaling?: number;
  /** What the first values are drawn from. 0 by default. */
  readonly seed?: number;
}

/** One layer, after the module that its path names. */
interface BottleneckSite extends Adapted {
  readonly ends: "attention" | "feedforward";
  readonly settings: Required<Pick<BottleneckOptions, "architecture" | "reductionFactor" | "nonLinearity" | "scaling">>;
}

/** The options with their defaults. */
function settled({ architecture = "houlsby", reductionFactor = 16, nonLinearity, scaling = 1 }: BottleneckOptions) {
  const act = nonLinearity ?? (architecture === "houlsby" ? "swish" : "relu");
  if (!architectures.includes(architecture)) {
    throw new OptionError(`architecture is ${JSON.stringify(architecture)}; supported: ${architectures.join(", ")}`);
  }
  if (!Object.hasOwn(activations, act)) {
    throw new OptionError(`nonLinearity is ${JSON.stringify(act)}; supported: ${Object.keys(activations).join(", ")}`);
  }
  if (!(reductionFactor > 0 && Number.isFinite(reductionFactor) && Number.isFinite(scaling))) {
    throw new OptionError(
      `reductionFactor is ${reductionFactor} and scaling ${scaling}: they take numbers, the first above 0`,
    );
  }
  return { architecture, reductionFactor, nonLinearity: act, scaling };
}

export const method: Method<BottleneckSite, BottleneckOptions<any>> = {
  name: "bottleneck",
  options: {
    architecture: { peft: null },
    reductionFactor: { peft: null },
    nonLinearity: { peft: null },
    scaling: { peft: null },
    seed: { peft: null },
  },
  keys: [
    { leaf: "down", ending: ".adapter_down.0.weight" },
    { leaf: "downBias", ending: ".adapter_down.0.bias" },
    { leaf: "up", ending: ".adapter_up.weight" },
    { leaf: "upBias", ending: ".adapter_up.bias" },
  ],
  unmergeable: "a layer with an activation between a model's own is no change of a weight",
  startsElsewhere: true,
  sites: (outline, options) => {
    const settings = settled(options), places = outline.sublayers();
    const here = outline.modules.filter(({ leafPath, part }) => {
      const place = places.get(leafPath);
      return part === null && place && (settings.architecture === "houlsby" || place.ends === "feedforward");
    });
    if (here.length === 0) {
      throw new OptionError(
        "bottleneck layers stand where a model adds to its stream, and no linear layer here ends there",
      );
    }
    const targets = here.map(({ path }) => path);
    const chosen = choose(outline.modules, { ...options, targets });
    const sites = adaptedSites(method, outline, chosen, { ...options, targets }, (_, { out }) => {
      const width = Math.max(1, Math.floor(out / settings.reductionFactor));
      const trained = { down: [width, out], downBias: [width], up: [out, width], upBias: [out] };
      return { trained, match: { scaling: settings.scaling } };
    });
    return sites.map((site) => ({ ...site, settings, ends: places.get(site.leafPath)!.ends }));
  },
  /** As AdapterHub: normal numbers of deviation 0.02, biases of zero. */
  first: (site, weight, { index, options: { seed } }) => {
    const small: Fill = (key, i) => 0.02 * normal(key, i);
    return firstDraws(site, weight, { index, seed, fills: { down: small, up: small } });
  },
  branch: ({ settings: { architecture, nonLinearity, scaling } }, { down, downBias, up, upBias }) => ({
    of: architecture === "houlsby" ? "output" : "sum",
    branch: (x) => {
      const inner = activations[nonLinearity](add(matmul(x, down!, { transposeB: true }), downBias!));
      const outer = add(matmul(inner, up!, { transposeB: true }), upBias!);
      return scaling === 1 ? outer : mul(outer, scaling);
    },
  }),
  config: ([{ settings, aval, inAxis }]) => {
    const { architecture, reductionFactor, nonLinearity, scaling } = settings, isHoulsby = architecture === "houlsby";
    return {
      architecture,
      ...{ mh_adapter: isHoulsby, output_adapter: true, original_ln_before: !isHoulsby, original_ln_after: true },
      ...{ residual_before_ln: true, adapter_residual_before_ln: false, ln_before: false, ln_after: false },
      ...{
        non_linearity: nonLinearity,
        reduction_factor: reductionFactor,
        scaling,
        hidden_size: aval.shape[1 - inAxis],
      },
    };
  },
};
