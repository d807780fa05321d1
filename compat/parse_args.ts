/**
 * Stand-in for `@std/cli/parse-args`, with the same names and meanings for what this project uses of it, for machines that
 * reach npm but not JSR. `offline.json` maps to this file; nothing of it is published.
 */

type Names = string | readonly string[];

/** Which options there are, and how their values are read. */
export interface ParseOptions {
  /** Keep what follows `--` apart, under that name. */
  "--"?: boolean;
  /** Other names of an option. */
  alias?: Readonly<Record<string, Names>>;
  /** Options without a value; false where they are not given. */
  boolean?: Names;
  /** Options whose value is text. One without a value is `""`. */
  string?: Names;
  /** Options that may be given several times: all values, in a list. */
  collect?: Names;
  /** Options that `--no-NAME` sets to false. */
  negatable?: Names;
  default?: Readonly<Record<string, unknown>>;
  /** Leave everything from the first positional on unread. */
  stopEarly?: boolean;
  /** Told of every argument that is not declared; what it returns false for is left out. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

/** Values by option name, and the positionals. */
export type Args = Record<string, any> & { _: (string | number)[]; "--"?: string[] };

/** Reads a command's arguments. */
export function parseArgs(args: readonly string[], options: ParseOptions = {}): Args {
  const list = (names: Names = []) => typeof names === "string" ? [names] : [...names];
  const groups = Object.entries(options.alias ?? {}).map(([name, others]) => [name, ...list(others)]);
  const sameAs = (key: string) => groups.find((names) => names.includes(key)) ?? [key];
  const [boolean, string, collect, negatable] = [options.boolean, options.string, options.collect, options.negatable]
    .map((names) => new Set(list(names).flatMap(sameAs)));
  const end = args.includes("--") ? args.indexOf("--") : args.length;
  const found: Args = { _: [] };

  const set = (arg: string, key: string, value: unknown) => {
    const declared = boolean.has(key) || string.has(key) || sameAs(key).length > 1;
    if (!declared && options.unknown && options.unknown(arg, key, value) === false) return;
    const read = string.has(key) || typeof value !== "string" ? value : numeric(value);
    for (const name of sameAs(key)) found[name] = collect.has(key) ? [...found[name] ?? [], read] : read;
  };
  const positional = (arg: string) => string.has("_") ? arg : numeric(arg);

  let i = 0;
  while (i < end) {
    const arg = args[i++];
    const [, dashes, text, given] = /^(--?)([^]+?)(?:=([^]+))?$/.exec(arg) ?? [];
    if (dashes === undefined) {
      if (options.unknown === undefined || options.unknown(arg) !== false) found._.push(positional(arg));
      if (!options.stopEarly) continue;
      found._.push(...args.slice(i, end));
      break;
    }
    if (dashes === "--" && text.startsWith("no-") && negatable.has(text.slice(3)) && given === undefined) {
      set(arg, text.slice(3), false);
      continue;
    }
    // `-abc` is three switches, of which the last may have a value.
    const names = dashes === "--" ? [text] : [...text];
    for (const name of names.slice(0, -1)) set(arg, name, string.has(name) ? "" : true);
    const key = names.at(-1)!;
    const next = i < end ? args[i] : undefined;
    if (given !== undefined) set(arg, key, boolean.has(key) ? given !== "false" : given);
    else if (next === "true" || next === "false") set(arg, key, string.has(key) ? args[i++] : args[i++] !== "false");
    else if (!boolean.has(key) && next !== undefined && !next.startsWith("-")) set(arg, key, args[i++]);
    else set(arg, key, string.has(key) ? "" : true);
  }
  const rest = args.slice(end + 1);
  if (options["--"]) found["--"] = rest;
  else found._.push(...rest);

  const fallback = (key: string, value: unknown) => {
    for (const name of sameAs(key)) if (!Object.hasOwn(found, name)) found[name] = value;
  };
  for (const [key, value] of Object.entries(options.default ?? {})) fallback(key, value);
  for (const key of boolean) fallback(key, collect.has(key) ? [] : false);
  for (const key of string) if (collect.has(key)) fallback(key, []);
  return found;
}

function numeric(text: string): string | number {
  return /^(0x[0-9a-f]+|[-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?)$/i.test(text) ? Number(text) : text;
}
