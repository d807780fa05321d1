/** An adapter of any method that can be merged, as LoRA of a given rank: the best there is for each weight's change. */
import { Matrix } from "ml-matrix";
import { formatAval } from "../../core/aval.ts";
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf } from "../../core/model.ts";
import { asValue } from "../../core/ops/constant.ts";
import { sub } from "../../core/ops/elementwise.ts";
import { homeOf } from "../../core/runtime.ts";
import { type HostTensor, upload } from "../../core/tensor.ts";
import { flatten } from "../../core/tree.ts";
import { leafOf, refuseUnmergeable } from "../follow/edit.ts";
import { widened } from "../follow/effect.ts";
import { type Tuned, tunedOf } from "../lora.ts";
import { mergeInto } from "../merge.ts";
import { plainSite } from "../methods/lora.ts";
import type { Adapted } from "../methods/method.ts";
import type { AdapterEntry, Trainable } from "../options.ts";
import { pairOf, readLeaves } from "./combine.ts";
import { principalPart } from "./sums.ts";
import { checkOptions } from "../../core/options.ts";
import { checkTuned } from "../check_trainable.ts";

/** How far a module's change of a rank is from the change that it stands for: a fraction of that one's size (Frobenius). */
export interface RankError {
  /** The module. */
  readonly path: string;
  /** 0 for the same change, 1 for none. */
  readonly error: number;
}

/** What {@link toLora} gives. */
export interface Approximation<P, I, O> {
  /** The adapter; its scaling is 1. */
  readonly tuned: Tuned<P, I, O>;
  /** The error of each module. */
  readonly errors: readonly RankError[];
  /** That of all changes together. */
  readonly error: number;
}

/**
 * Takes what merging changes of each weight and keeps the `rank` greatest singular values of it, as PEFT's `convert_to_lora`.
 * What a method makes of biases becomes the branches' own (`loraBias`), and what is trained beside it stays.
 *
 * @throws {OptionError} for a rank that a module can't take, a method that can't be merged, or PiSSA's rest of the weights
 */
export async function toLora<P, I, O>(
  tuned: Tuned<P, I, O>,
  trainable: Trainable,
  options: { readonly rank: number },
): Promise<Approximation<P, I, O>> {
  checkOptions("toLora", options, { rank: true });
  checkTuned("toLora", tuned);
  const { rank } = options;
  tuned.check(trainable);
  refuseUnmergeable([tuned]);
  const { plan: { adapted, edits }, frozen, model } = tuned;
  const own = flatten<Leaf>(model.params), now = flatten<Leaf>(frozen);
  const started = adapted.find((m) => own.leaves[m.leaf] !== now.leaves[m.leaf]);
  if (started !== undefined) {
    throw new OptionError(`"${started.path}" changes what its start left of the weight: use pissaToLora`);
  }
  const sites = [...Map.groupBy(adapted, (m) => m.match.part?.of ?? m.path)].map(([path, [m]]) => wholeSite(m, path));
  for (const { path, aval } of sites) {
    const most = Math.min(...aval.shape);
    if (Number.isInteger(rank) && rank >= 1 && rank <= most) continue;
    throw new OptionError(
      `rank is ${rank}, but "${path}" is ${formatAval(aval)}: it takes a whole number from 1 to ${most}`,
    );
  }
  const changes = changesOf(tuned, trainable, sites);
  const biased = changes.some(({ bias }) => bias !== undefined);
  const entries: Record<string, AdapterEntry> = Object.fromEntries(edits.map(({ path }) => [path, trainable[path]]));
  const home = homeOf(frozen), errors: (RankError & { rest: number; whole: number })[] = [];
  for (const [i, site] of sites.entries()) {
    const { weight, bias } = changes[i];
    const [change, add] = await readLeaves(home, [weight, ...(bias ? [bias] : [])]);
    const stored = Matrix.from1DArray(change.shape[0], change.shape[1], Array.from(change.data, Number));
    const matrix = site.inAxis === 0 ? stored.transpose() : stored;
    const pair = pairOf(principalPart(matrix, rank));
    const rest = restOf(matrix, pair), whole = matrix.norm("frobenius");
    errors.push({ path: site.path, error: whole === 0 ? 0 : rest / whole, rest, whole });
    const zeros = (n: number): HostTensor => ({ shape: [n], dtype: "f32", data: new Float32Array(n) });
    const values = { ...pair, ...(biased && { biasB: add ?? zeros(matrix.rows) }) };
    const uploaded = Object.entries(values).map(([name, tensor]) => [name, upload(home, tensor)]);
    entries[site.path] = { ...entries[site.path], ...Object.fromEntries(uploaded) };
  }
  const plain = sites.map((site) => plainSite(site, rank, biased));
  const total = (of: "rest" | "whole") => Math.hypot(...errors.map((e) => e[of]));
  return {
    tuned: tunedOf(model, { adapted: plain, edits, dropout: 0 }, entries, frozen),
    errors: errors.map(({ path, error }) => ({ path, error })),
    error: total("whole") === 0 ? 0 : total("rest") / total("whole"),
  };
}

/** The module that a site is a part of. */
function wholeSite({ match: { part: _, ...match }, ...m }: Adapted, path: string): Adapted {
  const hub = m.part === null ? m.hub : m.hub.slice(0, m.hub.lastIndexOf("["));
  return { ...m, path, hub, part: null, match: { ...match, path } };
}

/** What merging adds to each site's weight, and to its bias where that changes; in f32. */
function changesOf<P>(
  { plan, frozen }: Pick<Tuned<P, unknown, unknown>, "plan" | "frozen">,
  trainable: Trainable,
  sites: readonly Adapted[],
): { weight: Value; bias?: Value }[] {
  const flat = flatten<Leaf>(frozen);
  const touched = new Set(sites.flatMap(({ leafPath, bias }) => [leafPath, bias]));
  const wide = flat.unflatten(
    flat.leaves.map((leaf, i) => touched.has(flat.paths[i]) ? widened(asValue(leaf)) : leaf),
  ) as P;
  // What is trained beside the method is there before and after.
  const merged = (adapted: readonly Adapted[]) =>
    flatten<Leaf>(mergeInto(wide, [{ plan: { ...plan, adapted }, trainable }], true));
  const [before, after] = [merged([]), merged(plan.adapted)];
  return sites.map((site) => {
    const [from, to] = [before, after].map(({ leaves, paths }) => leaves[leafOf(paths, site)]);
    const [old, now] = [before, after].map(({ leaves, paths }) => leaves[paths.indexOf(site.bias ?? "")]);
    return { weight: sub(to, from), ...(old !== now && { bias: sub(now, old) }) };
  });
}

/** The size of what a pair, in f32, leaves of a matrix. */
function restOf(matrix: Matrix, { A, B }: ReturnType<typeof pairOf>): number {
  const [a, b] = [A, B].map(({ shape, data }) => Matrix.from1DArray(shape[0], shape[1], Array.from(data, Number)));
  return Matrix.sub(matrix, b.mmul(a)).norm("frobenius");
}
