/**
 * Trees of arrays: nested plain objects and arrays whose leaves are values, tensors or numbers. Anything else in a tree
 * (a string, a boolean, undefined) belongs to its structure.
 */
import { LowrankError } from "./errors.ts";
import { Value } from "./ir/graph.ts";
import { Tensor } from "./tensor.ts";

/** A tree taken apart: its leaves in order, their paths, and how to put others in their places. */
export interface FlatTree<L> {
  /** The leaves in order. */
  readonly leaves: L[];
  /** Their paths: `h.0.attn.weight`. */
  readonly paths: string[];
  /** Equal for two trees of the same structure. */
  readonly structure: string;
  /** A tree of this structure with other leaves. */
  unflatten<M>(leaves: readonly M[]): unknown;
}

/** Whether `x` is a leaf of a tree of arrays. */
export function isLeaf(x: unknown): boolean {
  return x instanceof Value || x instanceof Tensor || typeof x === "number";
}

/** Takes a tree apart. `leaf` decides what a leaf is; by default values, tensors and numbers. */
export function flatten<L = Value | Tensor | number>(
  tree: unknown,
  leaf: (x: unknown) => boolean = isLeaf,
): FlatTree<L> {
  const leaves: L[] = [];
  const paths: string[] = [];
  const parts: string[] = [];
  type Build = (take: () => unknown) => unknown;
  const walk = (x: unknown, path: string): Build => {
    if (leaf(x)) {
      leaves.push(x as L);
      paths.push(path);
      parts.push("*");
      return (take) => take();
    }
    if (Array.isArray(x)) {
      parts.push("[");
      const items = x.map((item, i) => walk(item, join(path, i)));
      parts.push("]");
      return (take) => items.map((build) => build(take));
    }
    if (x !== null && typeof x === "object") {
      const proto = Object.getPrototypeOf(x);
      if (proto !== Object.prototype && proto !== null) {
        throw new LowrankError(
          `a tree holds plain objects, arrays, values, tensors and numbers, but at "${path}" there is a ${
            proto.constructor?.name ?? "object"
          }`,
        );
      }
      parts.push("{");
      const items = Object.entries(x).map(([key, item]) => {
        parts.push(JSON.stringify(key));
        return [key, walk(item, join(path, key))] as const;
      });
      parts.push("}");
      return (take) => Object.fromEntries(items.map(([key, build]) => [key, build(take)]));
    }
    parts.push(`=${String(x)}`);
    return () => x;
  };
  const build = walk(tree, "");
  return {
    leaves,
    paths,
    structure: parts.join(" "),
    unflatten(values) {
      let i = 0;
      return build(() => values[i++]);
    },
  };
}

function join(path: string, key: string | number): string {
  return path === "" ? String(key) : `${path}.${key}`;
}

/** The tree with every leaf replaced. */
export function mapTree<L, M>(tree: unknown, f: (leaf: L, path: string) => M, leaf?: (x: unknown) => boolean): unknown {
  const flat = flatten<L>(tree, leaf);
  return flat.unflatten(flat.leaves.map((x, i) => f(x, flat.paths[i])));
}
