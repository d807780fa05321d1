import { OptionError } from "../../core/errors.ts";
import type { Module } from "./analyse.ts";
import { sizesOf } from "./effect.ts";
import type { Adapted, Method, Outline, Site } from "../methods/method.ts";
import type { Match, TuneOptions } from "../options.ts";
import { isBelow, layerOf, selectModules, type Selector } from "../targets.ts";

/** What a method trains of a module, and what it tells of it. */
interface Resolved {
  readonly trained: Site["trained"];
  readonly match?: Partial<Match>;
}

/**
 * The sites of a method at chosen modules.
 *
 * @param settle what is trained of a module whose inputs, and outputs that are meant, are so many
 * @throws {OptionError} where a module can't be adapted
 */
export function adaptedSites(
  method: Method,
  { modules }: Outline,
  chosen: readonly Module[],
  { tie = "use" }: TuneOptions<any>,
  settle: (module: Module, sizes: { readonly in: number; readonly out: number }) => Resolved,
): Adapted[] {
  const taken = new Set<string>();
  return chosen.flatMap((m): Adapted[] => {
    if (m.refusal !== null) throw new OptionError(`"${m.path}" can't be adapted: ${m.refusal}`);
    // With every use adapted as one, the second name of a weight is the same target.
    const name = `${m.leaf} ${m.part?.name}`;
    if (tie === "all" && taken.has(name)) return [];
    taken.add(name);
    const alias = modules.find((other) => other.leaf === m.leaf && other.only === "product")?.path;
    const split = tie === "use" && m.only !== null ? `${alias}.weight` : null;
    const { trained, match } = settle(m, sizesOf(m));
    return [{
      ...m,
      method,
      only: tie === "all" ? null : m.only,
      split,
      into: split !== null && m.only === "product" ? split : m.leafPath,
      trained,
      match: {
        path: m.path,
        method: method.name,
        kind: m.kind,
        ...{ r: 0, alpha: 0, scaling: 1 },
        ...match,
        shape: m.aval.shape,
        layout: m.inAxis === 0 ? "in,out" : "out,in",
        trainable: counted(trained),
        ...(m.part !== null && { part: m.part }),
      },
    }];
  });
}

/** @throws {OptionError} for what a method that changes whole products can't adapt: tables, and parts of a product's outputs */
export function refuseParts({ name }: Method, { path, kind, part }: Module): void {
  if (kind !== "embedding" && part === null) return;
  throw new OptionError(
    `${name} can't adapt "${path}": it is ${
      kind === "embedding" ? "a table that is looked up" : "a part of a module, and its files hold whole ones"
    }; leave it out of targets`,
  );
}

/** How many numbers are trained at a site. */
export function counted(trained: Site["trained"]): number {
  return Object.values(trained).reduce((sum, shape) => sum + shape.reduce((n, d) => n * d, 1), 0);
}

/** The modules that `targets`, `exclude` and `layers` select. An expression never selects modules that are trained in full. */
export function choose(modules: readonly Module[], options: TuneOptions<any>): Module[] {
  const { exclude, layers, layersPattern, modulesToSave = [] } = options;
  let chosen = selectModules(options.targets as Selector, modules);
  const narrow = (why: string, keep: (m: Module) => boolean) => {
    const kept = chosen.filter(keep);
    if (kept.length === 0) {
      throw new OptionError(`${why} leaves none of the ${chosen.length} modules that targets names`);
    }
    chosen = kept;
  };
  if (!Array.isArray(options.targets) && modulesToSave.length > 0) {
    narrow("modulesToSave", (m) => !modulesToSave.some((entry) => isBelow(m, entry)));
  }
  if (exclude !== undefined) {
    const out = new Set(selectModules(exclude as Selector, modules, "exclude"));
    narrow("exclude", (m) => !out.has(m));
  }
  if (layers !== undefined) {
    const there = new Set(chosen.map((m) => layerOf(m, layersPattern)));
    const missing = layers.filter((layer) => !there.has(layer));
    if (missing.length > 0) {
      const known = [...there].filter((layer) => layer !== null).sort((a, b) => a - b);
      throw new OptionError(
        `layers has ${missing.join(", ")}, but ` +
          (known.length === 0
            ? `no number is found in "${chosen[0].hub}"${layersPattern === undefined ? "" : ` by layersPattern`}`
            : `what targets names is in layers ${known.join(", ")}`),
      );
    }
    narrow("layers", (m) => layers.includes(layerOf(m, layersPattern)!));
  }
  const whole = new Set(chosen.filter((m) => m.part === null).map((m) => m.path));
  const twice = chosen.find((m) => m.part !== null && whole.has(m.part.of));
  if (twice) throw new OptionError(`targets names "${twice.part!.of}" in whole and its part "${twice.path}": name one`);
  return chosen;
}
