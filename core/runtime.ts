/** How rooms that may not know the kernels run functions: by what the tensors that they are given live on. */
import { DeviceError } from "./errors.ts";
import { Tensor, type TensorHome } from "./tensor.ts";
import { flatten } from "./tree.ts";
import type { Arguments, Tensors } from "./tree_types.ts";

/**
 * The function, compiled for the avals and the device of its arguments: a tree of tensors, at once. Arguments at the
 * positions `donate` give their memory to the results and hold no data any more.
 */
export interface Jit {
  <A extends readonly unknown[], R>(
    f: (...args: A) => R,
    options?: { readonly donate?: readonly number[] },
  ): (...args: Arguments<A>) => Tensors<R>;
}

/**
 * Where the tensors of a tree live.
 *
 * @throws {DeviceError} when it has none: the parameters of a model that is not loaded are placeholders
 */
export function homeOf(tree: unknown): TensorHome {
  const tensor = flatten(tree).leaves.find((x) => x instanceof Tensor);
  if (tensor instanceof Tensor) return tensor.home;
  throw new DeviceError(
    "the parameters hold no tensor, so that there is no device to compute on: load the model first",
  );
}

/** What `make` gives for the compiler of a home: made once for each compiler, and kept. */
export function perCompiler<T>(make: (jit: Jit) => T): (home: TensorHome) => T {
  const made = new WeakMap<object, T>();
  return ({ jit, description }) => {
    if (jit === undefined) throw new DeviceError(`nothing can be computed on ${description}`);
    const known = made.get(jit) ?? make(jit as Jit);
    made.set(jit, known);
    return known;
  };
}
