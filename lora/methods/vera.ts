/**
 * VeRA: W + Λ_b·B·Λ_d·A with one random A and one random B for all modules, each of which uses their leading parts; only the
 * two vectors are trained. Source: Kopiczko, Blankevoort and Asano 2024, "VeRA: Vector-based Random Matrix Adaptation".
 */
import { OptionError } from "../../core/errors.ts";
import type { Leaf } from "../../core/model.ts";
import { full, reshape } from "../../core/ops/broadcast.ts";
import { mul, sub } from "../../core/ops/elementwise.ts";
import { randomUniform } from "../../core/ops/random.ts";
import { slice } from "../../core/ops/structure.ts";
import { randomKey } from "../../core/random.ts";
import { type HostTensor, Tensor, upload } from "../../core/tensor.ts";
import { adaptedSites, choose, refuseParts } from "../follow/plan.ts";
import type { LoraOptions, TuneOptions } from "../options.ts";
import { sizesOf } from "../follow/effect.ts";
import { drawArray, normal } from "./first_draws.ts";
import type { Adapted, Method, Outline } from "./method.ts";
import { torchUniform } from "./torch_random.ts";

/** What to adapt with vectors between shared random matrices. */
export interface VeraOptions<P = unknown> extends TuneOptions<P>, Pick<LoraOptions<P>, "dropout"> {
  /** The rank: much higher than LoRA's, since a step of it costs a number. PEFT's default is 256. */
  readonly r: number;
  /** What the vector between the matrices starts as. Default 0.1. */
  readonly dInitial?: number;
  /** What the matrices are drawn from: the same ones as PEFT's for its projection_prng_key. Default 0. */
  readonly seed?: number;
  /** Keep the matrices in the adapter's file. Without them it is small, and they are drawn again. Default true. */
  readonly saveProjection?: boolean;
  /** `false` draws the vectors at random, for tests. Default true: the function is as it was. */
  readonly init?: boolean;
}

/** A [r, most inputs] and B [most outputs, r]. */
interface Projection {
  readonly A: Leaf;
  readonly B: Leaf;
}

interface VeraSite extends Adapted {
  readonly projection: Projection;
  /** What its file says of how it was made. */
  readonly made: {
    readonly d_initial: number;
    readonly projection_prng_key: number;
    readonly save_projection: boolean;
  };
}

const keys = ["base_model.vera_A", "base_model.vera_B"] as const;

/** The shared matrices for modules: those that a file has, else uniform with the deviation √(2 / columns). */
function projectionOf(
  { params, shared }: Outline,
  sites: readonly Omit<VeraSite, "projection">[],
  r: number,
): Projection {
  const sizes = sites.map(sizesOf), [{ made }] = sites;
  const least = [[r, Math.max(...sizes.map((s) => s.in))], [Math.max(...sizes.map((s) => s.out)), r]];
  const shapes = least.map((shape, i) => shared?.[keys[i]]?.shape ?? shape);
  shapes.forEach((shape, i) => {
    if (shared !== undefined && made.save_projection && !shared[keys[i]]) {
      throw new OptionError(`save_projection is true, and there is no ${keys[i]} among the tensors`);
    }
    if (shape.length === 2 && shape[i] === r && shape[1 - i] >= least[i][1 - i]) return;
    throw new OptionError(`${keys[i]} is [${shape}], and these modules need [${least[i]}]`);
  });
  const held = params.leaves.find((leaf) => leaf instanceof Tensor) as Tensor | undefined;
  const draw = torchUniform(made.projection_prng_key);
  const [A, B] = shapes.map((shape, i): Leaf => {
    const bound = Math.sqrt(3) * (Math.SQRT2 / Math.sqrt(shape[1]));
    // Beside placeholders there is no place for tensors: numbers like those, drawn in every step.
    if (held === undefined) return mul(sub(mul(randomUniform(keyOf(i), shape), 2), 1), bound);
    const drawn = (): HostTensor => ({ shape, dtype: "f32", data: draw(shape[0] * shape[1], bound) });
    return upload(held.home, shared?.[keys[i]] ?? drawn());
  });
  return { A, B };
}

const keyOf = (i: number) => full([2], i, "u32");

export const method: Method<VeraSite, VeraOptions<any>> = {
  name: "vera",
  peftType: "VERA",
  options: {
    r: { peft: "r", file: { is: "a positive integer", default: 256 } },
    dropout: { peft: "vera_dropout", file: { is: "a number from 0 to less than 1", default: 0 } },
    dInitial: { peft: "d_initial", file: { is: "a number", default: 0.1 } },
    seed: { peft: "projection_prng_key", file: { is: "a number", default: 0 } },
    saveProjection: { peft: "save_projection", file: { is: "true or false", default: true } },
    init: { peft: "init_weights" },
  },
  keys: [
    { leaf: "lambda_b", ending: ".vera_lambda_b" },
    { leaf: "lambda_d", ending: ".vera_lambda_d" },
  ],
  silent: ["fan_in_fan_out", "init_weights"], // found from the model; a file's values are what they are
  shared: {
    keys,
    of: ([{ made, projection: { A, B } }]): Record<string, Leaf> =>
      made.save_projection ? { [keys[0]]: A, [keys[1]]: B } : {},
  },
  sites: (outline, options) => {
    const { r, seed = 0, saveProjection = true, dInitial = 0.1 } = options;
    const made = { d_initial: dInitial, projection_prng_key: seed, save_projection: saveProjection };
    if (!Number.isInteger(r) || r < 1) throw new OptionError(`r is ${r}: it takes a whole number from 1`);
    if (!Number.isSafeInteger(seed)) throw new OptionError(`seed is ${seed}: it takes a whole number`);
    const sites = adaptedSites(method, outline, choose(outline.modules, options), options, (m, { out }) => {
      refuseParts(method, m);
      return { trained: { lambda_b: [out], lambda_d: [r] }, match: { r } };
    });
    const projection = projectionOf(outline, sites.map((site) => ({ ...site, made })), r);
    return sites.map((site) => ({ ...site, projection, made }));
  },
  first: (
    { trained: { lambda_b, lambda_d } },
    weight,
    { index, options: { init = true, dInitial = 0.1, seed = 0 } },
  ) => {
    const key = [randomKey(Math.abs(seed)).data[0], seed >>> 0] as const;
    return {
      lambda_b: drawArray(weight, lambda_b, key, () => init ? 0 : 1),
      lambda_d: drawArray(weight, lambda_d, key, (key, i) => init ? dInitial : normal(key, index * lambda_d[0] + i)),
    };
  },
  effect: (site, { lambda_b, lambda_d }, _weight, { adapterWeight = 1 }) => {
    const { in: inputs, out } = sizesOf(site), { projection, match: { r } } = site;
    const A = mul(slice(projection.A, 1, 0, inputs), reshape(lambda_d!, [r, 1]));
    const B = mul(slice(projection.B, 0, 0, out), reshape(lambda_b!, [out, 1]));
    return { pair: { A, B, scaling: adapterWeight } };
  },
  config: (sites) => ({
    ...{ r: sites[0].match.r, ...sites[0].made, bias: "none", init_weights: true, modules_to_save: null },
    fan_in_fan_out: sites.some((m) => m.match.layout === "in,out"),
  }),
};
