import { formatAval } from "../../core/aval.ts";
import { OptionError } from "../../core/errors.ts";
import type { Module } from "./analyse.ts";
import type { LoraOptions, Match } from "../options.ts";
import { checkPattern, isBelow, layerOf, patternValue, selectModules, type Selector } from "../targets.ts";

/** An adapted module with its options settled. */
export interface Adapted extends Module {
  readonly match: Match;
  /** Where only one use of a tied weight is adapted: the path at which the other name gets a leaf of its own. */
  readonly split: string | null;
  /** Which of the two paths this change belongs to. */
  readonly into: string;
  /** What is trained here. */
  readonly parts: readonly ("A" | "B" | "magnitude" | "biasB")[];
}

/** The modules that the options name, each with its rank and scaling. With `anyRank` r may exceed a matrix's sides. */
export function plan(modules: readonly Module[], options: LoraOptions<any>, anyRank = false): Adapted[] {
  const { rankPattern = {}, alphaPattern = {}, tie = "use" } = options;
  const chosen = choose(modules, options);
  checkPattern("rankPattern", rankPattern, chosen);
  checkPattern("alphaPattern", alphaPattern, chosen);
  const taken = new Set<string>();
  return chosen.flatMap((m): Adapted[] => {
    if (m.refusal !== null) throw new OptionError(`"${m.path}" can't be adapted: ${m.refusal}`);
    // With every use adapted by one pair, the second name of a weight is the same target.
    const name = `${m.leaf} ${m.part?.name}`;
    if (tie === "all" && taken.has(name)) return [];
    taken.add(name);
    const tied = tie === "use" && m.only !== null;
    const alias = modules.find((other) => other.leaf === m.leaf && other.only === "product")?.path;
    const split = tied ? `${alias}.weight` : null;
    return [{
      ...m,
      only: tie === "all" ? null : m.only,
      split,
      into: tied && m.only === "product" ? split! : m.leafPath,
      ...settle(m, options, anyRank),
    }];
  });
}

/** A module's rank, scaling and parts. */
function settle(m: Module, options: LoraOptions<any>, anyRank: boolean): Pick<Adapted, "match" | "parts"> {
  const { rankPattern = {}, alphaPattern = {}, rslora = false, dora = false, loraBias = false } = options;
  const r = patternValue(rankPattern, m) ?? options.r;
  const alpha = patternValue(alphaPattern, m) ?? options.alpha;
  const { shape } = m.aval;
  const sizes = { in: shape[m.inAxis], out: m.part === null ? shape[1 - m.inAxis] : m.part.end - m.part.start };
  const most = anyRank ? Infinity : Math.min(sizes.in, sizes.out);
  if (!Number.isInteger(r) || r < 1 || r > most) {
    throw new OptionError(
      `r is ${r}, but "${m.path}" is ${formatAval(m.aval)}: it takes a whole number from 1 to ${most}`,
    );
  }
  if (!Number.isFinite(alpha)) throw new OptionError(`alpha is ${alpha}, but it must be a number (for "${m.path}")`);
  if (loraBias && m.kind === "embedding") {
    throw new OptionError(`loraBias on "${m.path}": rows that are looked up have no bias; leave it out of the targets`);
  }
  if (loraBias && dora) throw new OptionError("loraBias and dora exclude each other: leave one out");
  const vectors = Number(dora) + Number(loraBias);
  return {
    match: {
      path: m.path,
      kind: m.kind,
      r,
      alpha,
      scaling: alpha / (rslora ? Math.sqrt(r) : r),
      shape,
      layout: m.inAxis === 0 ? "in,out" : "out,in",
      trainable: r * (sizes.in + sizes.out) + vectors * sizes.out,
      ...(rslora && { rslora: true as const }),
      ...(dora && { dora: true as const }),
      ...(m.part !== null && { part: m.part }),
    },
    parts: ["A", "B", ...(dora ? ["magnitude" as const] : []), ...(loraBias ? ["biasB" as const] : [])],
  };
}

/** What `targets`, `exclude` and `layers` leave of the modules. An expression does not mean what is trained in full. */
function choose(modules: readonly Module[], options: LoraOptions<any>): Module[] {
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

/** The same module with another rank, and the alpha that keeps the scaling. */
export function ranked(m: Adapted, r: number, scaling: number): Adapted {
  const { shape, part } = m.match;
  const outputs = part === undefined ? shape[1 - m.inAxis] : part.end - part.start;
  const alpha = scaling * (m.match.rslora ? Math.sqrt(r) : r);
  const trainable = r * (shape[m.inAxis] + outputs);
  return { ...m, match: { ...m.match, r, alpha, scaling, trainable } };
}
