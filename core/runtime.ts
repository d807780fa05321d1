/** Which arguments of a jitted function give their memory to its results. */
export interface JitOptions {
  /** Positions of arguments. Their tensors hold no data any more after the call. */
  readonly donate?: readonly number[];
}

/**
 * What runs functions of trees of tensors: the kernels, or the oracle in tests. Rooms that may not know the kernels (models)
 * are handed one.
 */
export interface Runtime {
  /** The function, compiled for the avals and the device of its arguments: a tree of tensors, at once. */
  jit(f: (...args: any[]) => unknown, options?: JitOptions): (...args: any[]) => any;
  /** The tree with its tensors' contents ({@link HostTensor}): one wait for all of them. */
  read(tree: unknown): Promise<any>;
}
