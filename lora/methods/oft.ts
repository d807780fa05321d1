/**
 * OFT: the inputs of a module are turned, block by block, before its weight meets them.
 * Source: Qiu et al. 2023, "Controlling Text-to-Image Diffusion by Orthogonal Finetuning"; the series of Qiu et al. 2025,
 * "Orthogonal Finetuning Made Scalable".
 */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf } from "../../core/model.ts";
import { full, reshape } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { dot } from "../../core/ops/contract.ts";
import {
  add,
  and,
  convert,
  div,
  eq,
  max,
  min,
  mul,
  neg,
  recip,
  select,
  shr,
  sign,
  sub,
} from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { iota, slice, transpose } from "../../core/ops/structure.ts";
import { customVjp } from "../../core/transforms/custom_vjp.ts";
import { adaptedSites, choose, refuseParts } from "../follow/plan.ts";
import type { TuneOptions } from "../options.ts";
import { firstDraws, normal } from "./first_draws.ts";
import type { Adapted, Method } from "./method.ts";

/** How the inputs are cut into blocks, and how each is turned. */
export interface OftOptions<P = unknown> extends TuneOptions<P> {
  /** The size of the blocks, or the nearest that divides a module's inputs. 32 where there is no `r` either. */
  readonly oftBlockSize?: number;
  /** The number of blocks, likewise, where there is no `oftBlockSize`. */
  readonly r?: number;
  /** One turn for all blocks of a module. */
  readonly blockShare?: boolean;
  /**
   * `true`, the default: the first terms of Cayley's turn as a series, (I + Q)·(I - Q)⁻¹ nearly. `false`: (I - Q)·(I + Q)⁻¹
   * itself, which is orthogonal to rounding, and the other way round.
   */
  readonly cayleyNeumann?: boolean;
  /** How many terms the series has. 5 by default. */
  readonly neumannTerms?: number;
  /** Zeros (the default), or drawn: `false` changes the function from the first, for tests. */
  readonly init?: boolean;
  /** What values are drawn from where they are. 0 by default. */
  readonly seed?: number;
}

interface OftSite extends Adapted {
  /** Blocks, their size, and what was asked for. */
  readonly blocks: number;
  readonly size: number;
  readonly asked: OftOptions;
}

/** The divisor of n that is nearest to what is asked for, the smaller of two. */
function nearestDivisor(n: number, asked: number): number {
  if (asked >= n) return n;
  let [low, high] = [asked, asked];
  while (n % high !== 0) high++;
  while (n % low !== 0) low--;
  return asked - low <= high - asked ? low : high;
}

/** [..., b, b]: ones on the diagonal. */
const identity = (b: number) => convert(eq(iota([b, b], 0), iota([b, b], 1)), "f32");

const bmm = (a: Value, b: Value) => dot(a, b, { contract: [[2], [1]], batch: [[0], [0]] });
const across = (a: Value) => transpose(a, [0, 2, 1]);

/** Q f32[blocks, b, b], skew: above its diagonal the numbers row by row, below it their opposites. */
function skew(upper: Value, b: number): Value {
  const [i, j] = [iota([b, b], 0), iota([b, b], 1)];
  const [low, high] = [min(i, j), max(i, j)];
  const place = sub(add(mul(low, b - 1), high), add(shr(mul(low, add(low, -1)), 1), add(low, 1)));
  const found = gather(transpose(upper, [1, 0]), place);
  return transpose(mul(found, reshape(sign(convert(sub(j, i), "f32")), [b, b, 1])), [2, 0, 1]);
}

/** (I + Q)⁻¹ of skew Q, by Gauss and Jordan in place: all that is divided by is at least 1, so that nothing is exchanged. */
function eliminated(q: Value): Value {
  const [, b] = q.shape, [i, j] = [iota([b, b], 0), iota([b, b], 1)];
  let m = add(q, identity(b));
  for (let k = 0; k < b; k++) {
    const row = slice(m, 1, k, k + 1), column = slice(m, 2, k, k + 1), pivot = slice(row, 2, k, k + 1);
    const others = select(eq(j, k), neg(div(column, pivot)), sub(m, div(mul(column, row), pivot)));
    m = select(and(eq(i, k), eq(j, k)), recip(pivot), select(eq(i, k), div(row, pivot), others));
  }
  return m;
}

/** The same; its derivative is two products. */
const inverse = customVjp(eliminated, {
  forward: (q) => {
    const found = eliminated(q);
    return [found, found] as const;
  },
  backward: (found, ct) => [neg(bmm(bmm(across(found), ct), across(found)))] as const,
});

/** I + 2Q + 2Q² + … + Qⁿ⁻¹, as PEFT has it: the last term once. */
function series(q: Value, terms: number): Value {
  let sum = add(mul(q, terms > 1 ? 2 : 0), identity(q.shape[1]));
  if (terms < 3) return sum;
  let power = bmm(q, q);
  sum = add(sum, mul(power, 2));
  for (let n = 3; n < terms - 1; n++) {
    power = bmm(power, q);
    sum = add(sum, mul(power, 2));
  }
  return add(sum, bmm(power, q));
}

/** R f32[blocks, b, b]. */
function turnOf({ size, asked: { cayleyNeumann = true, neumannTerms = 5 } }: OftSite, upper: Value): Value {
  if (size === 1) return full([upper.shape[0], 1, 1], 1); // numbers can't be turned
  const q = skew(upper, size);
  // (I - Q)·(I + Q)⁻¹ = 2·(I + Q)⁻¹ - I
  return cayleyNeumann ? series(q, neumannTerms) : sub(mul(inverse(q), 2), identity(size));
}

export const method: Method<OftSite, OftOptions<any>> = {
  name: "oft",
  peftType: "OFT",
  options: {
    r: { peft: "r", file: { is: "a whole number", default: 0 } },
    oftBlockSize: { peft: "oft_block_size", file: { is: "a whole number", default: 32 } },
    blockShare: { peft: "block_share", file: { is: [true, false], default: false } },
    cayleyNeumann: { peft: "use_cayley_neumann", file: { is: [false, true], default: true } },
    neumannTerms: { peft: "num_cayley_neumann_terms", file: { is: "a whole number", default: 5 } },
    init: { peft: "init_weights", file: { is: [false, true], default: true } },
    seed: { peft: null },
  },
  samples: [{ cayleyNeumann: false }, { blockShare: true, oftBlockSize: 2 }, { oftBlockSize: 4, neumannTerms: 3 }],
  keys: [{ leaf: "R", ending: ".oft_R.weight" }],
  silent: ["fan_in_fan_out", "eps"], // found from the model, or asked of nothing without coft
  sites: (outline, options) => {
    const { r, oftBlockSize, blockShare = false, neumannTerms = 5 } = options;
    for (const [name, value] of Object.entries({ r, oftBlockSize, neumannTerms })) {
      if (value === undefined || Number.isSafeInteger(value) && value >= 0) continue;
      throw new OptionError(`${name} is ${value}, and it takes a whole number`);
    }
    const sized = (inputs: number) => {
      if (oftBlockSize || !r) return nearestDivisor(inputs, oftBlockSize || 32);
      return inputs / nearestDivisor(inputs, r);
    };
    const sites = adaptedSites(method as Method, outline, choose(outline.modules, options), options, (m, sizes) => {
      refuseParts(method as Method, m);
      const size = sized(sizes.in), blocks = sizes.in / size;
      return { trained: { R: [blockShare ? 1 : blocks, size * (size - 1) / 2] }, match: { r: blocks } };
    });
    return sites.map((site): OftSite => ({
      ...site,
      ...{ blocks: site.match.r, size: site.aval.shape[site.inAxis] / site.match.r, asked: options },
    }));
  },
  first: (site, weight, { index, options: { init = true, seed } }) =>
    firstDraws(site, weight, { index, seed, fills: init ? {} : { R: (key, i) => 0.1 * normal(key, i) } }),
  readsWeight: true,
  effect: (site, { R }, _weight, { adapterWeight }) => {
    const whole = turnOf(site, asValue(R!)), one = identity(site.size);
    const turn = adapterWeight === undefined ? whole : add(mul(sub(whole, one), adapterWeight), one);
    return { form: { turn: reshape(turn, [1, ...turn.shape]) } };
  },
  lost: (_site, _entry, leaf): Readonly<Record<string, Leaf>> => ({ weight: leaf }),
  restore: (_site, _leaf, lost) => lost("weight"),
  config: ([{ asked: { r = 0, oftBlockSize, blockShare = false, cayleyNeumann = true, neumannTerms = 5 } }]) => ({
    ...(oftBlockSize || !r ? { r: 0, oft_block_size: oftBlockSize || 32 } : { r, oft_block_size: 0 }),
    ...{ block_share: blockShare, use_cayley_neumann: cayleyNeumann, num_cayley_neumann_terms: neumannTerms },
    // Its series is the one that PEFT has since then.
    ...{ init_weights: true, modules_to_save: null, coft: false, module_dropout: 0, peft_version: "0.18.0" },
  }),
};
