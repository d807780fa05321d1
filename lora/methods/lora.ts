/** LoRA: W + s·B·A. Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models". */
import { formatAval } from "../../core/aval.ts";
import { OptionError } from "../../core/errors.ts";
import { asValue } from "../../core/ops/constant.ts";
import { mul } from "../../core/ops/elementwise.ts";
import { pad } from "../../core/ops/structure.ts";
import { randomKey, threefry2x32 } from "../../core/random.ts";
import { type Operand, type Tensor, upload } from "../../core/tensor.ts";
import { outputsOf, sizesOf } from "../follow/effect.ts";
import type { Module } from "../follow/analyse.ts";
import type { LoraOptions, TuneOptions } from "../options.ts";
import { adaptedSites, choose, counted } from "../follow/plan.ts";
import { checkPattern, patternValue } from "../targets.ts";
import { drawArray, type Fill, kaiming, normal } from "./first_draws.ts";
import { afterInvocation } from "./invocation.ts";
import type { Adapted, Method, Outline } from "./method.ts";
import { orthogonalPair } from "./orthogonal.ts";

/** Options of a method whose modules have a rank and an alpha. */
type RankOptions<P> =
  & TuneOptions<P>
  & Pick<LoraOptions<P>, "r" | "alpha" | "rslora" | "rankPattern" | "alphaPattern">;

/**
 * The modules that the options name, each with its rank and scaling.
 *
 * @param trained what `method` trains of a module, given its rank
 * @throws {OptionError} for a rank or an alpha that a module can't take
 */
export function rankSites(
  method: Method<Adapted>,
  outline: Outline,
  options: RankOptions<any>,
  trained: (m: Module, sizes: { readonly r: number; readonly in: number; readonly out: number }) => Adapted["trained"],
): Adapted[] {
  const { rankPattern = {}, alphaPattern = {}, rslora = false } = options;
  const chosen = choose(outline.modules, options);
  checkPattern("rankPattern", rankPattern, chosen);
  checkPattern("alphaPattern", alphaPattern, chosen);
  return adaptedSites(method, outline, chosen, options, (m, sizes) => {
    const r = patternValue(rankPattern, m) ?? options.r;
    const alpha = patternValue(alphaPattern, m) ?? options.alpha;
    const most = outline.anyRank ? Infinity : Math.min(sizes.in, sizes.out);
    if (!Number.isInteger(r) || r < 1 || r > most) {
      throw new OptionError(
        `r is ${r}, but "${m.path}" is ${formatAval(m.aval)}: it takes a whole number from 1 to ${most}`,
      );
    }
    if (!Number.isFinite(alpha)) throw new OptionError(`alpha is ${alpha}, but it must be a number (for "${m.path}")`);
    return {
      trained: trained(m, { r, ...sizes }),
      match: { r, alpha, scaling: alpha / (rslora ? Math.sqrt(r) : r), ...(rslora && { rslora: true as const }) },
    };
  });
}

/** The same site as LoRA's own, with another rank and the alpha that keeps the scaling. */
export function ranked(site: Adapted, r: number, scaling: number): Adapted {
  const sizes = sizesOf(site);
  const alpha = scaling * (site.match.rslora ? Math.sqrt(r) : r);
  const trained = { ...site.trained, A: [r, sizes.in], B: [sizes.out, r] };
  const match = { ...site.match, method: method.name, r, alpha, scaling, trainable: counted(trained) };
  return { ...site, method, trained, match };
}

/** A site of any method as LoRA's own, of a rank and with scaling 1. */
export function plainSite(site: Adapted, r: number, loraBias: boolean): Adapted {
  if (loraBias && site.kind === "embedding") throw refusedBias(site.path);
  const { in: inputs, out } = sizesOf(site);
  const trained = { A: [r, inputs], B: [out, r], ...(loraBias && { biasB: [out] }) };
  const { rslora: _, ...match } = site.match;
  return {
    ...site,
    method,
    trained,
    match: { ...match, method: method.name, r, alpha: r, scaling: 1, trainable: counted(trained) },
  };
}

function refusedBias(path: string): OptionError {
  return new OptionError(`loraBias on "${path}": rows that are looked up have no bias; leave it out of the targets`);
}

/** Whether a pair is all that is trained, so that changes of several may be added. */
export function isPair(site: Adapted): boolean {
  return Object.keys(site.trained).join() === "A,B";
}

/** What a module's pair is multiplied by. */
export function scalingOf({ match: { scaling } }: Adapted, adapterWeight?: Operand): Operand {
  return adapterWeight === undefined ? scaling : mul(adapterWeight, scaling);
}

type Init = NonNullable<LoraOptions["init"]>;

/** What `init` means for A and B; an embedding has A zero and B standard normal. */
function fillsOf({ kind, match: { r }, aval, inAxis }: Adapted, init: Init): { A?: Fill; B?: Fill } {
  if (kind === "embedding") return init === false ? { A: normal, B: normal } : { B: normal };
  if (init === "gaussian") return { A: (key, i) => normal(key, i) / r };
  const A = kaiming(aval.shape[inAxis]);
  return init ? { A } : { A, B: kaiming(r) };
}

/** The number that occurs most often; the first of several. */
export function mostFrequent(numbers: readonly number[]): number {
  const count = (n: number) => numbers.filter((m) => m === n).length;
  return numbers.reduce((best, n) => count(n) > count(best) ? n : best);
}

/** PEFT's configuration of modules with these ranks and alphas: the most frequent ones, and patterns for those that differ. */
export function pairConfig(modules: readonly { readonly name: string; readonly r: number; readonly alpha: number }[]) {
  const r = mostFrequent(modules.map((m) => m.r)), alpha = mostFrequent(modules.map((m) => m.alpha));
  const others = (key: "r" | "alpha", usual: number) =>
    Object.fromEntries(modules.filter((m) => m[key] !== usual).map((m) => [m.name, m[key]]));
  return {
    ...{ r, lora_alpha: alpha, rank_pattern: others("r", r), alpha_pattern: others("alpha", alpha) },
    ...{ bias: "none", init_lora_weights: true, lora_dropout: 0, modules_to_save: null, use_rslora: false },
  };
}

export const method: Method<Adapted, LoraOptions<any>> = {
  name: "lora",
  peftType: "LORA",
  options: {
    r: { peft: "r", file: { is: "a positive integer", default: 8 } },
    alpha: { peft: "lora_alpha", file: { is: "a number", default: 8 } },
    dropout: { peft: "lora_dropout", file: { is: "a number from 0 to less than 1", default: 0 } },
    rslora: { peft: "use_rslora", file: { is: "true or false", default: false } },
    rankPattern: {
      peft: "rank_pattern",
      patternOf: "r",
      file: { is: "patterns with positive integers", default: {} },
    },
    alphaPattern: {
      peft: "alpha_pattern",
      patternOf: "lora_alpha",
      file: { is: "patterns with numbers", default: {} },
    },
    loraBias: { peft: "lora_bias", file: { is: "true or false", default: false } },
    aloraInvocationTokens: {
      peft: "alora_invocation_tokens",
      file: { is: "a list of token ids", default: null },
      recent: true,
    },
    init: { peft: "init_lora_weights" },
    seed: { peft: null },
  },
  keys: [
    { leaf: "A", ending: ".lora_A.weight" },
    { leaf: "B", ending: ".lora_B.weight" },
    { leaf: "A", ending: ".lora_embedding_A", on: "embedding" },
    { leaf: "B", ending: ".lora_embedding_B", on: "embedding" },
    { leaf: "biasB", ending: ".lora_B.bias", optional: true },
  ],
  silent: [
    ...["fan_in_fan_out", "megatron_core", "qalora_group_size"], // found from the model, or asked of nothing without its switch
    ...["loftq_config", "eva_config", "corda_config", "lora_ga_config"], // how to start, where init_lora_weights names it
  ],
  sites: (outline, options) => {
    const { aloraInvocationTokens: invocation } = options;
    if (invocation && options.loraBias) {
      throw new OptionError("loraBias and aloraInvocationTokens exclude each other: a bias acts on every token");
    }
    const acts = invocation ? afterInvocation(invocation) : undefined;
    const sites = rankSites(method, outline, options, (m, { r, in: inputs, out }) => {
      if (options.loraBias && m.kind === "embedding") throw refusedBias(m.path);
      return { A: [r, inputs], B: [out, r], ...(options.loraBias && { biasB: [out] }) };
    });
    return acts ? sites.map((site) => ({ ...site, acts, match: { ...site.match, invocation: invocation! } })) : sites;
  },
  first: (site, weight, { index, options: { init = true, seed = 0 } }) => {
    const [high, low] = randomKey(seed).data, { trained } = site;
    const keyOf = (which: number) => threefry2x32([high, low], [index, which]);
    const biasB = trained.biasB && { biasB: drawArray(weight, trained.biasB, keyOf(3), undefined) };
    if (init === "orthogonal" && site.kind === "linear") {
      const { A, B } = trained, { home } = weight as Tensor;
      const pair = orthogonalPair({ r: A[0], in: A[1], out: B[0], path: site.path }, keyOf(1));
      const put = (leaf: "A" | "B") => upload(home, { shape: trained[leaf], dtype: "f32", data: pair[leaf] });
      return { A: put("A"), B: put("B"), ...biasB };
    }
    const { A, B } = fillsOf(site, init);
    return {
      A: drawArray(weight, trained.A, keyOf(1), A),
      // One of the two is drawn under the same key whichever it is; where both are, they differ.
      B: drawArray(weight, trained.B, keyOf(A === undefined ? 1 : 2), B),
      ...biasB,
    };
  },
  effect: (site, { A, B }, _weight, { adapterWeight }) => {
    const { start, end, of } = outputsOf(site);
    const padded = pad(asValue(B!), [start, 0], [of - end, 0]);
    return { pair: { A: asValue(A!), B: padded, scaling: scalingOf(site, adapterWeight) } };
  },
  bias: (site, { biasB }, { adapterWeight = 1 }) => {
    if (biasB === undefined) return null;
    const { start, end, of } = outputsOf(site);
    return { add: pad(mul(mul(biasB, site.match.scaling), adapterWeight), [start], [of - end]) };
  },
  config: (sites) => ({
    ...pairConfig(sites.map(({ hub, match: { r, alpha } }) => ({ name: hub, r, alpha }))),
    use_rslora: sites.some(({ match: { r, alpha, scaling } }) => scaling !== alpha / r),
    ...(sites.some((site) => "biasB" in site.trained) && { lora_bias: true }),
    ...(sites[0].match.invocation && { alora_invocation_tokens: sites[0].match.invocation }),
    fan_in_fan_out: sites.some((m) => m.kind === "linear" && m.match.layout === "in,out"),
  }),
};
