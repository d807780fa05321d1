/** Layers as Hugging Face stores them, and activations by the names that configurations give them. */
import type { Leaf } from "../../core/model.ts";
import { FileError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import { gelu, geluTanh } from "../../core/nn/activation.ts";
import { matmul } from "../../core/ops/contract.ts";
import { add, convert } from "../../core/ops/elementwise.ts";
import type { ModelConfig } from "../load/config.ts";

/** A linear layer: weight [out, in], bias [out] where the model has biases. */
export interface Linear {
  /** [out, in]. */
  readonly weight: Leaf;
  /** [out]. */
  readonly bias?: Leaf;
}

/** Scale and shift, [D] each. */
export interface LayerNormParams {
  /** The scale. */
  readonly weight: Leaf;
  /** The shift. */
  readonly bias: Leaf;
}

/** x [..., in] through a linear layer, to f32[..., out]. */
export function linear(x: Value, { weight, bias }: Linear): Value {
  const y = matmul(x, weight, { transposeB: true });
  return bias === undefined ? y : add(y, convert(bias, "f32"));
}

/** The shapes of a linear layer's weights. */
export const linearShapes = (from: number, to: number, bias: boolean) =>
  bias ? { weight: [to, from], bias: [to] } : { weight: [to, from] };

const activations = { gelu, gelu_new: geluTanh, gelu_pytorch_tanh: geluTanh };

/** The name of an activation that is built here. */
export type ActivationName = keyof typeof activations;

/** The function of that name. */
export const activationOf = (name: ActivationName): (x: Value) => Value => activations[name];

/** The activation that a configuration asks for. Throws a {@link FileError} for one that is not supported here. */
export function readActivation(config: ModelConfig, key: string, fallback: ActivationName): ActivationName {
  return oneOf(config, key, Object.keys(activations) as ActivationName[], fallback);
}

/** The text at `key`, one of those known. Throws a {@link FileError} that names them for any other. */
export function oneOf<T extends string>(config: ModelConfig, key: string, known: readonly T[], fallback: T): T {
  const value = config.text(key, fallback);
  if ((known as readonly string[]).includes(value)) return value as T;
  throw new FileError(`${config.path} says ${key} is ${value}; supported: ${known.join(", ")}.`);
}

/** Refuses switches that are not as every model that is built here has them. */
export function demand(config: ModelConfig, expected: Readonly<Record<string, boolean>>): void {
  for (const [key, value] of Object.entries(expected)) {
    if (config.flag(key, value) !== value) {
      throw new FileError(`${config.path} says ${key} is ${!value}, and only models with ${value} can be built.`);
    }
  }
}

/** Shapes by the paths of weights: `encoder.layer.0.output.dense.bias`. */
export type FlatShapes = Readonly<Record<string, readonly number[]>>;

/** The tree that paths spell; numbers are places in a list. */
export function treeOf(flat: FlatShapes): Record<string, unknown> {
  const root: Record<string, any> = {};
  for (const [path, shape] of Object.entries(flat)) {
    const parts = path.split(".");
    let at: any = root;
    parts.slice(0, -1).forEach((part, i) => at = at[part] ??= /^\d+$/.test(parts[i + 1]) ? [] : {});
    at[parts.at(-1)!] = shape;
  }
  return root;
}

/** What stands at a path of a tree. */
export const at = (tree: unknown, path: string): unknown =>
  path.split(".").reduce((node, part) => (node as Record<string, unknown> | undefined)?.[part], tree);

/** The linear layer at a path. */
export const linearAt = (tree: unknown, path: string): Linear => at(tree, path) as Linear;

/** The shapes of a linear layer at a path. */
export const flatLinear = (path: string, from: number, to: number, bias = true): FlatShapes => ({
  [`${path}.weight`]: [to, from],
  ...(bias && { [`${path}.bias`]: [to] }),
});

/** The shapes of a norm at a path. */
export const flatNorm = (path: string, width: number, bias = true): FlatShapes => ({
  [`${path}.weight`]: [width],
  ...(bias && { [`${path}.bias`]: [width] }),
});
