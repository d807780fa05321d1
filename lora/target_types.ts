/** Which names can be targeted, computed from the type of a parameter tree, so that a wrong one does not compile. */
import type { Leaf } from "../core/model.ts";

/** Paths of the modules of a tree: objects that have a `weight`, and leaves that are not called so. `*` stands for an index. */
export type ModulePath<T> = T extends Leaf ? never
  : T extends readonly (infer E)[] ? Below<number | "*", E>
  : { [K in keyof T & string]: Below<K, NonNullable<T[K]>> }[keyof T & string];

/** The module at one key, and those below it. */
export type Below<K extends string | number, T> = T extends Leaf ? (K extends "weight" | "bias" ? never : `${K}`)
  : (T extends { readonly weight?: unknown } ? `${K}` : never) | `${K}.${ModulePath<T>}`;

/** A path and what is left of it after each dot. */
export type Suffix<S extends string> = S extends `${string}.${infer Rest}` ? S | Suffix<Rest> : S;

/**
 * A module of parameters of type P: its name (`"c_attn"`), the end of its path (`"attn.c_attn"`), or the whole path, where
 * `*` stands for any index. Any string where the tree's type does not say which names there are.
 */
export type ModuleName<P> = unknown extends P ? string
  : string extends keyof P ? string
  : Suffix<ModulePath<P>>;

/** What `targets` may name: a module, or parts of one whose outputs have names (`"c_attn[q,v]"`). */
export type Target<P> = ModuleName<P> | `${ModuleName<P>}[${string}]`;

/** Paths of everything that holds leaves: modules, and what holds modules. */
export type HolderPath<T> = T extends Leaf ? never
  : T extends readonly (infer E)[] ? Holder<number | "*", E>
  : { [K in keyof T & string]: Holder<K, NonNullable<T[K]>> }[keyof T & string];

/** What holds leaves at one key, and below it. */
export type Holder<K extends string | number, T> = T extends Leaf ? never : `${K}` | `${K}.${HolderPath<T>}`;

/** What `modulesToSave` may name: a module, or all that is below a path (`"h.0.mlp"`). */
export type HolderName<P> = unknown extends P ? string
  : string extends keyof P ? string
  : ModuleName<P> | Suffix<HolderPath<P>>;
