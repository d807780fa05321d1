/**
 * SHiRA: single numbers of a weight, at places that are chosen once, are trained: as many as LoRA's pair of rank r has.
 * Source: Bhardwaj et al. 2024, "Sparse High Rank Adapters".
 */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf } from "../../core/model.ts";
import { reshape } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { div, mul, sub } from "../../core/ops/elementwise.ts";
import { concat, iota, slice } from "../../core/ops/structure.ts";
import { randomKey, threefry2x32, uniformAt } from "../../core/random.ts";
import { type HostTensor, Tensor, upload } from "../../core/tensor.ts";
import { adaptedSites, choose, refuseParts } from "../follow/plan.ts";
import type { TuneOptions } from "../options.ts";
import { firstDraws, normal } from "./first_draws.ts";
import type { Adapted, Method, Outline } from "./method.ts";

/** How many numbers are trained, and where. */
export interface ShiraOptions<P = unknown> extends TuneOptions<P> {
  /** r · (inputs + outputs) numbers of each module are trained. */
  readonly r: number;
  /** What the places are drawn from, where no file has them. */
  readonly seed?: number;
  /** Zeros (the default), or drawn: `false` changes the function from the first, for tests. */
  readonly init?: boolean;
}

interface ShiraSite extends Adapted {
  /** i32[2, n]: outputs and inputs. */
  readonly indices: Leaf;
  readonly seed: number | null;
}

const keyOf = (hub: string) => `base_model.model.${hub}.shira_indices`;

/** n different places of a matrix [out, in], row by row, as i32[2, n]. */
function drawn(
  sizes: { readonly in: number; readonly out: number },
  n: number,
  key: readonly [number, number],
): HostTensor {
  // Floyd's way: each place once, whatever was drawn before.
  const all = sizes.in * sizes.out, places = new Set<number>();
  for (let last = all - n; last < all; last++) {
    const place = Math.floor(uniformAt(key, last) * (last + 1));
    places.add(places.has(place) ? last : place);
  }
  const order = Int32Array.from(places).sort(), data = new Int32Array(2 * n);
  order.forEach((place, i) => {
    data[i] = Math.floor(place / sizes.in);
    data[n + i] = place % sizes.in;
  });
  return { shape: [2, n], dtype: "i32", data };
}

/** The places of a module's numbers: those of a file, or drawn; beside placeholders the first ones. */
function indicesOf(
  { params, shared }: Outline,
  { hub, sizes, n, key }: {
    readonly hub: string;
    readonly sizes: { readonly in: number; readonly out: number };
    readonly n: number;
    readonly key: readonly [number, number];
  },
): Leaf {
  const found = shared?.[keyOf(hub)];
  if (shared !== undefined && (found?.shape.length !== 2 || found.shape[0] !== 2 || found.shape[1] !== n)) {
    throw new OptionError(`${keyOf(hub)} is ${found ? `[${found.shape}]` : "missing"}, expected [2,${n}]`);
  }
  const outside = found &&
    Array.from(found.data as Int32Array).some((at, i) => at < 0 || at >= (i < n ? sizes.out : sizes.in));
  if (outside) throw new OptionError(`${keyOf(hub)} has places outside of [${sizes.out},${sizes.in}]`);
  const held = params.leaves.find((leaf) => leaf instanceof Tensor) as Tensor | undefined;
  const place = iota([n], 0), row = div(place, sizes.in);
  if (held === undefined) return reshape(concat([row, sub(place, mul(row, sizes.in))], 0), [2, n]);
  return upload(held.home, found ?? drawn(sizes, n, key));
}

export const method: Method<ShiraSite, ShiraOptions<any>> = {
  name: "shira",
  peftType: "SHIRA",
  options: {
    r: { peft: "r", file: { is: "a positive integer", default: 32 } },
    seed: { peft: "random_seed", file: { is: "a whole number or null", default: null } },
    init: { peft: "init_weights", file: { is: [false, true], default: true } },
  },
  keys: [{ leaf: "numbers", ending: ".shira_weight" }],
  silent: ["fan_in_fan_out", "mask_type"], // found from the model; the places are in the file
  shared: {
    keys: ["*.shira_indices"],
    of: (sites) => Object.fromEntries(sites.map(({ hub, indices }) => [keyOf(hub), indices])),
  },
  sites: (outline, options) => {
    const { r, seed } = options, [high, low] = randomKey(seed ?? 0).data;
    const chosen = choose(outline.modules, options);
    const sites = adaptedSites(method as Method, outline, chosen, options, (m, sizes) => {
      refuseParts(method as Method, m);
      const n = r * (sizes.in + sizes.out);
      if (Number.isInteger(r) && r > 0 && n <= sizes.in * sizes.out) return { trained: { numbers: [n] }, match: { r } };
      throw new OptionError(
        `r is ${r}, but "${m.path}" has ${sizes.in} inputs and ${sizes.out} outputs: it takes a whole number from 1, ` +
          `and r · (inputs + outputs) at most inputs · outputs`,
      );
    });
    return sites.map((site, index): ShiraSite => {
      const { aval: { shape }, inAxis, hub, trained: { numbers: [n] } } = site;
      const sizes = { in: shape[inAxis], out: shape[1 - inAxis] }, key = threefry2x32([high, low], [index, 1]);
      return { ...site, seed: seed ?? null, indices: indicesOf(outline, { hub, sizes, n, key }) };
    });
  },
  first: (site, weight, { index, options: { init = true, seed } }) =>
    firstDraws(site, weight, { index, seed: seed ?? 0, fills: init ? {} : { numbers: normal } }),
  effect: ({ indices }, { numbers }, _weight, { adapterWeight = 1 }) => {
    const row = (i: number): Value => reshape(slice(asValue(indices, "i32"), 0, i, i + 1), [indices.shape[1]]);
    return { form: { sparse: { values: mul(numbers!, adapterWeight), rows: row(0), columns: row(1) } } };
  },
  config: ([{ match: { r }, seed }]) => ({
    ...{ r, random_seed: seed, mask_type: "random", init_weights: true, modules_to_save: null },
  }),
};
