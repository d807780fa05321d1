import { OptionError } from "../core/errors.ts";
import { nearest } from "../core/host/nearest.ts";

/** What names modules: a list of names, one regular expression for the whole path, or every linear layer. */
export type Selector = readonly string[] | RegExp | string;

/** A module's two names: its path here, and in Hugging Face's class. */
export interface NamePair {
  /** Here. */
  readonly path: string;
  /** In Hugging Face's class. */
  readonly hub: string;
}

const names = ({ path, hub }: NamePair) => path === hub ? [path] : [path, hub];

/** Names of heads that "all-linear" leaves out in any model, as PEFT does. */
const heads = new Set(["lm_head", "embed_out", "score", "classifier"]);

/** What a selector can name: a module, whole or a part of its outputs. */
export interface Selectable extends NamePair {
  readonly linear: boolean;
  /** Whether the model says that its rows are the outputs. */
  readonly isHead: boolean;
  readonly part: unknown;
}

/**
 * The modules that a selector names, by PEFT's rules: an entry of a list is a whole path or its end after a dot (`*` is any
 * one segment), a string or RegExp must match the whole path, `"all-linear"` is every linear layer but the output head.
 * Parts are named by lists only: `c_attn[q,v]`.
 *
 * @param what the option, for the error
 * @throws {OptionError} when an entry, or the expression, matches nothing
 */
export function selectModules<M extends Selectable>(selector: Selector, modules: readonly M[], what = "target"): M[] {
  const whole = modules.filter((m) => m.part === null);
  if (typeof selector === "string" && selector.toLowerCase() === "all-linear") {
    const linear = whole.filter((m) => m.linear && !m.isHead && !heads.has(m.path.split(".").at(-1)!));
    if (linear.length === 0) throw new OptionError('targets: "all-linear" found no linear layer in this model');
    return linear;
  }
  if (typeof selector === "string" || selector instanceof RegExp) {
    const expression = fullMatch(selector);
    const found = whole.filter((m) => names(m).some((name) => expression.test(name)));
    if (found.length === 0) {
      throw new OptionError(
        `the ${what} expression ${expression} matches none of the ${whole.length} modules, such as "${
          whole[0]?.hub
        }": ` +
          `it must match the whole path`,
      );
    }
    return found;
  }
  if (selector.length === 0) throw new OptionError(`${what}s is empty: name at least one module to adapt`);
  const chosen = new Set<M>();
  for (const entry of selector.flatMap(partsOfEntry)) {
    const found = modules.filter((m) => names(m).some((name) => matchesEntry(name, entry)));
    if (found.length === 0) throw noSuch(`${what} "${entry}"`, entry, modules);
    for (const m of found) chosen.add(m);
  }
  return modules.filter((m) => chosen.has(m));
}

/** `c_attn[q,v]` as `c_attn[q]` and `c_attn[v]`. */
function partsOfEntry(entry: string): string[] {
  const found = /^(.*)\[(.*)\]$/.exec(entry);
  return found === null ? [entry] : found[2].split(",").map((name) => `${found[1]}[${name.trim()}]`);
}

/** The layer's number in a path: the first after a name, or the first after one of the names that the pattern lists. */
export function layerOf(module: NamePair, pattern: string | readonly string[] = []): number | null {
  const before = typeof pattern === "string" ? [pattern] : pattern;
  for (const name of before.length === 0 ? ["[^.]*"] : before) {
    const found = new RegExp(`^(?:.*?\\.)?(?:${name})\\.(\\d+)\\.`).exec(module.hub);
    if (found !== null) return Number(found[1]);
  }
  return null;
}

/** An expression that must match all of a string. */
function fullMatch(expression: RegExp | string): RegExp {
  const { source, flags } = typeof expression === "string" ? { source: expression, flags: "" } : expression;
  try {
    return new RegExp(`^(?:${source})$`, flags.replace(/[gy]/g, ""));
  } catch {
    throw new OptionError(`targets: "${source}" is not a regular expression`);
  }
}

/** Whether a path is what an entry of a list says, or ends with it after a dot. */
export function matchesEntry(name: string, entry: string): boolean {
  const pattern = entry.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&")).join("[^.]+");
  return new RegExp(`^(.*\\.)?${pattern}$`).test(name);
}

/** Whether a path is of the module that an entry names, or of one below it. */
export function isBelow(module: NamePair, entry: string): boolean {
  return names(module).some((name) => {
    const parts = name.split(".");
    return parts.some((_, i) => matchesEntry(parts.slice(0, i + 1).join("."), entry));
  });
}

/** The error for a name that there is no module of. */
export function noSuch(what: string, entry: string, modules: readonly NamePair[]): OptionError {
  const near = nearest(entry, new Set(modules.flatMap(({ path }) => endsOf(path))));
  const ends = [...new Set(modules.map(({ path }) => path.split(".").at(-1)!))].join(", ");
  return new OptionError(
    `${what} matches no module of this model${near === null ? "" : `: did you mean "${near}"?`} (there are ${ends})`,
  );
}

/** A path and what is left of it after each dot, the shortest first. */
function endsOf(path: string): string[] {
  const parts = path.split(".");
  return parts.map((_, i) => parts.slice(parts.length - 1 - i).join("."));
}

/**
 * The value that a pattern (`rankPattern`, `alphaPattern`) gives a module: keys are regular expressions that match the end
 * of Hugging Face's path after a dot, `^` ties one to its beginning, the first that matches wins.
 */
export function patternValue<T>(pattern: Readonly<Record<string, T>>, module: NamePair): T | undefined {
  return Object.entries(pattern).find(([key]) => patternMatches(key, module))?.[1];
}

function patternMatches(key: string, module: NamePair): boolean {
  // A part of a module has the module's rank.
  return new RegExp(`^(?:(.*\\.)?(${key})$)`).test(module.hub.replace(/\[[^\]]*\]$/, ""));
}

/** @throws {OptionError} when a key of a pattern matches no adapted module */
export function checkPattern(what: string, pattern: Readonly<Record<string, unknown>>, adapted: readonly NamePair[]) {
  for (const key of Object.keys(pattern)) {
    if (!adapted.some((m) => patternMatches(key, m))) throw noSuch(`${what} "${key}"`, key, adapted);
  }
}
