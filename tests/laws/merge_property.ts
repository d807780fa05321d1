/**
 * Adapted and merged are the same function, within what rounding allows: a bound that is derived (in lora/bound.ts), not
 * tuned. Shared by the laws, which run it on every device, and by the seeded faults, which must break it.
 */
import { newInput, type Value } from "../../core/ir/graph.ts";
import { asValue } from "../../core/ops/constant.ts";
import { mul } from "../../core/ops/elementwise.ts";
import { type HostTensor, upload } from "../../core/tensor.ts";
import { flatten, mapTree } from "../../core/tree.ts";
import { gamma, mergeBound, roundoff } from "../../lora/bound.ts";
import { leafOf } from "../../lora/follow/edit.ts";
import { deltaOf } from "../../lora/follow/effect.ts";
import type { Trainable } from "../../lora/mod.ts";
import { evaluateTerms, fromHost, type OracleTensor } from "../../testing/oracle.ts";
import type { OpenRuntime } from "../runtimes.ts";
import { isHost, type MergeSubject, type Params, stack, type ToyTuned } from "./merge_subjects.ts";
import { rankOf } from "../../lora/follow/effect.ts";

/** A tree of host arrays as tensors of a runtime. */
export function uploadTree<T>(runtime: OpenRuntime, tree: T): T {
  return mapTree<HostTensor, unknown>(tree, (host) => upload(runtime.home, host), isHost) as T;
}

/** Ways to do it wrong: each replaces one part of what the property uses. */
export interface Wrong {
  readonly merge?: (subject: MergeSubject, values: readonly Trainable[], frozen: Params) => Params;
  readonly unmerge?: (subject: MergeSubject, values: readonly Trainable[], merged: Params) => Params;
}

const valuesOf = ({ layers }: MergeSubject) => layers.map((layer) => layer.trainable);

/** `f` of placeholders for trees of host arrays, by the oracle: each output with Σ|terms|. */
function terms<A extends readonly unknown[]>(f: (...args: any[]) => readonly Value[], ...args: A) {
  const flat = flatten<HostTensor>(args, isHost);
  const inputs = flat.leaves.map((host) => newInput({ shape: host.shape, dtype: host.dtype }));
  return evaluateTerms({ inputs, outputs: f(...flat.unflatten(inputs) as unknown[]) }, flat.leaves.map(fromHost));
}

/**
 * The worst |adapted - merged| / bound of a trial: at most 1. `alarm` is the worst as a share of 16·u·Σ|terms|, which
 * random data does not come near, though nothing proves it.
 */
export async function mergeRatio(
  runtime: OpenRuntime,
  subject: MergeSubject,
  wrong: Wrong = {},
): Promise<{ ratio: number; alarm: number }> {
  const { model, trial } = subject;
  const [v, p, x] = uploadTree(runtime, [valuesOf(subject), subject.frozen, subject.x] as const);
  const merge = (v: any, p: any) => wrong.merge ? wrong.merge(subject, v, p) : stack(subject, v).merge(p);
  const run = runtime.jit((v: any, p: any, x: any) => stack(subject, v).apply(p, x));
  const adapted = await hostList(runtime, run(v, p, x));
  const merged = await hostList(
    runtime,
    runtime.jit((p: any, x: any) => model.apply(p, x))(runtime.jit(merge)(v, p), x),
  );

  const sizes = terms((v, p, x) => stack(subject, v).apply(p, x), valuesOf(subject), subject.frozen, subject.x);
  const gain = gainShare(subject);
  const ranks = ranksOf(subject);
  const { ofTerms, ofInputs } = mergeBound({
    k: Math.max(trial.k, trial.n),
    r: ranks.reduce((sum, r) => sum + r + 4, 0),
    dtype: trial.dtype,
  });
  // Each adapter that is merged rounds once.
  const share = ofTerms * subject.layers.length + gain;
  const inputs = fromHost(subject.x.x);
  const width = inputs.shape[1];
  let ratio = 0, alarm = 0;
  sizes.forEach(({ value, terms }, output) =>
    terms.forEach((size, i) => {
      const row = Math.floor(i / value.shape[1]);
      // A row that is looked up is one number of the table, as if multiplied by 1.
      let sum = 1;
      for (let j = 0; j < width; j++) sum += Math.abs(inputs.data[row * width + j]);
      const apart = Math.abs(adapted[output].data[i] - merged[output].data[i]);
      if (apart === 0) return;
      ratio = Math.max(ratio, apart / (share * size + ofInputs * sum * subject.layers.length));
      if (trial.dtype === "f32") alarm = Math.max(alarm, apart / ((16 * roundoff.f32 + gain) * size));
    })
  );
  return { ratio, alarm };
}

/** The greatest rank of what each adapter makes of a weight, whatever its own values are. */
function ranksOf({ layers, model }: MergeSubject): number[] {
  return layers.map((layer) => {
    const { plan, trainable, frozen } = layer.over(model);
    const { leaves, paths } = flatten<any>(frozen);
    const followed = plan.adapted.filter((m) => m.method.effect !== undefined);
    return Math.max(
      0,
      ...followed.map((m) => rankOf(m.method.effect!(m, trainable[m.path], asValue(leaves[leafOf(paths, m)]), {}))),
    );
  });
}

/** By how much of itself a gain that is computed may differ between two computations: the most of any output of any layer. */
function gainShare(subject: MergeSubject): number {
  const gains = subject.layers.map((layer, i) => ({
    i,
    gains: layer.over(subject.model).plan.adapted.some((m) => m.method.gainError !== undefined),
  }));
  return gains.filter((x) => x.gains).reduce((sum, { i }) => {
    const found = terms(
      (values: Trainable[], frozen: Params) => {
        const { tuned } = stack(subject, values);
        const outer = tuned.slice(i + 1).reduceRight((p, one, j) => one.merge(values[i + 1 + j], p), frozen);
        const { leaves, paths } = flatten<any>(outer);
        return tuned[i].plan.adapted.map((m) =>
          m.method.gainError!(m, values[i][m.path], asValue(leaves[leafOf(paths, m)]))
        );
      },
      valuesOf(subject),
      subject.frozen,
    );
    return sum + Math.max(...found.map(({ value }) => Math.max(...value.data)));
  }, 0);
}

/**
 * The worst |W - unmerged| / bound of a trial, for weights that are f32: at most 1. The bound is u(|W| + |W'|) and
 * 2γ·s|A||B|, and where DoRA's gain is divided out again, what it may be off by times |W| + s|A||B|.
 */
export async function unmergeRatio(runtime: OpenRuntime, subject: MergeSubject, wrong: Wrong = {}): Promise<number> {
  const [v, p] = uploadTree(runtime, [valuesOf(subject), subject.frozen] as const);
  const unmerge = (v: any, p: any, merged: any) => {
    if (wrong.unmerge) return wrong.unmerge(subject, v, merged);
    return unmergeAll(stack(subject, v).tuned, v, p, merged);
  };
  const merged = runtime.jit((v: any, p: any) => stack(subject, v).merge(p))(v, p);
  const back = runtime.jit(unmerge)(v, p, merged);
  const [weights, mergedWeights] = await runtime.read([back, merged]);
  const gain = gainShare(subject);
  const base = flatten<HostTensor>(subject.frozen, isHost);
  const [after, between] = [weights, mergedWeights].map((tree) => flatten<HostTensor>(tree, isHost));
  if (after.paths.join() !== base.paths.join()) return Infinity;
  const { deltas, hasGain } = deltaTerms(subject, base.paths);
  const { k } = subject.trial, r = Math.max(...ranksOf(subject));
  let worst = 0;
  base.leaves.forEach(({ data }, i) => {
    const through = between.leaves[between.paths.indexOf(base.paths[i])].data;
    data.forEach((w, j) => {
      const apart = Math.abs(after.leaves[i].data[j] - w);
      const delta = deltas[i]?.[j] ?? 0;
      const whole = Math.abs(w) + delta;
      const bound = roundoff.f32 * (Math.abs(w) + Math.abs(through[j])) * subject.layers.length +
        2 * gamma(2 * r + 10) * delta + (hasGain ? (gain + 2 * gamma(k + 10)) * whole : 0);
      worst = Math.max(worst, apart === 0 ? 0 : apart / bound);
    });
  });
  return worst;
}

/** The adapters taken out in the order in which they were merged, innermost last in and first out. */
export function unmergeAll(tuned: readonly ToyTuned[], values: readonly Trainable[], frozen: Params, merged: Params) {
  return tuned.reduce((p, one, i) => {
    const before = tuned.slice(i + 1).reduceRight((q, outer, j) => outer.merge(values[i + 1 + j], q), frozen);
    return one.unmerge(values[i], p, one.overwritten(values[i], before));
  }, merged);
}

/** Σ|terms| of every change of every leaf, or null where nothing is added to one; and whether anything is multiplied. */
function deltaTerms(
  subject: MergeSubject,
  paths: readonly string[],
): { deltas: (Float64Array | null)[]; hasGain: boolean } {
  const { tuned } = stack(
    subject,
    valuesOf(subject).map((t) => mapTree(t, (x: any) => newInput(x), isHost) as Trainable),
  );
  const deltas: (Float64Array | null)[] = paths.map(() => null);
  let hasGain = false;
  tuned.forEach(({ plan: { adapted } }, i) => {
    for (const m of adapted) {
      const at = paths.indexOf(m.leafPath);
      const [sum] = terms((entry) => {
        const effect = m.method.effect!(m, entry, newInput(m.aval), {});
        hasGain ||= effect.gain !== undefined;
        const delta = deltaOf(effect, m.inAxis, m.aval.shape);
        return delta === null ? [] : [mul(delta, 1)];
      }, subject.layers[i].trainable[m.path]);
      if (sum !== undefined) deltas[at] = deltas[at]?.map((x, j) => x + sum.terms[j]) ?? sum.terms;
    }
  });
  return { deltas, hasGain };
}

async function hostList(runtime: OpenRuntime, tensors: unknown): Promise<OracleTensor[]> {
  return (await runtime.read(tensors) as HostTensor[]).map(fromHost);
}
