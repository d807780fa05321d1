/** Optimisers as pure functions over trees: a step takes parameters, gradients and state, and returns new ones. */
import { OptionError } from "../core/errors.ts";
import type { Leaf } from "../core/model.ts";
import type { Value } from "../core/ir/graph.ts";
import { full, reduceSum } from "../core/ops/broadcast.ts";
import { add, and, div, isFiniteValue, min, mul, select, sqrt, sub } from "../core/ops/elementwise.ts";
import { asValue, constant } from "../core/ops/constant.ts";
import type { Operand } from "../core/tensor.ts";
import { flatten, mapTree } from "../core/tree.ts";
import type { Scalar } from "../core/tree_types.ts";
import { checkOptions } from "../core/options.ts";

/** What an optimiser keeps of every parameter between steps, and what it does in a step. */
export interface Optimiser<S = unknown> {
  /** The state before the first step, for parameters of these shapes. */
  init<P>(params: P): S;
  /** New parameters (the tree of `params`) and the new state. `lr` is data, so that a schedule compiles nothing. */
  update<P>(params: P, grads: P, state: S, lr: Operand): { params: P; state: S };
}

/** AdamW's options, with PyTorch's defaults. */
export interface AdamWOptions {
  /** How slowly the averages of the gradient and of its square forget. Default [0.9, 0.999]. */
  readonly betas?: readonly [number, number];
  /** Added to the root of the second average. Default 1e-8. */
  readonly eps?: number;
  /** The share of a parameter, times the learning rate, that each step takes off. Default 0.01. */
  readonly weightDecay?: number;
  /** Leaves that learn otherwise, by their path in the tree of parameters and their shape. */
  readonly groups?: (path: string, shape: readonly number[]) => Group | undefined;
}

/** How a leaf learns where it is not as the others. */
export interface Group {
  /** A factor on the learning rate. */
  readonly rate?: number;
  /** Decoupled, as a share of the rate. */
  readonly weightDecay?: number;
}

/** AdamW's state: both averages of the gradients, and what their first steps are short of. */
export interface AdamWState {
  /** Trees as the parameters, f32. */
  readonly mean: unknown;
  /** The running mean of squared gradients. */
  readonly square: unknown;
  /** f32[] each: 1 - beta^t after t steps. */
  readonly corrections: readonly [Leaf, Leaf];
}

/** Refuses settings of Adam that are out of their ranges. @throws {OptionError} */
export function checkAdam(
  name: string,
  { betas, eps, weightDecay }: Required<Pick<AdamWOptions, "betas" | "eps" | "weightDecay">>,
): void {
  for (const beta of betas) {
    if (!(beta >= 0 && beta < 1)) throw new OptionError(`a beta of ${name} is ${beta}: give two numbers in [0, 1)`);
  }
  if (!(eps >= 0)) throw new OptionError(`eps of ${name} is ${eps}: give a number of at least 0`);
  if (!(weightDecay >= 0)) {
    throw new OptionError(`weightDecay of ${name} is ${weightDecay}: give a number of at least 0`);
  }
}

/**
 * AdamW: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2, in the order of operations of
 * `torch.optim.AdamW`. The corrections 1 - beta^t are kept as c ← beta·c + (1 - beta): taken from a power they would lose
 * three digits to cancellation at the first steps.
 *
 * @throws {OptionError} when an option is out of its range
 */
export function adamw(options: AdamWOptions = {}): Optimiser<AdamWState> {
  checkOptions("adamw", options, { betas: true, eps: true, weightDecay: true, groups: true });
  const { betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01, groups = () => undefined } = options;
  checkAdam("AdamW", { betas, eps, weightDecay });
  return {
    init: startAdam,
    update: (params, grads, state, lr) => {
      const corrections = nextCorrections(state, betas);
      const root = sqrt(corrections[1]);
      const steps = new Map<string, { step: Value; kept: Value | null }>();
      const stepOf = ({ rate = 1, weightDecay: decay = weightDecay }: Group = {}) => {
        const key = `${rate} ${decay}`;
        const own = rate === 1 ? asValue(lr) : mul(lr, rate);
        if (!steps.has(key)) {
          steps.set(key, { step: div(own, corrections[0]), kept: decay === 0 ? null : sub(1, mul(own, decay)) });
        }
        return steps.get(key)!;
      };
      return updateLeaves(params, grads, { ...state, corrections }, ({ path, weight: w, gradient: g, ...before }) => {
        const mean = add(before.mean, mul(sub(g, before.mean), 1 - betas[0]));
        const square = add(mul(before.square, betas[1]), mul(mul(g, g), 1 - betas[1]));
        const scale = add(div(sqrt(square), root), eps);
        const { step, kept } = stepOf(groups(path, w.shape));
        const decayed = kept === null ? w : mul(w, kept);
        return { weight: sub(decayed, mul(step, div(mean, scale))), mean, square };
      });
    },
  };
}

/** Adam's state before the first step. */
export function startAdam(params: unknown): AdamWState {
  const zeros = () => mapTree<Leaf, Value>(params, (leaf) => full(leaf.shape, 0));
  return { mean: zeros(), square: zeros(), corrections: [full([], 0), full([], 0)] };
}

/** What both averages are short of after one more step. */
export function nextCorrections({ corrections }: AdamWState, betas: readonly [number, number]): [Value, Value] {
  return betas.map((beta, i) => add(mul(corrections[i], beta), 1 - beta)) as [Value, Value];
}

/** A parameter with both averages of its gradients. */
interface Averaged {
  readonly weight: Leaf;
  readonly mean: Leaf;
  readonly square: Leaf;
}

/** Every parameter and its averages after a step, each by itself; the corrections are those of `state`. */
export function updateLeaves<P>(
  params: P,
  grads: P,
  { mean, square, corrections }: AdamWState,
  update: (leaf: Averaged & { readonly path: string; readonly gradient: Leaf }) => Averaged,
): { params: P; state: AdamWState } {
  const { leaves, paths, unflatten } = flatten<Leaf>(params);
  const [gradients, means, squares] = [grads, mean, square].map((tree) => flatten<Leaf>(tree).leaves);
  const next = leaves.map((weight, i) =>
    update({ path: paths[i], weight, gradient: gradients[i], mean: means[i], square: squares[i] })
  );
  const tree = (part: keyof Averaged) => unflatten(next.map((leaf) => leaf[part]));
  return { params: tree("weight") as P, state: { mean: tree("mean"), square: tree("square"), corrections } };
}

/** LoRA+'s rates: see {@link loraPlus}. */
export interface LoraPlusOptions {
  /** How much faster B learns than A, at least 1. The paper starts at 16. */
  readonly ratio: number;
  /** The learning rate of the run: only needed where an embedding is adapted, whose own rate is given as such. */
  readonly lr?: number;
  /** The learning rate of adapted embeddings. Default 1e-6, as in PEFT. */
  readonly embeddingLr?: number;
}

/**
 * LoRA+ as groups of {@link adamw}: B and all that is one-dimensional learns `ratio` times as fast as A, adapted embeddings at
 * a rate of their own, and biases do not decay. Source: Hayou, Ghosh and Yu 2024, "LoRA+: Efficient Low Rank Adaptation of
 * Large Models", in the groups of PEFT's `create_loraplus_optimizer`.
 *
 * @param matched the adapted modules: `tuned.matched`
 * @throws {OptionError} when the ratio is below 1, or an embedding is adapted and `lr` is not given
 *
 * @example
 * ```ts
 * import { adamw, loraPlus } from "@lowrank/lowrank/train";
 *
 * const matched = [{ path: "h.0.attn.c_attn", kind: "linear" as const }];
 * const optimiser = adamw({ groups: loraPlus(matched, { ratio: 16 }) });
 * ```
 */
export function loraPlus(
  matched: readonly { readonly path: string; readonly kind: "linear" | "embedding" }[],
  options: LoraPlusOptions,
): NonNullable<AdamWOptions["groups"]> {
  checkOptions("loraPlus", options, { ratio: true, lr: true, embeddingLr: true });
  const { ratio, lr, embeddingLr = 1e-6 } = options;
  if (!(ratio >= 1)) {
    throw new OptionError(`the ratio of LoRA+ is ${ratio}: B learns at least as fast as A, so give 1 or more`);
  }
  const embeddings = matched.filter((m) => m.kind === "embedding");
  if (embeddings.length > 0 && !(lr !== undefined && lr > 0)) {
    throw new OptionError(
      `LoRA+ gives "${
        embeddings[0].path
      }" the learning rate ${embeddingLr}, and needs the run's as lr beside it, not ${lr}`,
    );
  }
  const slow = new Set(embeddings.flatMap(({ path }) => ["A", "B"].map((part) => `${path}.${part}`)));
  return (path, shape) => {
    if (slow.has(path)) return { rate: embeddingLr / lr! };
    if (!path.endsWith(".B") && shape.length !== 1) return undefined;
    return /\.(B|magnitude)$/.test(path) ? { rate: ratio } : { rate: ratio, weightDecay: 0 };
  };
}

/** f32[]: the length of all leaves of a tree taken as one vector. */
export function globalNorm(tree: unknown): Scalar {
  const squares = flatten<Leaf>(tree).leaves.map((leaf) => {
    const square = mul(leaf, leaf);
    // Rows first: their sums are as many as there are rows, which is work for every thread.
    return reduceSum(square.shape.length > 1 ? reduceSum(square, -1) : square);
  });
  return squares.length === 0 ? constant(0) as Scalar : sqrt(squares.reduce((sum, square) => add(sum, square)));
}

/** Shrinks a tree of gradients to a global norm of at most `most`, as `torch.nn.utils.clip_grad_norm_` does. */
export function clipByGlobalNorm<P>(grads: P, most: Operand, norm: Value = globalNorm(grads)): P {
  const scale = min(div(most, add(norm, 1e-6)), 1);
  return mapTree<Leaf, Value>(grads, (leaf) => mul(leaf, scale)) as P;
}

/** Whether every one of some scalars (f32[]) is finite: bool[]. */
export function allFinite(...scalars: readonly Operand[]): Value {
  return scalars.map((x) => isFiniteValue(asValue(x))).reduce((all, one) => and(all, one));
}

/** `next` where `ok` (bool[]) holds, else `previous`: two trees of one structure, leaf by leaf. */
export function selectTree<T>(ok: Value, next: T, previous: T): T {
  const old = flatten<Leaf>(previous).leaves;
  let i = 0;
  return mapTree<Leaf, Value>(next, (leaf) => select(ok, leaf, old[i++])) as T;
}
