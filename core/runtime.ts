/**
 * What runs functions of trees of tensors: the kernels, or the oracle in tests. Rooms that may not know the kernels (models)
 * are handed one.
 */
export interface Runtime {
  /**
   * The function, compiled for the avals and the device of its arguments: a tree of tensors, at once. Arguments at the
   * positions `donate` give their memory to the results and hold no data any more.
   */
  jit(f: (...args: any[]) => unknown, options?: { readonly donate?: readonly number[] }): (...args: any[]) => any;
  /** The tree with its tensors' contents ({@link HostTensor}): one wait for all of them. */
  read(tree: unknown): Promise<any>;
}
