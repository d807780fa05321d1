/** Results read back to the host: contents of tensors, and values that are computed first. */
import { numberOf } from "../../core/dtype.ts";
import { nodesOf, Value } from "../../core/ir/graph.ts";
import { asValue } from "../../core/ops/constant.ts";
import { readTensors, Tensor, tensorPrim } from "../../core/tensor.ts";
import { flatten } from "../../core/tree.ts";
import type { HostTree } from "../../core/tree_types.ts";
import { openCpu } from "../device/cpu/cpu.ts";
import type { Device } from "../device/device.ts";
import { computed, jit } from "./jit.ts";
import type { Leaf } from "./launch.ts";
import { checkOptions } from "../../core/options.ts";

/**
 * The contents of every tensor in a tree as they are at the call, after all that was queued: one wait for the whole tree.
 * Tensors of rank 0 become numbers, others `{ shape, dtype, data }`. With `release` the tensors end here.
 */
export async function read<T>(tree: T, options: { release?: boolean } = {}): Promise<HostTree<T>> {
  checkOptions("read", options, { release: true });
  const constants = flatten<Leaf | Value>(tree).leaves.some((x) => x instanceof Value) && !homed(tree);
  if (constants) return await evaluate(tree);
  const { tree: whole, made } = computed(tree);
  const flat = flatten<unknown>(whole, (x) => x instanceof Tensor);
  const tensors = flat.leaves as Tensor[];
  const contents = readTensors(tensors);
  for (const t of options.release ? new Set(tensors) : made) t.dispose();
  const hosts = await contents;
  return flat.unflatten(
    hosts.map((host) => host.shape.length === 0 ? numberOf(host.dtype, host.data[0]) : host),
  ) as HostTree<T>;
}

/**
 * Computes a tree of values and reads it: on the device of the tensors that they are made of. What is made of none, such as
 * `full([2], 1)`, belongs to no device and is computed on `device`, by default on the processor.
 */
export async function evaluate<T>(tree: T, options: { readonly device?: Device } = {}): Promise<HostTree<T>> {
  checkOptions("evaluate", options, { device: true });
  if (options.device !== undefined || homed(tree)) {
    return await read(jit(() => tree, options)(), { release: true }) as HostTree<T>;
  }
  using device = await openCpu({ threads: 1, blas: false });
  return await read(jit(() => tree, { device })(), { release: true }) as HostTree<T>;
}

/** Whether a tree mentions a tensor. */
function homed(tree: unknown): boolean {
  const values = flatten<Leaf | Value>(tree).leaves.map((x) => asValue(x));
  return nodesOf(values).some((node) => node.prim === tensorPrim);
}
