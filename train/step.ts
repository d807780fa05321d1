/** One training step as a pure function of its state: loss, gradients, clipping, the optimiser, and a guard. */
import type { Leaf } from "../core/model.ts";
import { valueAndGrad } from "../core/transforms/grad.ts";
import { add, max, min } from "../core/ops/elementwise.ts";
import type { Operand } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { allFinite, clipByGlobalNorm, globalNorm, type Optimiser, selectTree } from "./optimiser.ts";
import type { Scalar } from "../core/tree_types.ts";

/** What a step carries on to the next. */
export interface TrainState<P, S = unknown> {
  readonly params: P;
  readonly optimiser: S;
}

/** Scalars by name. */
type Scalars = Readonly<Record<string, Scalar>>;

/** What a step says of itself, f32[] each. */
export interface StepReport {
  /** The loss before the update. */
  readonly loss: Scalar;
  /** The gradients' global norm before clipping. */
  readonly gradNorm: Scalar;
  /** What else was measured on the way, before the update. */
  readonly measured: Scalars;
}

/** A loss (f32[]) of parameters and whatever else it reads; and what is measured on the way, where anything is. */
export type Loss<P> = (params: P, ...rest: any[]) => Scalar | readonly [Scalar, Scalars];

/** What a step does with gradients. */
export interface UpdateOptions<S> {
  readonly optimiser: Optimiser<S>;
  /** The most that the gradients' global norm may be; null leaves them as they are. */
  readonly clip: number | null;
}

/**
 * The update that follows from a loss and its gradients. A loss or a norm that is not finite leaves the state as it was:
 * the host, which learns of it later, finds the last good one.
 */
export function guardedUpdate<P, S>(
  state: TrainState<P, S>,
  loss: Scalar,
  grads: P,
  lr: Operand,
  { optimiser, clip }: UpdateOptions<S>,
  measured: Scalars = {},
): { state: TrainState<P, S>; report: StepReport } {
  const gradNorm = globalNorm(grads);
  const clipped = clip === null ? grads : clipByGlobalNorm(grads, clip, gradNorm);
  const next = optimiser.update(state.params, clipped, state.optimiser, lr);
  const updated = { params: next.params, optimiser: next.state };
  return { state: selectTree(allFinite(loss, gradNorm), updated, state), report: { loss, gradNorm, measured } };
}

/** Loss, what was measured, and gradients. */
function differentiated<P>(loss: Loss<P>): (params: P, ...rest: unknown[]) => GradientSum<P> {
  const both = valueAndGrad((params: P, ...rest: unknown[]) => {
    const made = loss(params, ...rest);
    return Array.isArray(made) ? made as unknown as [Scalar, Scalars] : [made as Scalar, {} as Scalars] as const;
  }, { hasAux: true });
  return (params, ...rest) => {
    const [[loss, measured], grads] = both(params as never, ...rest as never[]);
    return { loss, measured: measured as Scalars, grads: grads as P };
  };
}

/** A whole step: `(state, lr, ...rest)` to the new state and its report. Give it to `jit` with `donate: [0]`. */
export function makeStep<P, S>(
  loss: Loss<P>,
  options: UpdateOptions<S>,
): (state: TrainState<P, S>, lr: Operand, ...rest: unknown[]) => ReturnType<typeof guardedUpdate<P, S>> {
  const withGradients = differentiated(loss);
  return (state, lr, ...rest) => {
    const { loss, measured, grads } = withGradients(state.params, ...rest);
    return guardedUpdate(state, loss, grads, lr, options, measured);
  };
}

/** Loss and gradients of some micro-batches. */
export interface GradientSum<P> {
  readonly loss: Scalar;
  readonly measured: Scalars;
  readonly grads: P;
}

/** What {@link makeAccumulation} gives. */
export interface Accumulation<P> {
  first(params: P, ...rest: unknown[]): GradientSum<P>;
  more(sum: GradientSum<P>, params: P, ...rest: unknown[]): GradientSum<P>;
}

/** How two numbers of one name become one: two batches' sums are added, unless the name says otherwise. */
export type Joins = Readonly<Record<string, "min" | "max">>;

/** What two batches come to together. */
export function joined(a: Scalars, b: Scalars, joins: Joins = {}): Scalars {
  const join = { min, max };
  return Object.fromEntries(
    Object.entries(a).map(([name, x]) => [name, (joins[name] ? join[joins[name]] : add)(x, b[name]) as Scalar]),
  );
}

/** Loss and gradients summed over micro-batches: the first of them, and one more added to a sum. */
export function makeAccumulation<P>(loss: Loss<P>, joins?: Joins): Accumulation<P> {
  const withGradients = differentiated(loss);
  return {
    first: withGradients,
    more: (sum, params, ...rest) => {
      const { loss, measured, grads } = withGradients(params, ...rest);
      const before = flatten<Leaf>(sum.grads);
      const more = flatten<Leaf>(grads).leaves;
      return {
        loss: add(sum.loss, loss),
        measured: joined(sum.measured, measured, joins),
        grads: before.unflatten(before.leaves.map((leaf, i) => add(leaf, more[i]))) as P,
      };
    },
  };
}
