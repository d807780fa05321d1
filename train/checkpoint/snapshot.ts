/** The whole state of a run between two steps, on the host, and back on a device. */
import { formatAval, sameShape } from "../../core/aval.ts";
import { FileError } from "../../core/errors.ts";
import { type HostTensor, type Tensor, type TensorHome, upload } from "../../core/tensor.ts";
import { flatten } from "../../core/tree.ts";
import { read } from "../../kernels/runtime/read.ts";
import type { Cursor } from "../../data/batches.ts";

/** All that a run needs to go on as if it had never stopped. */
export interface Snapshot {
  /** Updates done. */
  readonly step: number;
  /** Tokens read since the run began. */
  readonly tokens: number;
  /** Where the data goes on. */
  readonly cursor: Cursor;
  /** Parameters (`params.…`), the optimiser's state (`optimiser.…`) and the random `key`, by path. */
  readonly tensors: ReadonlyMap<string, HostTensor>;
  /** What the run's watcher remembers, as JSON. */
  readonly watch?: unknown;
  /** The tensors of the watcher's best look, where a resumed run has one. */
  readonly best?: ReadonlyMap<string, HostTensor>;
}

/** A tree's tensors by path, on the host. */
export async function readTensors(tree: unknown): Promise<Map<string, HostTensor>> {
  const { leaves, paths } = flatten<Tensor>(tree);
  const contents: (HostTensor | number)[] = await read(leaves);
  return new Map(contents.map((x, i) => [
    paths[i],
    typeof x === "number" ? { shape: [], dtype: "f32", data: Float32Array.of(x) } : x,
  ]));
}

/**
 * The tree of `like` with the values that {@link readTensors} gave. The tensors of `like` end here.
 *
 * @throws {FileError} when a tensor is missing or of another shape
 */
export function restoreTensors<T>(home: TensorHome, like: T, tensors: ReadonlyMap<string, HostTensor>, from = ""): T {
  const { leaves, paths, unflatten } = flatten<Tensor>(like);
  const found = paths.map((path, i) => {
    const tensor = tensors.get(from + path);
    if (tensor === undefined || !sameShape(tensor.shape, leaves[i].shape) || tensor.dtype !== leaves[i].dtype) {
      throw new FileError(
        `The checkpoint has ${from}${path} as ${
          tensor === undefined ? "nothing" : formatAval(tensor)
        }, and the run needs ` +
          `${formatAval(leaves[i].aval)}: resume with the model and the options that it was written with.`,
      );
    }
    return tensor;
  });
  leaves.forEach((leaf) => leaf.dispose());
  return unflatten(found.map((tensor) => upload(home, tensor))) as T;
}
