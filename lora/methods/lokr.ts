/**
 * LoKr: W + s·(w1 ⊗ w2), a Kronecker product of two small matrices, each whole or of a low rank. It meets inputs as two
 * small products.
 * Source: Yeh et al. 2023, "Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation".
 */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import { asValue } from "../../core/ops/constant.ts";
import { sizesOf } from "../follow/effect.ts";
import { refuseParts } from "../follow/plan.ts";
import type { AdapterEntry, LoraOptions, TuneOptions } from "../options.ts";
import { firstDraws, kaiming } from "./first_draws.ts";
import { method as lora, pairConfig, rankSites, scalingOf } from "./lora.ts";
import type { Adapted, Method } from "./method.ts";

/** What the two matrices are. */
export interface LokrOptions<P = unknown>
  extends TuneOptions<P>, Pick<LoraOptions<P>, "r" | "alpha" | "rankPattern" | "alphaPattern" | "seed"> {
  /** Whether w1 is of a low rank too, where it is large enough for that. */
  readonly decomposeBoth?: boolean;
  /** How large w1's sides are, where that divides the weight's. -1, the default: as near to w2's as they can be. */
  readonly decomposeFactor?: number;
  /**
   * The first values: w1 zero and w2 drawn (`true`, the default), w2 zero and w1 drawn (`"lycoris"`), or both drawn (`false`:
   * the adapter changes the function from the first, for tests).
   */
  readonly init?: boolean | "lycoris";
}

interface LokrSite extends Adapted {
  readonly decomposeBoth: boolean;
  readonly decomposeFactor: number;
}

/**
 * Two factors of n: the one asked for and what is left; where it does not divide n, the pair nearest to a square whose
 * smaller one is at most that.
 */
function factorsOf(n: number, asked: number): readonly [number, number] {
  if (asked > 0 && n % asked === 0) return [asked, n / asked];
  let small = 1;
  for (let m = 2; m * m <= n && (asked === -1 || m <= asked); m++) if (n % m === 0) small = m;
  return [small, n / small];
}

/** Every matrix of a module: w1 [rows, columns] or w1_a and w1_b, and the same of w2. */
function shapesOf(
  sizes: { readonly r: number; readonly in: number; readonly out: number },
  { decomposeBoth = false, decomposeFactor = -1 }: LokrOptions,
): Record<string, readonly number[]> {
  const inputs = factorsOf(sizes.in, decomposeFactor), outputs = factorsOf(sizes.out, decomposeFactor), { r } = sizes;
  const matrix = (name: string, which: 0 | 1, mayBeLow: boolean): Record<string, readonly number[]> =>
    mayBeLow && r < Math.max(outputs[which], inputs[which]) / 2
      ? { [`${name}_a`]: [outputs[which], r], [`${name}_b`]: [r, inputs[which]] }
      : { [name]: [outputs[which], inputs[which]] };
  return { ...matrix("w1", 0, decomposeBoth), ...matrix("w2", 1, true) };
}

/** One of the two as factors from the outputs' axis to the inputs', in the order in which inputs meet them. */
function chain(entry: AdapterEntry, name: string, out: string, inputs: string) {
  const whole = entry[name], of = (leaf: string) => asValue(entry[leaf]!);
  if (whole !== undefined) return [{ value: asValue(whole), axes: [out, inputs] }];
  return [{ value: of(`${name}_b`), axes: [name, inputs] }, { value: of(`${name}_a`), axes: [out, name] }];
}

const { r, rankPattern, alphaPattern, seed } = lora.options;

export const method: Method<LokrSite, LokrOptions<any>> = {
  name: "lokr",
  peftType: "LOKR",
  options: {
    ...{ r, rankPattern, seed },
    alpha: { peft: "alpha", file: { is: "a number", default: 8 } },
    alphaPattern: { ...alphaPattern, patternOf: "alpha" },
    decomposeBoth: { peft: "decompose_both", file: { is: [true, false], default: false } },
    decomposeFactor: { peft: "decompose_factor", file: { is: "-1 or a positive integer", default: -1 } },
    init: { peft: "init_weights", file: { is: [false, true, "lycoris"], default: true } },
  },
  samples: [{ r: 1, decomposeBoth: true }, { decomposeBoth: true, decomposeFactor: 2, r: 1 }, { init: "lycoris" }],
  keys: ["w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b"].map((leaf) => ({ leaf, ending: `.lokr_${leaf}` })),
  silent: ["use_effective_conv2d", "rank_dropout_scale"], // about convolutions, or about what is not dropped
  sites: (outline, options) => {
    const { decomposeBoth = false, decomposeFactor = -1 } = options;
    if (!Number.isSafeInteger(decomposeFactor) || decomposeFactor < -1 || decomposeFactor === 0) {
      throw new OptionError(`decomposeFactor is ${decomposeFactor}: it takes a whole number above 0, or -1`);
    }
    const sites = rankSites(method as Method<any>, outline, options, (m, sizes) => {
      refuseParts(method as Method<any>, m);
      return shapesOf(sizes, options);
    });
    return sites.map((site): LokrSite => ({ ...site, decomposeBoth, decomposeFactor }));
  },
  first: (site, weight, { index, options: { init = true, seed } }) => {
    const zero = init === "lycoris" ? ["w2", "w2_b"] : init ? ["w1", "w1_a"] : [];
    const drawn = Object.entries(site.trained).filter(([name]) => !zero.includes(name));
    const fills = Object.fromEntries(drawn.map(([name, shape]) => [name, kaiming(shape[1])]));
    return firstDraws(site, weight, { index, seed, fills });
  },
  effect: (site, entry, _weight, { adapterWeight }) => {
    const sizes = sizesOf(site), side = (value: Value | undefined, axis: number) => value?.shape[axis];
    const rows = (side((entry.w1 ?? entry.w1_a) as Value, 0))!, columns = side((entry.w1 ?? entry.w1_b) as Value, 1)!;
    return {
      form: {
        product: {
          factors: [...chain(entry, "w2", "out2", "in2"), ...chain(entry, "w1", "out1", "in1")],
          in: [["in1", columns], ["in2", sizes.in / columns]],
          out: [["out1", rows], ["out2", sizes.out / rows]],
          scaling: scalingOf(site, adapterWeight),
        },
      },
    };
  },
  config: (sites) => {
    const modules = sites.map(({ hub, match: { r, alpha } }) => ({ name: hub, r, alpha }));
    const { r, lora_alpha: alpha, rank_pattern, alpha_pattern } = pairConfig(modules);
    const [{ decomposeBoth: decompose_both, decomposeFactor: decompose_factor }] = sites;
    const own = { decompose_both, decompose_factor, init_weights: true, modules_to_save: null };
    return { r, alpha, rank_pattern, alpha_pattern, ...own };
  },
};
