/** Several adapters of one model at once. */
import { OptionError } from "../../core/errors.ts";
import { nearest } from "../../core/host/nearest.ts";
import type { Leaf } from "../../core/model.ts";
import type { Operand } from "../../core/tensor.ts";
import { flatten } from "../../core/tree.ts";
import { applyActive } from "../follow/active.ts";
import type { Active } from "../follow/edit.ts";
import type { Tuned } from "../lora.ts";
import { mergeInto } from "../merge.ts";
import type { Match, Trainable } from "../options.ts";
import { checkMembers, checkOptions } from "../../core/options.ts";
import { checkTuned } from "../check_trainable.ts";

/** The values of several adapters, by name. */
export type Trainables<K extends string = string> = Readonly<Record<K, Trainable>>;

/** How strongly each adapter acts: a factor on its scaling, 1 where none is given. Numbers are data: they compile nothing. */
export type Weights<K extends string = string> = { readonly [name in K]?: Operand };

/** A model with several adapters, each of which adds its own change to what the base gives. */
export interface TunedTogether<P, I, O, K extends string = string> {
  /** What each adapter trains, by name. */
  readonly trainable: Trainables<K>;
  /** The base, shared. */
  readonly frozen: P;
  /** What each adapter adapts. */
  readonly matched: Readonly<Record<K, readonly Match[]>>;
  /** The function with all that are in `trainable` active; leave one out and it is not. */
  apply(
    trainable: Partial<Trainables<K>>,
    frozen: P,
    inputs: I,
    options?: { readonly key?: Operand; readonly weights?: Weights<K> },
  ): O;
  /** Parameters with which the model's own `apply` is the same function. */
  merge(
    trainable: Partial<Trainables<K>>,
    frozen: P,
    options?: { readonly weights?: Weights<K>; readonly tied?: "split" | "peft" },
  ): P;
}

/**
 * Adapters of one model, active at once, each with a weight: y = x·W + Σ wᵢ·sᵢ·(x·Aᵢ)·Bᵢ. Which ones act is decided by the
 * trees that `apply` is given. What an adapter trains of the model itself is not weighted; no two may train the same leaf.
 *
 * @throws {OptionError} when they are not of one model, or a name is not one of theirs
 *
 * @example
 * ```ts
 * import { evaluate, lora, matmul, newInput, openDevice, type Operand, tensor, together } from "@lowrank/lowrank";
 *
 * using device = await openDevice("cpu");
 * const model = {
 *   params: { up: { weight: tensor(device, [[1, 2], [3, 4]]) } },
 *   sample: newInput({ shape: [1, 2], dtype: "f32" }),
 *   apply: (p: { up: { weight: Operand } }, x: Operand) => matmul(x, p.up.weight),
 * };
 * const options = { r: 1, alpha: 1, targets: "all-linear" } as const;
 * const both = together({ formal: lora(model, options), brief: lora(model, { ...options, seed: 1 }) });
 * const x = tensor(device, [[1, -1]]);
 * console.log(await evaluate(both.apply(both.trainable, both.frozen, x, { weights: { formal: 0.7, brief: 0.4 } })));
 * ```
 */
export function together<P, I, O, K extends string>(
  adapters: Readonly<Record<K, Tuned<P, I, O>>>,
): TunedTogether<P, I, O, K> {
  checkMembers("together", "adapters by name, { name: tuned, … }", adapters, []);
  const names = Object.keys(adapters) as K[];
  for (const name of names) checkTuned(`together, for "${name}",`, adapters[name]);
  if (names.length === 0) throw new OptionError("together needs at least one adapter");
  const [first] = names.map((name) => adapters[name]);
  const leaves = flatten<Leaf>(first.frozen).leaves;
  for (const name of names) {
    const own = flatten<Leaf>(adapters[name].frozen).leaves;
    if (own.length !== leaves.length || own.some((leaf, i) => leaf !== leaves[i])) {
      throw new OptionError(
        `"${name}" is an adapter of other weights than "${
          names[0]
        }": adapt one model, and turn PiSSA's into plain ones ` +
          `by pissaToLora first`,
      );
    }
  }
  const actives = (given: Partial<Trainables<K>>, weights: Weights<K> = {}): Active[] => {
    for (const name of [...Object.keys(given), ...Object.keys(weights)]) {
      if (names.includes(name as K)) continue;
      const near = nearest(name, names);
      throw new OptionError(`there is no adapter "${name}"${near === null ? "" : `: did you mean "${near}"?`}`);
    }
    return names.filter((name) => given[name] !== undefined).map((name) => {
      adapters[name].check(given[name]!);
      return { plan: adapters[name].plan, trainable: given[name]!, adapterWeight: weights[name] };
    });
  };
  const each = <T>(f: (tuned: Tuned<P, I, O>) => T) =>
    Object.fromEntries(names.map((name) => [name, f(adapters[name])])) as Record<K, T>;
  return {
    trainable: each((tuned) => tuned.trainable),
    frozen: first.frozen,
    matched: each((tuned) => tuned.matched),
    apply: (given, frozen, inputs, options = {}) => {
      checkOptions("apply", options, { key: true, weights: true });
      const { key, weights } = options;
      return applyActive<P, I, O>(first.model, actives(given, weights), { frozen, inputs, key });
    },
    merge: (given, frozen, options = {}) => {
      checkOptions("merge", options, { weights: true, tied: true });
      return mergeInto(frozen, actives(given, options.weights), options.tied !== "peft");
    },
  };
}
