import { formatAval } from "../core/aval.ts";
import { nearest, OptionError } from "../core/errors.ts";
import type { Module } from "./analyse.ts";
import type { Placement } from "./merge.ts";
import type { LoraOptions, Match, Trainable } from "./options.ts";
import { checkPattern, patternValue, selectModules, type Selector } from "./targets.ts";

/** An adapted module with its options settled. */
export interface Adapted extends Module, Placement {
  readonly match: Match;
}

/** The modules that the options name, each with its rank and scaling. */
export function plan(modules: readonly Module[], options: LoraOptions<any>): Adapted[] {
  const { rankPattern = {}, alphaPattern = {}, rslora = false, tie = "use" } = options;
  const chosen = selectModules(options.targets as Selector, modules);
  checkPattern("rankPattern", rankPattern, chosen);
  checkPattern("alphaPattern", alphaPattern, chosen);
  const taken = new Set<number>();
  return chosen.flatMap((m): Adapted[] => {
    if (m.refusal !== null) throw new OptionError(`"${m.path}" can't be adapted: ${m.refusal}`);
    // With every use adapted by one pair, the second name of a weight is the same target.
    if (tie === "all" && taken.has(m.leaf)) return [];
    taken.add(m.leaf);
    const r = patternValue(rankPattern, m) ?? options.r;
    const alpha = patternValue(alphaPattern, m) ?? options.alpha;
    const { shape } = m.aval;
    const most = Math.min(...shape);
    if (!Number.isInteger(r) || r < 1 || r > most) {
      throw new OptionError(
        `r is ${r}, but "${m.path}" is ${formatAval(m.aval)}: it takes a whole number from 1 to ${most}`,
      );
    }
    if (!Number.isFinite(alpha)) throw new OptionError(`alpha is ${alpha}, but it must be a number (for "${m.path}")`);
    const scaling = alpha / (rslora ? Math.sqrt(r) : r);
    const tied = tie === "use" && m.only !== null;
    const alias = modules.find((other) => other.leaf === m.leaf && other.only === "product")?.path;
    const split = tied ? `${alias}.weight` : null;
    return [{
      ...m,
      only: tie === "all" ? null : m.only,
      scaling,
      split,
      into: tied && m.only === "product" ? split! : m.leafPath,
      match: {
        path: m.path,
        kind: m.kind,
        r,
        alpha,
        scaling,
        shape,
        layout: m.inAxis === 0 ? "in,out" : "out,in",
        trainable: r * (shape[0] + shape[1]),
      },
    }];
  });
}

/** @throws {OptionError} when an adapter is not one of this model and these options */
export function checkTrainable(given: Trainable, own: Trainable): void {
  for (const path of Object.keys(own)) {
    if (!(path in given)) {
      throw new OptionError(`the adapter has nothing for "${path}", which this model was set up to adapt`);
    }
    for (const name of ["A", "B"] as const) {
      const [got, want] = [formatAval(given[path][name]!.aval), formatAval(own[path][name]!.aval)];
      if (got !== want) throw new OptionError(`${name} of "${path}" is ${got}, but this model was set up for ${want}`);
    }
  }
  for (const path of Object.keys(given)) {
    if (!(path in own)) {
      const near = nearest(path, Object.keys(own));
      throw new OptionError(
        `the adapter has an entry for "${path}", which this model was not set up to adapt` +
          (near === null ? "" : `; the nearest that it adapts is "${near}"`),
      );
    }
  }
}
