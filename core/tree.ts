/**
 * Trees of arrays: nested plain objects and arrays whose leaves are values, tensors or numbers. Anything else in a tree
 * (a string, a boolean, undefined) belongs to its structure.
 */
import { LowrankError } from "./errors.ts";
import { exactText, type Identities } from "./identity.ts";
import { Value } from "./ir/graph.ts";
import { Tensor } from "./tensor.ts";
import { checkFunction } from "./options.ts";

/** A tree taken apart: its leaves in order, their paths, and how to put others in their places. */
export interface FlatTree<L> {
  /** The leaves in order. */
  readonly leaves: L[];
  /** Their paths: `h.0.attn.weight`. */
  readonly paths: string[];
  /** @ignore Equal for two trees of one structure: anything but a leaf is compared by type and value, objects by identity. */
  structure(ids: Identities): string;
  /** A tree of this structure with other leaves. */
  unflatten<M>(leaves: readonly M[]): unknown;
  /** The leaves of another tree where it has the same structure, else null: quicker than taking it apart. */
  leavesOf(tree: unknown): L[] | null;
}

/** Whether `x` is a leaf of a tree of arrays. Most are tensors, and `instanceof` is slow where it says no of one. */
export function isLeaf(x: unknown): boolean {
  return x instanceof Tensor || x instanceof Value || typeof x === "number";
}

/** What a tree is but for its leaves. `other` is a part that is no leaf, as text. */
type Form =
  | { readonly kind: "leaf" }
  | { readonly kind: "list"; readonly items: readonly Form[] }
  | { readonly kind: "record"; readonly keys: readonly string[]; readonly items: readonly Form[] }
  | { readonly kind: "other"; readonly value: unknown };

/** Levels of a tree: the walks recurse, and one that holds itself has no end. */
const deepest = 500;

const leafForm: Form = { kind: "leaf" };

/** Takes a tree apart. `leaf` decides what a leaf is; by default values, tensors and numbers. */
export function flatten<L = Value | Tensor | number>(
  tree: unknown,
  leaf: (x: unknown) => boolean = isLeaf,
): FlatTree<L> {
  checkFunction("flatten", leaf);
  const leaves: L[] = [];
  const walk = (x: unknown, depth: number): Form => {
    if (leaf(x)) {
      leaves.push(x as L);
      return leafForm;
    }
    if (depth > deepest) throw new LowrankError(tooDeep(tree, leaf));
    if (Array.isArray(x)) return { kind: "list", items: x.map((item) => walk(item, depth + 1)) };
    if (x === null || typeof x !== "object") return { kind: "other", value: x };
    if (!isPlain(x)) throw new LowrankError(strange(tree, leaf));
    const keys = Object.keys(x);
    const items = keys.map((key) => walk((x as Record<string, unknown>)[key], depth + 1));
    return { kind: "record", keys, items };
  };
  return flatTree(leaves, walk(tree, 0), leaf);
}

/** A function by itself, so that `leavesOf`, where it is kept, keeps no leaves. */
function flatTree<L>(leaves: L[], form: Form, leaf: (x: unknown) => boolean): FlatTree<L> {
  let paths: string[] | undefined;
  return {
    leaves,
    get paths() {
      return paths ??= pathsOf(form, "");
    },
    structure: (ids) => describe(form, ids).join(" "),
    unflatten: (values) => {
      let i = 0;
      return rebuild(form, () => values[i++]);
    },
    leavesOf: (other) => {
      const found: L[] = [];
      return follow(form, other, leaf, found) ? found : null;
    },
  };
}

function isPlain(x: object): boolean {
  const proto = Object.getPrototypeOf(x);
  return proto === Object.prototype || proto === null;
}

function pathsOf(form: Form, path: string): string[] {
  if (form.kind === "leaf") return [path];
  if (form.kind === "other") return [];
  return form.items.flatMap((item, i) => pathsOf(item, join(path, form.kind === "record" ? form.keys[i] : i)));
}

function describe(form: Form, ids: Identities): string[] {
  const all = (items: readonly Form[]) => items.map((item) => describe(item, ids));
  switch (form.kind) {
    case "leaf":
      return ["*"];
    case "other":
      return [`=${exactText(form.value, ids)}`];
    case "list":
      return ["[", ...all(form.items).flat(), "]"];
    case "record":
      return ["{", ...all(form.items).flatMap((item, i) => [JSON.stringify(form.keys[i]), ...item]), "}"];
  }
}

function rebuild(form: Form, take: () => unknown): unknown {
  switch (form.kind) {
    case "leaf":
      return take();
    case "other":
      return form.value;
    case "list":
      return form.items.map((item) => rebuild(item, take));
    case "record":
      return Object.fromEntries(form.items.map((item, i) => [form.keys[i], rebuild(item, take)]));
  }
}

/** Whether a tree has a form; its leaves are added to `found`. */
function follow(form: Form, x: unknown, leaf: (x: unknown) => boolean, found: unknown[]): boolean {
  if (leaf(x)) return form.kind === "leaf" && found.push(x) > 0;
  switch (form.kind) {
    case "leaf":
      return false;
    case "other":
      return x === form.value;
    case "list":
      return Array.isArray(x) && x.length === form.items.length &&
        form.items.every((item, i) => follow(item, x[i], leaf, found));
    case "record": {
      if (x === null || typeof x !== "object" || !isPlain(x)) return false;
      const keys = Object.keys(x);
      return keys.length === form.keys.length &&
        form.items.every((item, i) =>
          keys[i] === form.keys[i] && follow(item, (x as Record<string, unknown>)[keys[i]], leaf, found)
        );
    }
  }
}

/** What of a tree is neither a part of one nor a leaf, in a sentence. */
function strange(tree: unknown, leaf: (x: unknown) => boolean): string {
  const find = (x: unknown, path: string): string | null => {
    if (leaf(x) || x === null || typeof x !== "object") return null;
    if (!Array.isArray(x) && !isPlain(x)) {
      return `a tree holds plain objects, arrays, values, tensors and numbers, but at "${path}" there is a ${
        Object.getPrototypeOf(x).constructor?.name ?? "object"
      }${remedyOf(x)}`;
    }
    for (const [key, item] of Object.entries(x)) {
      const found = find(item, join(path, key));
      if (found !== null) return found;
    }
    return null;
  };
  return find(tree, "")!;
}

function remedyOf(x: object): string {
  if (ArrayBuffer.isView(x)) return ": make a tensor of it with upload(device, { shape, dtype, data })";
  return x instanceof Promise
    ? ": await it first, outside; a traced function only builds a graph and is not async"
    : "";
}

/** That a tree has too many levels, and the first part of the way down. */
function tooDeep(tree: unknown, leaf: (x: unknown) => boolean): string {
  const find = (x: unknown, path: readonly string[]): readonly string[] | null => {
    if (leaf(x) || x === null || typeof x !== "object") return null;
    if (path.length > deepest) return path;
    for (const [key, item] of Object.entries(x)) {
      const found = find(item, [...path, key]);
      if (found !== null) return found;
    }
    return null;
  };
  return `a tree has more than ${deepest} levels, from "${
    find(tree, [])!.slice(0, 4).join(".")
  }" down: it holds itself, ` +
    `or what could lie side by side is nested`;
}

function join(path: string, key: string | number): string {
  return path === "" ? String(key) : `${path}.${key}`;
}

/** The tree with every leaf replaced. */
export function mapTree<L, M>(tree: unknown, f: (leaf: L, path: string) => M, leaf?: (x: unknown) => boolean): unknown {
  const flat = flatten<L>(tree, leaf);
  return flat.unflatten(flat.leaves.map((x, i) => f(x, flat.paths[i])));
}
