/** LoRA whose A and B start as something of the weights, or of what data makes of their inputs: all of it is waited for. */
import { OptionError } from "../core/errors.ts";
import type { Leaf, Model } from "../core/model.ts";
import { Tensor, upload } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { Matrix } from "ml-matrix";
import { sizesOf } from "./follow/effect.ts";
import { observer } from "./follow/inputs.ts";
import { tune, type Tuned, tunedOf } from "./lora.ts";
import { addCovariance, corda, type CordaMode } from "./methods/corda.ts";
import { type EvaOptions, principalDirections } from "./methods/eva.ts";
import type { Adapted, Method, Start } from "./methods/method.ts";
import { chosenBy, familyOf, methods } from "./methods/mod.ts";
import { olora } from "./methods/olora.ts";
import type { LoraOptions, Match, Trainable } from "./options.ts";
import { pissa, tuneFromWeights } from "./start.ts";
import { checkNames } from "../core/options.ts";
import { optionsOf } from "./check_options.ts";

/** {@link lora}'s options with a start that is waited for: it is computed from the weights, or from data. */
export interface StartOptions<P = unknown, I = unknown> extends Omit<LoraOptions<P>, "init">, EvaOptions {
  /**
   * `"pissa"` (see {@link pissa}), `"olora"` (a QR decomposition of the weights) and `"corda"` (theirs and the data's) take what
   * A and B start as out of the weights; `"eva"` (the data's main directions, with ranks where they say most) leaves these.
   */
  readonly init: "pissa" | "olora" | "corda" | "eva";
  /** Batches of the model's own inputs, for `"eva"` and `"corda"`. */
  readonly data?: readonly I[];
  /** CorDA trains the directions that matter most to the data (`"ipm"`, the default), or least (`"kpm"`). */
  readonly mode?: CordaMode;
  /** {@link PissaOptions.niter} */
  readonly niter?: number;
}

/** The options that are a start's own, and of which. */
const startNames = {
  init: ["pissa", "olora", "corda", "eva"],
  data: ["eva", "corda"],
  rho: ["eva"],
  tau: ["eva"],
  whiten: ["eva"],
  adjustScalingFactors: ["eva"],
  mode: ["corda"],
  niter: ["pissa"],
} as const satisfies Readonly<Record<string, readonly StartOptions["init"][]>>;

/** Whether options ask for a start that is waited for. */
export function isStarted(options: { readonly init?: unknown }): boolean {
  return typeof options?.init === "string" && Object.hasOwn(waitedFor, options.init);
}

/**
 * {@link lora} with A and B that start as something of the weights or of data, which it waits for.
 *
 * Sources: Büyükakyüz 2024, "OLoRA"; Yang et al. 2024, "CorDA"; Paischer et al. 2024, "EVA".
 *
 * @throws {OptionError} for what `lora` refuses, data that is missing or says too little, and a weight that has two names
 */
export async function startLora<P, I, O>(
  model: Model<P, I, O>,
  given: StartOptions<P, I>,
): Promise<Tuned<P, I, O>> {
  checkNames("startLora", given, { ...optionsOf(methods.lora), ...startNames });
  if (!isStarted(given)) {
    throw new OptionError(`startLora takes an init of ${Object.keys(waitedFor).join(", ")}, not ${String(given.init)}`);
  }
  const { init, data, rho, tau, whiten, adjustScalingFactors, mode, niter, ...options } = given;
  const own = { data, rho, tau, whiten, adjustScalingFactors, mode, niter };
  for (const [name, value] of Object.entries(own)) {
    const of: readonly string[] = startNames[name as keyof typeof own];
    if (value === undefined || of.includes(init)) continue;
    throw new OptionError(`the option ${name} is of init ${of.map((x) => JSON.stringify(x)).join(" and ")}`);
  }
  return await waitedFor[init](model, {
    options,
    data: data ?? [],
    mode,
    niter,
    eva: { rho, tau, whiten, adjustScalingFactors },
  });
}

/** What a start is given. */
interface Given {
  readonly options: Omit<LoraOptions<any>, "init">;
  readonly data: readonly any[];
  readonly mode?: CordaMode;
  readonly niter?: number;
  readonly eva: EvaOptions;
}

const waitedFor: Readonly<
  Record<StartOptions["init"], (model: Model<any, any, any>, given: Given) => Promise<Tuned<any, any, any>>>
> = {
  pissa: (model, { options, niter }) => pissa(model, { ...options, niter }),
  olora: (model, { options }) => tuneFromWeights(model, started(options, olora), options),
  corda: async (model, { options, data, mode = "ipm" }) => {
    const { plan, trainable } = tune(model, methods.lora, options);
    disposeAll(trainable);
    const sites = linearSites(plan.adapted), see = observer(model, sites);
    const sums = sites.map((site) => Matrix.zeros(sizesOf(site).in, sizesOf(site).in));
    let count = 0;
    for (const batch of needed("corda", data)) {
      const seen = await see(batch);
      count += sums.map((sum, i) => addCovariance(sum, seen[i])).at(-1)!;
    }
    const covariances = new Map(sites.map((site, i) => [site.path, sums[i].div(count)]));
    return await tuneFromWeights(model, started(options, corda(covariances, mode)), options);
  },
  eva: async (model, { options, data, eva }) => {
    const { plan, trainable } = tune(model, methods.lora, options);
    disposeAll(trainable);
    const sites = linearSites(plan.adapted);
    const found = await principalDirections(
      sites.map((m) => m.match.r),
      needed("eva", data),
      observer(model, sites),
      eva,
    );
    const { adjustScalingFactors = true } = eva;
    const at = (f: (match: Match, rank: number) => number) =>
      Object.fromEntries(sites.map(({ hub, match }, i) => [`^${escaped(hub)}`, f(match, found[i].rank)] as const));
    const rankPattern = at((_, rank) => Math.max(1, rank));
    const alphaPattern = at(({ r, alpha }, rank) => adjustScalingFactors ? alpha * rank / r : alpha);
    const kept = plan.adapted.filter((m) => found[sites.indexOf(m)]?.rank !== 0).map(({ path }) => path);
    const again = {
      ...options,
      targets: kept,
      exclude: undefined,
      layers: undefined,
      layersPattern: undefined,
    } as LoraOptions<any>;
    const tuned = tune<any, any, any, LoraOptions<any>>(model, chosenBy(familyOf(methods.lora), options), {
      ...again,
      rankPattern: { ...rankPattern, ...options.rankPattern },
      alphaPattern: { ...alphaPattern, ...options.alphaPattern },
    });
    const entries = Object.fromEntries(
      Object.entries(tuned.trainable).map(([path, entry]) => {
        const i = sites.findIndex((site) => site.path === path);
        if (i < 0) return [path, entry];
        const old = entry.A as Tensor, { home, shape } = old;
        old.dispose();
        return [path, { ...entry, A: upload(home, { shape, dtype: "f32", data: found[i].A }) }];
      }),
    );
    return tunedOf(model, tuned.plan, entries);
  },
};

const linearSites = (adapted: readonly Adapted[]) => adapted.filter((m) => m.kind === "linear");
const escaped = (path: string) => path.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

/** LoRA, or DoRA where it is switched on, with a start. */
function started(options: object, start: Start): Method<Adapted> & { readonly start: Start } {
  return { ...chosenBy(familyOf(methods.lora), options), start };
}

function needed(init: string, data: readonly unknown[]): readonly any[] {
  if (data.length > 0) return data;
  throw new OptionError(`init "${init}" looks at data, and there is none: give batches of the model's inputs as data`);
}

function disposeAll(trainable: Trainable): void {
  for (const leaf of flatten<Leaf>(trainable).leaves) if (leaf instanceof Tensor) leaf.dispose();
}
