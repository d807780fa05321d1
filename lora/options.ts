import type { LoraPair } from "./init.ts";
import type { Target } from "./target_types.ts";

/** What to adapt, and how. `r`, `alpha` and `targets` have no default. */
export interface LoraOptions<P = unknown> {
  /** The rank: a whole number from 1 to the smaller side of each adapted matrix. */
  readonly r: number;
  /** The change is scaled by alpha / r, or by alpha / √r with `rslora`. */
  readonly alpha: number;
  /**
   * Module names as in PEFT (`["c_attn"]`), paths with `*` for any one segment (`["h.*.mlp.c_fc"]`), a RegExp that matches
   * whole paths, or `"all-linear"`: every linear layer but the output head.
   */
  readonly targets: readonly Target<P>[] | RegExp | (unknown extends P ? string : never) | "all-linear";
  /** The share of the low-rank branch's inputs that is dropped where `apply` is given a key. 0 by default. */
  readonly dropout?: number;
  /** Scale by alpha / √r. Source: Kalajdzievski 2023, "A rank stabilization scaling factor for fine-tuning with LoRA". */
  readonly rslora?: boolean;
  /** Other ranks for some modules: regular expressions for the end of the path, the first that matches counts. */
  readonly rankPattern?: Readonly<Record<string, number>>;
  /** Other alphas, likewise. */
  readonly alphaPattern?: Readonly<Record<string, number>>;
  /** What the first values are drawn from. 0 by default. */
  readonly seed?: number;
  /**
   * A weight that is used under two names (an embedding that is also the head): `"use"`, the default, adapts the use that
   * a target names, as PEFT does; `"all"` adapts every use with one adapter.
   */
  readonly tie?: "use" | "all";
}

/** One adapted module, for a program to print or to name tensors by. */
export interface Match {
  /** The module's path in the parameters: `h.0.attn.c_attn`. The key in `trainable`. */
  readonly path: string;
  readonly kind: "linear" | "embedding";
  readonly r: number;
  readonly alpha: number;
  readonly scaling: number;
  /** The weight's shape, and where its input axis is: `in,out` or `out,in`. */
  readonly shape: readonly number[];
  readonly layout: "in,out" | "out,in";
  /** How many numbers A and B have. */
  readonly trainable: number;
}

/** The trainable leaves: a pair A [r, in], B [out, r] per adapted module, by its path. */
export type Trainable = Readonly<Record<string, LoraPair>>;
