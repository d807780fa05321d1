/**
 * MiSS: the inputs' sums over groups of r, times one block that is shared: W[o, i] + block[i mod r, o].
 * Source: Kang and Yin 2024, "MiSS: Revisiting the Trade-off in LoRA with an Efficient Shard-Sharing Structure".
 */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import { reshape } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { add, convert, eq, mul } from "../../core/ops/elementwise.ts";
import { iota, transpose } from "../../core/ops/structure.ts";
import type { Leaf } from "../../core/model.ts";
import type { Operand } from "../../core/tensor.ts";
import { sizesOf } from "../follow/effect.ts";
import type { Form } from "../follow/forms.ts";
import { adaptedSites, choose, refuseParts } from "../follow/plan.ts";
import type { TuneOptions } from "../options.ts";
import { firstDraws, kaiming } from "./first_draws.ts";
import type { Adapted, Method } from "./method.ts";

/** How large the shared block is, and how it is shared. */
export interface MissOptions<P = unknown> extends TuneOptions<P> {
  /** The block's rows: a whole number up to each module's inputs. */
  readonly r: number;
  /**
   * `true`, the default: a column for each output, zero at first; `false`: drawn. `"mini"`: only `miniR` columns, again and
   * again. `"bat"`: each r outputs have a block r by r, which turns the weight too, so that the change depends on it.
   */
  readonly init?: boolean | "bat" | "mini";
  /** The block's columns where `init` is `"mini"`: they must divide the outputs. 1 by default. */
  readonly miniR?: number;
  /** The fraction of the inputs that is dropped where `apply` is given a key. 0 by default; not of `"bat"`. */
  readonly dropout?: number;
  /** What blocks are drawn from where they are. 0 by default. */
  readonly seed?: number;
}

/** The shape of a module's block. */
function blockOf(
  path: string,
  sizes: { readonly in: number; readonly out: number },
  { r, init, miniR = 1 }: MissOptions,
): number[] {
  if (!Number.isInteger(r) || r < 1 || r > sizes.in) {
    throw new OptionError(`r is ${r}, but "${path}" has ${sizes.in} inputs: it takes a whole number up to that`);
  }
  if (init === "bat") {
    if (sizes.in % r === 0 && sizes.out % r === 0) return [sizes.out / r, r, r];
    throw new OptionError(
      `r is ${r}, but "${path}" has ${sizes.in} inputs and ${sizes.out} outputs: "bat" takes one that divides both`,
    );
  }
  if (init !== "mini") return [r, sizes.out];
  if (Number.isInteger(miniR) && miniR > 0 && sizes.out % miniR === 0) return [r, miniR];
  throw new OptionError(`miniR is ${miniR}, but "${path}" has ${sizes.out} outputs: it takes one that divides them`);
}

/** Whether each group of outputs has a block of its own, which turns the weight. */
const isBat = ({ trained }: Adapted) => trained.block.length === 3;

/** Block b of r outputs as W·(I + b) + b, whatever r inputs it meets. */
function bat(block: Value, site: Adapted, scaling: Operand): Form {
  const [groups, r] = block.shape;
  const scaled = mul(block, scaling);
  const same = convert(eq(iota([r, r], 0), iota([r, r], 1)), "f32");
  return {
    turn: reshape(transpose(add(scaled, same), [0, 2, 1]), [groups, 1, r, r]),
    product: {
      factors: [{ value: scaled, axes: ["group", "row", "column"] }],
      in: [["shard", sizesOf(site).in / r], ["column", r]],
      out: [["group", groups], ["row", r]],
      scaling: 1,
    },
  };
}

export const method: Method<Adapted, MissOptions<any>> = {
  name: "miss",
  peftType: "MISS",
  options: {
    r: { peft: "r", file: { is: "a positive integer", default: 64 } },
    init: { peft: "init_weights", file: { is: [false, true, "bat", "mini"], default: true } },
    miniR: { peft: "mini_r", file: { is: "a positive integer", default: 1 } },
    dropout: { peft: "miss_dropout", file: { is: "a number from 0 to less than 1", default: 0 } },
    seed: { peft: null },
  },
  samples: [{ init: "bat" }, { init: "mini" }, { r: 3 }],
  keys: [{ leaf: "block", ending: ".miss_block" }],
  sites: (outline, options) => {
    if (options.init === "bat" && options.dropout) {
      throw new OptionError('dropout and init "bat" exclude each other: a weight that is turned drops no inputs');
    }
    return adaptedSites(method, outline, choose(outline.modules, options), options, (m, sizes) => {
      refuseParts(method, m);
      return { trained: { block: blockOf(m.path, sizes, options) }, match: { r: options.r } };
    });
  },
  first: (site, weight, { index, options: { init, seed } }) => {
    const fills = init === false ? { block: kaiming(site.trained.block.at(-1)!) } : {};
    return firstDraws(site, weight, { index, seed, fills });
  },
  effect: (site, entry, _weight, { adapterWeight = 1 }) => {
    const block = asValue(entry.block!), { r } = site.match, sizes = sizesOf(site);
    if (isBat(site)) return { form: bat(block, site, adapterWeight) };
    const columns = block.shape[1];
    return {
      form: {
        product: {
          factors: [{ value: block, axes: ["row", "column"] }],
          in: [["shard", Math.ceil(sizes.in / r)], ["row", r]],
          out: [["time", sizes.out / columns], ["column", columns]],
          scaling: adapterWeight,
        },
      },
    };
  },
  readsWeight: true,
  lost: (site, _entry, leaf): Readonly<Record<string, Leaf>> => isBat(site) ? { weight: leaf } : {},
  restore: (site, leaf, lost) => isBat(site) ? lost("weight") : leaf,
  config: (sites) => {
    const [{ match: { r }, trained: { block } }] = sites;
    const mini = sites.some((site) => site.trained.block[1] < sizesOf(site).out);
    return {
      ...{ r, miss_dropout: 0, modules_to_save: null, mini_r: mini ? block[1] : 1 },
      init_weights: block.length === 3 ? "bat" : mini ? "mini" : true,
    };
  },
};
