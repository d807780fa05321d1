/** The interface of every command, and how commands read their arguments and write their output. */
import { parseArgs } from "@std/cli/parse-args";
import { OptionError } from "../core/errors.ts";
import {
  checkValue,
  describeOptions,
  type Given,
  type OptionTable,
  suggestion,
  tableName,
  wrap,
  writtenName,
} from "../train/options/option_table.ts";

/** One command: `lowrank NAME …`. */
export interface Command {
  readonly name: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** What `--help` prints after the summary: how it is called, the options, an example. {@link formatUsage} makes it. */
  readonly usage: string;
  /** The same where other arguments change what there is to say; undefined for the usual. */
  usageFor?(args: readonly string[]): string | undefined;
  /** @param args what follows the command, without the switches that every command has */
  run(args: string[], terminal: Terminal): Promise<void>;
}

/** Where a command writes. Standard output is for results, standard error for everything else. */
export interface Terminal {
  /** `--json`: the result is one JSON object. */
  readonly json: boolean;
  /** `--quiet`: only results, warnings and errors. */
  readonly quiet: boolean;
  /** Whether standard error takes colours: a terminal, and NO_COLOR is not set. */
  readonly color: boolean;
  /** The width of the terminal; 80 where there is none. */
  readonly columns: number;
  /** What was asked for, as text; with `--json` the object is printed instead. */
  print(text: string): void;
  /** The same piece by piece, without a line's end; whether anybody takes more. */
  write(piece: string): boolean;
  /** What was asked for, as an object: printed only with `--json`. Once a run. */
  result(value: object): void;
  /** What goes on. */
  say(line: string): void;
  /** What a person must know, even with `--quiet`. */
  warn(line: string): void;
}

/** The command line itself is wrong: exit code 2. */
export class UsageError extends OptionError {
  override name = "UsageError";
}

/** Options of one call, and the positionals. */
export interface Flags<T extends OptionTable> {
  readonly options: Given<T>;
  readonly rest: readonly string[];
}

/**
 * Reads a command's arguments by its table: `--name value`, `--name=value`, switches as `--name` and `--no-name`.
 *
 * @throws {UsageError} for a flag that is not in the table, a value that an option does not take, or too many positionals
 */
export function readFlags<T extends OptionTable>(args: string[], table: T, positionals = 0): Flags<T> {
  const names = Object.keys(table);
  const switches = names.filter((name) => table[name].kind === "switch").map(writtenName);
  const parsed: Record<string, unknown> & { _: (string | number)[] } = parseArgs(joinNegative(args, table), {
    boolean: switches,
    negatable: switches,
    collect: names.filter((name) => table[name].kind === "texts").map(writtenName),
    string: [...names.map(writtenName).filter((name) => !switches.includes(name)), "_"],
    // A switch that is not given is not false: a configuration file may say more.
    default: Object.fromEntries(switches.map((name) => [name, undefined])),
    unknown: (arg, key) => {
      if (key === undefined) return true;
      throw new UsageError(`there is no option ${arg}${suggestion(table, key, "--")}`);
    },
  });
  const rest = parsed._.map(String);
  if (rest.length > positionals) {
    throw new UsageError(`${JSON.stringify(rest[positionals])} is not expected here: options begin with --`);
  }
  const options: Record<string, unknown> = {};
  for (const [written, value] of Object.entries(parsed)) {
    const name = tableName(table, written);
    // A flag that may be repeated and is not given is an empty list.
    if (name === null || value === undefined || (Array.isArray(value) && value.length === 0)) continue;
    try {
      options[name] = checkValue(table[name], value, `--${written}`);
    } catch (error) {
      throw error instanceof OptionError ? new UsageError(error.message) : error;
    }
  }
  return { options: options as Given<T>, rest };
}

/** `--lr -1` as `--lr=-1`: a number after an option that takes one, or several, is its value and no flag. */
function joinNegative(args: readonly string[], table: OptionTable): string[] {
  const end = args.includes("--") ? args.indexOf("--") : args.length;
  const takesNumber = (arg: string) => {
    const name = arg.startsWith("--") ? tableName(table, arg.slice(2)) : null;
    return name !== null && ["number", "whole", "list"].includes(table[name].kind);
  };
  return args.flatMap((arg, i) => {
    if (i > 0 && i < end && /^-[\d.]/.test(arg) && takesNumber(args[i - 1])) return [];
    const value = i + 1 < end ? args[i + 1] : "";
    return /^-[\d.]/.test(value) && takesNumber(arg) ? [`${arg}=${value}`] : [arg];
  });
}

/** The usage of a command: `call` follows its name, `example` is a whole command. */
export function formatUsage(
  { call, table, example, more = "" }: { call: string; table: OptionTable; example: string; more?: string },
): string {
  return `Usage: lowrank ${call}\n\n${describeOptions(table)}\n${
    more && `\n${wrap(more.replaceAll("\n", " "), 80)}\n`
  }\nExample:\n  ${example}`;
}
