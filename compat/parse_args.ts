/**
 * Stand-in for `@std/cli/parse-args`, with the same names and meanings for what the command line uses of it, for machines
 * that reach npm but not JSR. `offline.json` maps to this file; nothing of it is published.
 */

/** Which options there are, and how their values are read. */
interface ParseOptions {
  /** Options without a value; false where they are not given. */
  boolean?: readonly string[];
  /** Options whose value is text. One without a value is `""`. */
  string?: readonly string[];
  /** Options that may be given several times: all values, in a list. */
  collect?: readonly string[];
  /** Options that `--no-NAME` sets to false. */
  negatable?: readonly string[];
  default?: Readonly<Record<string, unknown>>;
  /** Called with every argument that is not declared; where it returns false, the argument is left out. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

/** Reads a command's arguments: values by option name, and the positionals. */
export function parseArgs(
  args: readonly string[],
  { boolean = [], string = [], collect = [], negatable = [], default: defaults, unknown = () => true }: ParseOptions =
    {},
): Record<string, any> & { _: (string | number)[] } {
  const end = args.includes("--") ? args.indexOf("--") : args.length;
  const found: Record<string, any> & { _: (string | number)[] } = { _: [] };
  const numeric = (key: string, text: string) =>
    !string.includes(key) && /^(0x[0-9a-f]+|[-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?)$/i.test(text) ? Number(text) : text;
  const set = (arg: string, key: string, value: string | boolean) => {
    if (!boolean.includes(key) && !string.includes(key) && unknown(arg, key, value) === false) return;
    const read = typeof value === "string" ? numeric(key, value) : value;
    found[key] = collect.includes(key) ? [...found[key] ?? [], read] : read;
  };
  for (let i = 0; i < end;) {
    const arg = args[i++], next = i < end ? args[i] : undefined;
    const [, dashes, text, given] = /^(--?)([^]+?)(?:=([^]+))?$/.exec(arg) ?? [];
    if (dashes === undefined) {
      if (unknown(arg) !== false) found._.push(numeric("_", arg));
      continue;
    }
    if (dashes === "--" && text.startsWith("no-") && negatable.includes(text.slice(3)) && given === undefined) {
      set(arg, text.slice(3), false);
      continue;
    }
    // `-abc` is three switches, of which the last may have a value.
    const names = dashes === "--" ? [text] : [...text];
    for (const name of names.slice(0, -1)) set(arg, name, string.includes(name) ? "" : true);
    const key = names.at(-1)!, isSwitch = boolean.includes(key);
    if (given !== undefined) set(arg, key, isSwitch ? given !== "false" : given);
    else if (next === "true" || next === "false") {
      set(arg, key, string.includes(key) ? args[i++] : args[i++] !== "false");
    } else if (!isSwitch && next !== undefined && !next.startsWith("-")) set(arg, key, args[i++]);
    else set(arg, key, string.includes(key) ? "" : true);
  }
  found._.push(...args.slice(end + 1));
  const unset = [...collect.map((key) => [key, []]), ...boolean.map((key) => [key, false])];
  return { ...Object.fromEntries(unset), ...defaults, ...found };
}
