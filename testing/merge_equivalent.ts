import fc from "fast-check";
import { type Aval, sizeOf } from "../core/aval.ts";
import { LowrankError } from "../core/errors.ts";
import type { Value } from "../core/ir/graph.ts";
import type { Leaf, Model } from "../core/model.ts";
import { flatten } from "../core/tree.ts";
import { lora, type LoraOptions } from "../lora/mod.ts";
import { fromOracle, type OracleTensor, runOracle } from "./oracle.ts";
import { noise, randomTensor } from "./toy_models.ts";
import { checkObject } from "../core/options.ts";

/** What to try, and how often. */
export interface MergeOptions<P> extends Partial<Omit<LoraOptions<P>, "dropout" | "seed">> {
  /** The modules to adapt. `"all-linear"` by default. */
  readonly targets?: LoraOptions<P>["targets"];
  /** How many random models, adapters and inputs are tried. 50 by default. */
  readonly runs?: number;
  /** What the tries are drawn from. 0 by default. */
  readonly seed?: number;
  /** Contents for an input of the model, such as token ids below its vocabulary. By default floats in [-1, 1), integers 0. */
  readonly input?: (aval: Aval, random: () => number) => ArrayLike<number>;
}

/** What one run draws. */
interface Trial {
  readonly size: number;
  readonly rank: number;
  readonly alpha: number;
  readonly rslora: boolean;
  readonly seed: number;
}

/**
 * Checks that a model adapted by {@link lora} and the same model with merged weights are one function: random weights,
 * ranks, alphas and adapters (B not zero) of whatever kind the options ask for, on the model's sample inputs, in float64. A
 * failure is shrunk to the smallest size, rank and alpha that fail, and printed.
 *
 * @param model only its shapes are used; a function of a size gives models to shrink over
 * @throws {LowrankError} that names the smallest trial for which the two functions differ
 *
 * @example
 * ```ts
 * import { matmul, newInput, tanh, type Value } from "@lowrank/lowrank";
 * import { assertMergeEquivalent } from "@lowrank/lowrank/testing";
 *
 * const placeholder = (...shape: number[]) => newInput({ shape, dtype: "f32" });
 * assertMergeEquivalent((size: number) => {
 *   const params = { up: { weight: placeholder(4, 3 * size) }, down: { weight: placeholder(3 * size, 2) } };
 *   const apply = (p: typeof params, x: Value) => matmul(tanh(matmul(x, p.up.weight)), p.down.weight);
 *   return { params, apply, sample: placeholder(size, 4) };
 * });
 * ```
 */
export function assertMergeEquivalent<P, I, O>(
  model: (size: number) => Model<P, I, O>,
  options?: MergeOptions<P>,
): void;
/** The same for a model of one size. */
export function assertMergeEquivalent<P, I, O>(model: Model<P, I, O>, options?: MergeOptions<P>): void;
export function assertMergeEquivalent(
  model: Model | ((size: number) => Model),
  options: MergeOptions<unknown> = {},
): void {
  checkObject("assertMergeEquivalent", options, { runs: true, targets: true });
  const { runs = 50, seed = 1 } = options;
  const trial = fc.record<Trial>({
    size: typeof model === "function" ? fc.integer({ min: 1, max: 6 }) : fc.constant(1),
    rank: fc.integer({ min: 1, max: 8 }),
    alpha: fc.integer({ min: 1, max: 32 }),
    rslora: fc.boolean(),
    seed: fc.nat(),
  });
  const result = fc.check(
    fc.property(trial, (one) => {
      const apart = difference(typeof model === "function" ? model(one.size) : model, one, options);
      if (apart !== null) throw new LowrankError(apart);
    }),
    { numRuns: runs, seed },
  );
  if (!result.failed) return;
  const [one] = result.counterexample as [Trial];
  const error = result.errorInstance as Error;
  if (!error.message.startsWith(apartBy)) throw error;
  const size = typeof model === "function" ? `size ${one.size}, ` : "";
  throw new LowrankError(
    `adapted and merged are not the same function at ${size}r ${options.r ?? one.rank}, alpha ${
      options.alpha ?? one.alpha
    }, ` +
      `rslora ${options.rslora ?? one.rslora}, seed ${one.seed}: ${error.message}`,
  );
}

const apartBy = "they differ by";

/** The sentence that says how far a trial's two functions are apart, or null. */
function difference<P, I>(model: Model<P, I, unknown>, trial: Trial, options: MergeOptions<P>): string | null {
  const { targets = "all-linear", input = defaultInput, runs: _runs, ...rest } = options;
  const make = (r: number) => lora(model, { alpha: trial.alpha, rslora: trial.rslora, ...rest, r, targets });
  // The rank of a small layer is limited by its size.
  const sizes = make(options.r ?? 1).matched.flatMap(({ shape, part }) =>
    part ? [...shape, part.end - part.start] : shape
  );
  const most = Math.min(...sizes);
  const tuned = make(options.r ?? Math.min(trial.rank, most));
  const random = (tree: unknown, seed: number, scale: (path: string) => number = () => 1) => {
    const flat = flatten<Leaf>(tree);
    return flat.unflatten(
      flat.leaves.map(({ aval }, i) => fromOracle(randomTensor(aval.shape, seed + 13 * i, scale(flat.paths[i])))),
    );
  };
  const params = random(model.params, trial.seed);
  const adapters = random(tuned.trainable, trial.seed + 1, (path) => {
    const m = tuned.matched.find((m) => path === `${m.path}.B` || path === `${m.path}.biasB`);
    return m ? 1 / (Math.abs(m.scaling) * Math.sqrt(m.r)) : 1;
  });
  const next = noise(trial.seed + 2);
  const sample = flatten<Value>(model.sample);
  const inputs = sample.unflatten(sample.leaves.map(({ aval }): OracleTensor => ({
    ...aval,
    data: Float64Array.from(input(aval, next)),
  })));
  const run = (f: (t: any, p: any, x: any) => unknown) => leavesOf(runOracle(f, adapters, params, inputs));
  const adapted = run((t, p, x) => tuned.apply(t, p, x));
  const merged = run((t, p, x) => model.apply(tuned.merge(t, p), x));
  for (const [i, want] of adapted.entries()) {
    const largest = want.data.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    const apart = want.data.reduce((most, x, j) => Math.max(most, Math.abs(x - merged[i].data[j])), 0);
    // Half of float64's digits: what is wrong is wrong by more, what is right is right by far more.
    if (!(apart <= 2 ** -26 * largest)) {
      return `${apartBy} ${apart} in output ${i}, whose largest element is ${largest}`;
    }
  }
  return null;
}

const leavesOf = (tree: unknown) =>
  flatten<OracleTensor>(tree, (x) => (x as OracleTensor | null)?.data instanceof Float64Array).leaves;

const defaultInput: NonNullable<MergeOptions<unknown>["input"]> = ({ shape, dtype }, random) =>
  Float64Array.from({ length: sizeOf(shape) }, dtype === "f32" ? random : () => 0);
