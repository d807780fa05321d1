/** What can be trained: an adapter beside a frozen model, or all of a model. */
import { OptionError } from "../core/errors.ts";
import type { Value } from "../core/ir/graph.ts";
import type { Leaf, Model, TokenInputs } from "../core/model.ts";
import type { Operand } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { checkMembers } from "../core/options.ts";

/** What is trained: parameters, and a function from them and the frozen rest to logits. What `lora` returns is one. */
export interface Trainee<P = unknown, F = unknown> {
  /** What is trained. */
  readonly trainable: P;
  /** What is not. */
  readonly frozen: F;
  /** The model; one that was loaded has the tokenizer, the context and the padding that {@link train} would ask for. */
  readonly model?: object;
  /** How many places of the model's context are taken by what the adapter puts in front of a text; none by default. */
  readonly inFront?: number;
  /** Logits; with a key, dropout. */
  apply(trainable: P, frozen: F, inputs: TokenInputs, options?: { readonly key?: Operand }): Value;
}

/**
 * The model as no step changes it: without its adapter, or with all of its weights as they were before.
 *
 * @throws {OptionError} where what is trained does not say which model it is of
 */
export function baseOf({ model }: Trainee<any, any>): Pick<Model<unknown, TokenInputs, Value>, "params" | "apply"> {
  if (model && "params" in model && "apply" in model) return model as Model<unknown, TokenInputs, Value>;
  throw new OptionError(
    "what is trained has no model that it is an adapter of, to compare it with: train what lora or wholeModel gave",
  );
}

/**
 * All of a model's parameters as what is trained; nothing is frozen.
 *
 * @throws {OptionError} when a parameter is not held as f32, where small updates would be rounded away
 */
export function wholeModel<P>(model: Model<P, TokenInputs, Value>): Trainee<P, null> {
  checkMembers("wholeModel", "a model", model, ["params", "apply"]);
  const { leaves, paths } = flatten<Leaf>(model.params);
  const narrow = leaves.findIndex(({ dtype }) => dtype !== "f32");
  if (narrow >= 0) {
    throw new OptionError(
      `${paths[narrow]} is held as ${leaves[narrow].dtype}, where the updates of training would be rounded away: ` +
        `load the model with the dtype f32 to train all of it.`,
    );
  }
  return { trainable: model.params, frozen: null, model, apply: (params, _, inputs) => model.apply(params, inputs) };
}
