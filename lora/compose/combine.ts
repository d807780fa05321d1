/** One adapter made out of several. */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf } from "../../core/model.ts";
import { add, mul } from "../../core/ops/elementwise.ts";
import { concat } from "../../core/ops/structure.ts";
import { homeOf } from "../../core/runtime.ts";
import { type HostTensor, readTensors, Tensor, upload } from "../../core/tensor.ts";
import { flatten } from "../../core/tree.ts";
import { type Tuned, tunedOf } from "../lora.ts";
import { isPair, ranked } from "../methods/lora.ts";
import type { Adapted } from "../methods/method.ts";
import type { AdapterEntry, Trainable } from "../options.ts";
import { checkSum, type Factors, refuseOtherRanks, sumNames, type SumOptions, type Way, weightedSum } from "./sums.ts";
import { checkList, checkMembers, checkOptions } from "../../core/options.ts";
import { checkTuned } from "../check_trainable.ts";

/** One adapter of a combination. */
export interface Weighted<P, I, O> {
  /** What `lora` gave. */
  readonly tuned: Tuned<P, I, O>;
  /** Its values. */
  readonly trainable: Trainable;
  /** How strongly it counts; may be negative. */
  readonly weight: number;
}

/** What one adapter has at a module. */
interface Held {
  readonly m: Adapted;
  readonly entry: AdapterEntry;
  readonly weight: number;
}

/** A pair with the scaling that is not in it. */
interface Pair {
  readonly A: Leaf;
  readonly B: Leaf;
  readonly r: number;
}

/** The ways that are values of the graph, which `jit` computes where they are used. */
const traced: Readonly<Record<"cat" | "linear", (parts: readonly Held[]) => Pair>> = {
  cat: (parts) => ({
    A: concat(parts.map(({ m, entry, weight }) => mul(entry.A!, weight * m.match.scaling)), 0),
    B: concat(parts.map(({ entry }) => entry.B!), 1),
    r: parts.reduce((sum, { m }) => sum + m.match.r, 0),
  }),
  linear: (parts) => {
    const [{ m: { path, match: { r } } }] = parts;
    refuseOtherRanks(path, parts.map(({ m }) => m.match.r), "linear");
    const roots = parts.map(({ m, entry, weight }) => {
      const whole = weight * m.match.scaling;
      return { entry, root: Math.sqrt(Math.abs(whole)), sign: whole < 0 ? -1 : 1 };
    });
    const sum = (values: readonly Value[]) => values.reduce((a, b) => add(a, b));
    return {
      A: sum(roots.map(({ entry, root, sign }) => mul(entry.A!, sign * root))),
      B: sum(roots.map(({ entry, root }) => mul(entry.B!, root))),
      r,
    };
  },
};

/**
 * One plain adapter out of several, with a weight each (which may be negative), as PEFT's `add_weighted_adapter` makes them;
 * its scaling is 1. `"cat"` is exact: the ranks add up, and the change is Σ wᵢ·sᵢ·Bᵢ·Aᵢ. `"linear"` keeps the rank, which
 * must be the same: it adds √(wᵢ·sᵢ)·Aᵢ and √(wᵢ·sᵢ)·Bᵢ each, so that the change has cross terms and is not that sum.
 *
 * @throws {OptionError} for adapters of different models, or with other values than A and B
 */
export function combine<P, I, O>(adapters: readonly Weighted<P, I, O>[], way: "cat" | "linear"): Tuned<P, I, O>;
/**
 * The other ways look at the values, which are waited for. `"ties"` (what is largest, with the sign that most have),
 * `"dare_linear"`, `"dare_ties"` (what is drawn by `seed`) and `"magnitude_prune"` do that to A and B, of equal ranks; with
 * `_svd` to the changes sᵢ·Bᵢ·Aᵢ of any ranks, and of the result what has the greatest singular values is kept, as of the
 * plain sum by `"svd"`.
 */
export function combine<P, I, O>(
  adapters: readonly Weighted<P, I, O>[],
  way: Exclude<Way, "cat" | "linear">,
  options?: SumOptions,
): Promise<Tuned<P, I, O>>;
export function combine<P, I, O>(
  adapters: readonly Weighted<P, I, O>[],
  way: Way,
  options: SumOptions = {},
): Tuned<P, I, O> | Promise<Tuned<P, I, O>> {
  checkOptions("combine", options, sumNames);
  checkList("combine", "adapters", adapters);
  for (const one of adapters) {
    checkMembers("combine", "adapters as { tuned, trainable, weight }", one, ["tuned", "trainable", "weight"]);
    checkTuned("combine", one.tuned);
  }
  if (adapters.length === 0) throw new OptionError("combine needs at least one adapter");
  checkSum(way, options);
  const held = heldBy(adapters);
  const [{ tuned }] = adapters;
  if (way === "cat" || way === "linear") return made(tuned, held, held.map(traced[way]));
  return read(adapters).then((values) => {
    const largest = Math.max(...held.flat().map(({ m }) => m.match.r));
    const home = homeOf(tuned.frozen);
    const pairs = held.map((parts) => {
      const factors = parts.map(({ m, entry, weight }) => ({ ...values(entry), weight: weight * m.match.scaling }));
      return uploaded(home, weightedSum(parts[0].m.hub, factors, way, { ...options, largest }));
    });
    return made(tuned, held, pairs);
  });
}

/** The adapters by module. */
function heldBy<P, I, O>(adapters: readonly Weighted<P, I, O>[]): Held[][] {
  const leaves = flatten<Leaf>(adapters[0].tuned.frozen).leaves;
  const parts = new Map<string, Held[]>();
  for (const { tuned, trainable, weight } of adapters) {
    tuned.check(trainable);
    if (flatten<Leaf>(tuned.frozen).leaves.some((leaf, i) => leaf !== leaves[i])) {
      throw new OptionError("adapters that are combined must be of one model: turn PiSSA's into plain ones first");
    }
    const more = [...tuned.plan.adapted.filter((m) => !isPair(m)), ...tuned.plan.edits];
    if (more.length > 0) {
      throw new OptionError(
        `"${
          more[0].path
        }" trains other values than A and B, of which there is no weighted sum: use together, or merge one first`,
      );
    }
    const partial = tuned.plan.adapted.find(({ acts }) => acts !== undefined);
    if (partial !== undefined) throw new OptionError(`"${partial.path}" is in no weighted sum: ${partial.acts!.why}`);
    for (const m of tuned.plan.adapted) {
      parts.set(m.path, [...parts.get(m.path) ?? [], { m, entry: trainable[m.path], weight }]);
    }
  }
  return [...parts.values()];
}

/** The adapter of pairs, one for each module. */
function made<P, I, O>(
  tuned: Tuned<P, I, O>,
  held: readonly (readonly Held[])[],
  pairs: readonly Pair[],
): Tuned<P, I, O> {
  const plain = ({ match, ...m }: Adapted): Adapted => ({ ...m, match: { ...match, rslora: undefined } });
  const adapted = held.map(([{ m }], i) => ranked(plain(m), pairs[i].r, 1));
  const trainable = Object.fromEntries(held.map(([{ m }], i) => [m.path, { A: pairs[i].A, B: pairs[i].B }]));
  return tunedOf(tuned.model, { adapted, edits: [], dropout: 0 }, trainable);
}

/** The values of all adapters, on the host: one wait for all. */
async function read(adapters: readonly Weighted<any, any, any>[]): Promise<(entry: AdapterEntry) => Factors> {
  const { leaves } = flatten<Leaf>(adapters.map(({ trainable }) => trainable));
  const contents = await readLeaves(homeOf(adapters[0].tuned.frozen), leaves);
  const host = new Map(leaves.map((leaf, i) => [leaf, contents[i]]));
  return ({ A, B }) => factorsOf(host.get(A!)!, host.get(B!)!);
}

/** Tensors, and values that are computed for it, on the host: one wait for all. */
export async function readLeaves(home: Tensor["home"], leaves: readonly Leaf[]): Promise<HostTensor[]> {
  const values = leaves.filter((leaf) => !(leaf instanceof Tensor));
  const computed = values.length === 0 ? [] : home.jit!(() => values)() as readonly Tensor[];
  const tensors = leaves.map((leaf) => leaf instanceof Tensor ? leaf : computed[values.indexOf(leaf)]);
  const contents = await readTensors(tensors);
  for (const tensor of computed) tensor.dispose();
  return contents;
}

/** A pair as rows and columns. */
export function factorsOf(
  { shape: [r, inputs], data: a }: HostTensor,
  { shape: [outputs], data: b }: HostTensor,
): Factors {
  const ranks = Array.from({ length: r }, (_, k) => k);
  return {
    A: ranks.map((k) => Float64Array.from({ length: inputs }, (_, i) => Number(a[k * inputs + i]))),
    B: ranks.map((k) => Float64Array.from({ length: outputs }, (_, o) => Number(b[o * r + k]))),
  };
}

/** The pair that rows and columns are: A f32[r, in], B f32[out, r]. */
export function pairOf({ A, B }: Factors): { readonly A: HostTensor; readonly B: HostTensor } {
  const r = A.length, a = new Float32Array(r * A[0].length), b = new Float32Array(B[0].length * r);
  A.forEach((row, k) => a.set(row, k * row.length));
  B.forEach((column, k) => column.forEach((x, o) => b[o * r + k] = x));
  return {
    A: { shape: [r, A[0].length], dtype: "f32", data: a },
    B: { shape: [B[0].length, r], dtype: "f32", data: b },
  };
}

function uploaded(home: Tensor["home"], factors: Factors): Pair {
  const { A, B } = pairOf(factors);
  return { A: upload(home, A), B: upload(home, B), r: factors.A.length };
}
