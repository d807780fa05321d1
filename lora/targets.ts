import { nearest, OptionError } from "../core/errors.ts";

/** What names modules: a list of names, one regular expression for the whole path, or every linear layer. */
export type Selector = readonly string[] | RegExp | string;

/** A module's two names: its path here, and in Hugging Face's class. */
export interface ModuleName {
  readonly path: string;
  readonly hub: string;
}

const names = ({ path, hub }: ModuleName) => path === hub ? [path] : [path, hub];

/** Heads that "all-linear" leaves out, as PEFT does. */
const heads = new Set(["lm_head", "score", "classifier"]);

/**
 * The modules that a selector names, by PEFT's rules: an entry of a list is a whole path or its end after a dot (`*` is any
 * one segment), a string or RegExp must match the whole path, `"all-linear"` is every linear layer but the output head.
 *
 * @throws {OptionError} when an entry, or the expression, matches nothing
 */
export function selectModules<M extends ModuleName & { readonly linear: boolean }>(
  selector: Selector,
  modules: readonly M[],
): M[] {
  if (typeof selector === "string" && selector.toLowerCase() === "all-linear") {
    const linear = modules.filter((m) => m.linear && !heads.has(m.path.split(".").at(-1)!));
    if (linear.length === 0) throw new OptionError('targets: "all-linear" found no linear layer in this model');
    return linear;
  }
  if (typeof selector === "string" || selector instanceof RegExp) {
    const whole = fullMatch(selector);
    const found = modules.filter((m) => names(m).some((name) => whole.test(name)));
    if (found.length === 0) {
      throw new OptionError(
        `the target expression ${whole} matches none of the ${modules.length} modules, such as "${modules[0]?.hub}": ` +
          `it must match the whole path`,
      );
    }
    return found;
  }
  if (selector.length === 0) throw new OptionError("targets is empty: name at least one module to adapt");
  const chosen = new Set<M>();
  for (const entry of selector) {
    const found = modules.filter((m) => names(m).some((name) => matchesEntry(name, entry)));
    if (found.length === 0) throw noSuch(`target "${entry}"`, entry, modules);
    for (const m of found) chosen.add(m);
  }
  return modules.filter((m) => chosen.has(m));
}

/** An expression that must match all of a string. */
function fullMatch(expression: RegExp | string): RegExp {
  const { source, flags } = typeof expression === "string" ? { source: expression, flags: "" } : expression;
  try {
    return new RegExp(`^(?:${source})$`, flags.replace(/[gy]/g, ""));
  } catch {
    throw new OptionError(`targets: "${source}" is no regular expression`);
  }
}

function matchesEntry(name: string, entry: string): boolean {
  const pattern = entry.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&")).join("[^.]+");
  return new RegExp(`^(.*\\.)?${pattern}$`).test(name);
}

function noSuch(what: string, entry: string, modules: readonly ModuleName[]): OptionError {
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
export function patternValue<T>(pattern: Readonly<Record<string, T>>, module: ModuleName): T | undefined {
  return Object.entries(pattern).find(([key]) => patternMatches(key, module))?.[1];
}

function patternMatches(key: string, module: ModuleName): boolean {
  return new RegExp(`^(?:(.*\\.)?(${key})$)`).test(module.hub);
}

/** @throws {OptionError} when a key of a pattern matches no adapted module */
export function checkPattern(what: string, pattern: Readonly<Record<string, unknown>>, adapted: readonly ModuleName[]) {
  for (const key of Object.keys(pattern)) {
    if (!adapted.some((m) => patternMatches(key, m))) throw noSuch(`${what} "${key}"`, key, adapted);
  }
}
