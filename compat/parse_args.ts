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
  const alias = new Map(
    Object.entries(options.alias ?? {}).flatMap(([name, others]) => list(others).map((other) => [other, name])),
  );
  const [boolean, string, collect, negatable] = [options.boolean, options.string, options.collect, options.negatable]
    .map((names) => new Set(list(names)));
  const declared = (key: string) => [boolean, string, collect, negatable].some((names) => names.has(key));
  const found: Args = { _: [] };

  const set = (arg: string, name: string, value: unknown) => {
    const key = alias.get(name) ?? name;
    if (!declared(key) && options.unknown && options.unknown(arg, name, value) === false) return;
    const read = string.has(key) || typeof value !== "string" ? value : numeric(value);
    found[key] = collect.has(key) ? [...found[key] ?? [], read] : read;
  };
  const positional = (arg: string) => {
    if (options.unknown && options.unknown(arg) === false) return;
    found._.push(string.has("_") ? arg : numeric(arg));
  };

  for (let i = 0; i < args.length; i++) {
    const arg = args[i];
    if (arg === "--") {
      const rest = args.slice(i + 1);
      if (options["--"]) found["--"] = [...rest];
      else rest.forEach((arg) => found._.push(string.has("_") ? arg : numeric(arg)));
      break;
    }
    const [, dashes, text, given] = /^(--?)([^=]+)(?:=([^]*))?$/.exec(arg) ?? [];
    if (dashes === undefined || /^-[\d.]/.test(arg)) {
      if (options.stopEarly) {
        found._.push(...args.slice(i));
        break;
      }
      positional(arg);
      continue;
    }
    if (dashes === "--" && text.startsWith("no-") && negatable.has(text.slice(3))) {
      set(arg, text.slice(3), false);
      continue;
    }
    // `-abc` is three switches, of which the last may have a value.
    const names = dashes === "--" ? [text] : [...text];
    for (const name of names.slice(0, -1)) set(arg, name, true);
    const name = names.at(-1)!;
    const key = alias.get(name) ?? name;
    const next = args[i + 1];
    if (given !== undefined) set(arg, name, boolean.has(key) ? given !== "false" : given);
    else if (boolean.has(key)) set(arg, name, true);
    else if (next !== undefined && !/^-[^\d.]/.test(next) && next !== "--") set(arg, name, args[++i]);
    else set(arg, name, string.has(key) ? "" : true);
  }
  for (const [key, value] of Object.entries(options.default ?? {})) if (!Object.hasOwn(found, key)) found[key] = value;
  for (const key of boolean) if (!Object.hasOwn(found, key)) found[key] = false;
  for (const key of collect) if (!Object.hasOwn(found, key)) found[key] = [];
  return found;
}

function numeric(text: string): string | number {
  return /^(0x[0-9a-f]+|[-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?)$/i.test(text) ? Number(text) : text;
}
