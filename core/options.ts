/** The options of public functions: what types say to a program that is compiled, checked for one that is not. */
import { OptionError } from "./errors.ts";
import { nearest } from "./host/nearest.ts";
import { showArgument } from "./ops/arguments.ts";

/** The names of the options O. One that is missing here, or that O has not, does not compile. */
export type OptionNames<O> = Readonly<Record<keyof O, true>>;

/**
 * Holds a call's options against the names that there are: all that its type has, or it does not compile. One that is
 * undefined says nothing and is let be.
 *
 * @param who the function, as it is called
 * @throws {OptionError} that names the option which there is not, and the one that is meant
 */
export function checkOptions<O extends object>(
  who: string,
  options: O,
  names: { readonly [K in keyof O]-?: unknown },
): void {
  checkNames(who, options, names);
}

/** {@link checkOptions} where the names are known only at run time. */
export function checkNames(who: string, options: unknown, names: Readonly<Record<string, unknown>>): void {
  checkObject(who, options, names);
  for (const [key, value] of Object.entries(options)) {
    if (value !== undefined && !Object.hasOwn(names, key)) throw noOption(who, key, Object.keys(names));
  }
}

/** Those of some values that are options of O: what a configuration says to one of the functions that it is for. */
export function pickOptions<O extends object>(from: O, names: OptionNames<O>): O {
  return Object.fromEntries(Object.entries(from).filter(([name]) => Object.hasOwn(names, name))) as O;
}

/**
 * Refuses options that are no object.
 *
 * @param names some of them, to show what is meant
 * @throws {OptionError}
 */
export function checkObject(
  who: string,
  options: unknown,
  names: Readonly<Record<string, unknown>>,
): asserts options is object {
  if (typeof options === "object" && options !== null && !Array.isArray(options)) return;
  const example = Object.keys(names).slice(0, 2).map((name) => `${name}: …`).join(", ");
  throw new OptionError(`${who} takes its options as an object, { ${example} }, not ${showArgument(options)}`);
}

/**
 * Refuses what is no function, where one is to be traced or called.
 *
 * @throws {OptionError}
 */
export function checkFunction(who: string, f: unknown): void {
  if (typeof f !== "function") throw new OptionError(`${who} takes a function, not ${showArgument(f)}`);
}

/**
 * Refuses what has not the members that make it what a function takes.
 *
 * @param what that, in words: `a model`
 * @throws {OptionError}
 */
export function checkMembers(who: string, what: string, value: unknown, members: readonly string[]): void {
  if (typeof value === "object" && value !== null && members.every((member) => member in value)) return;
  throw new OptionError(`${who} takes ${what}, not ${showArgument(value)}`);
}

/**
 * Refuses what is no text, or an empty one, where a folder or a file is named.
 *
 * @throws {OptionError}
 */
export function checkPath(who: string, path: unknown): void {
  if (typeof path !== "string" || path === "") {
    throw new OptionError(`${who} takes a path as text, not ${showArgument(path)}`);
  }
}

/**
 * Refuses what is no list.
 *
 * @param what its items, in words: `adapters`
 * @throws {OptionError}
 */
export function checkList(who: string, what: string, list: unknown): void {
  if (!Array.isArray(list)) throw new OptionError(`${who} takes a list of ${what}, not ${showArgument(list)}`);
}

/** The error for an option that there is not. */
export function noOption(who: string, key: string, names: readonly string[]): OptionError {
  const near = nearest(key, names);
  const hint = near === null ? `it takes ${names.join(", ")}` : `did you mean ${near}?`;
  return new OptionError(`${who} has no option ${key}: ${hint}`);
}
