/** Options as a table: one entry says what an option takes, and flags, configuration files, help and docs follow from it. */
import { OptionError } from "../../core/errors.ts";
import { nearest } from "../../core/host/nearest.ts";
import { ourName, suggestionFor } from "./foreign_options.ts";

/** One option. */
export interface Option {
  /**
   * `switch` is true or false, `whole` a whole number, `list` several names (a flag splits them at commas), `texts` one text
   * each time that the flag is given.
   */
  readonly kind: "text" | "whole" | "number" | "switch" | "list" | "texts";
  /** One sentence without a full stop. */
  readonly help: string;
  /** What help calls the value: `FOLDER`. */
  readonly value?: string;
  readonly default?: string | number | boolean | readonly string[] | null;
  /** The only values that a `text` may have. */
  readonly choices?: readonly string[];
  /** Bounds of a number, allowed themselves. */
  readonly least?: number;
  readonly most?: number;
  /** A bound that is not allowed itself. */
  readonly above?: number;
  /** Whether it may change when a run is resumed: it does not change what is computed. */
  readonly free?: boolean;
  /** What the text names is read from there before it is used. */
  readonly loads?: "model";
}

/** Options by name, in camelCase: users write `maskPrompt` as `mask-prompt`. */
export type OptionTable = Readonly<Record<string, Option>>;

/** The table of some options: an entry for each of them and no other, so that what is documented is what is read. */
export type TableOf<O> = { readonly [K in keyof O]-?: Option };

interface Kinds {
  text: string;
  whole: number;
  number: number;
  switch: boolean;
  list: readonly string[];
  texts: readonly string[];
}
type ValueOf<O extends Option> = O extends { choices: readonly (infer C)[] } ? C : Kinds[O["kind"]];

/** The values of a table, where each may be left out. */
export type Given<T extends OptionTable> = { readonly [K in keyof T]?: ValueOf<T[K]> };

/** The values of a table with its defaults filled in; those without a default may be undefined. */
export type Resolved<T extends OptionTable> = {
  readonly [K in keyof T]: T[K] extends { default: infer D } ? (D extends null ? ValueOf<T[K]> | null : ValueOf<T[K]>)
    : ValueOf<T[K]> | undefined;
};

/** `maskPrompt` as users write it: `mask-prompt`. */
export function writtenName(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** The name in the table of what a user wrote, or null. */
export function tableName(table: OptionTable, written: string): string | null {
  return Object.keys(table).find((name) => writtenName(name) === written) ?? null;
}

/**
 * `; did you mean --steps?` where some option is near, `; here it is --steps` or what holds instead where another tool has
 * an option of that name; else nothing.
 */
export function suggestion(table: OptionTable, written: string, dashes = ""): string {
  const names = Object.entries(table).flatMap(([name, { kind, default: value }]) =>
    kind === "switch" && value === true ? [writtenName(name), `no-${writtenName(name)}`] : [writtenName(name)]
  );
  const same = ourName(written);
  if (same !== null) return names.includes(same) ? `; here it is ${dashes}${same}` : "";
  const answer = suggestionFor(written);
  if (answer !== null) return answer && `; ${answer}`;
  const near = nearest(written.replaceAll("_", "-"), names);
  return near === null ? "" : `; did you mean ${dashes}${near}?`;
}

/**
 * Checks one value, which may be text as a flag gives it. `place` begins the sentence: `--steps`.
 *
 * @throws {OptionError} when it is not what the option takes
 */
export function checkValue(
  { kind, choices, least = -Infinity, most = Infinity, above = -Infinity }: Option,
  value: unknown,
  place: string,
): ValueOf<Option> {
  const refuse = (wanted: string): never => {
    throw new OptionError(`${place} is ${describeValue(value)}: give ${wanted}`);
  };
  if (kind === "switch") return typeof value === "boolean" ? value : refuse("true or false");
  if (kind === "list") {
    const texts = typeof value === "string" ? value.split(",").map((part) => part.trim()) : value;
    const whole = Array.isArray(texts) && texts.length > 0 &&
      texts.every((text) => typeof text === "string" && text !== "");
    return whole ? texts as string[] : refuse("one or more names, separated by commas");
  }
  if (kind === "texts") {
    return (Array.isArray(value) ? value : [value]).map((text): string =>
      checkValue({ kind: "text", help: "" }, text, place) as string
    );
  }
  if (kind === "text") {
    if (choices !== undefined && !choices.includes(value as string)) refuse(`one of ${choices.join(", ")}`);
    return typeof value === "string" && value !== "" ? value : refuse("a text");
  }
  const number = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
  const fits = typeof number === "number" && Number.isFinite(number) &&
    (kind === "number" || Number.isSafeInteger(number)) &&
    number >= least && number <= most && number > above;
  return fits ? number as number : refuse(describeNumber(kind, least, most, above));
}

/** A value for a sentence. What is nested is not written out: a few lines of YAML can stand for gigabytes. */
function describeValue(value: unknown): string {
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? "a list" : "a mapping";
  return value === "" ? "empty" : String(value);
}

function describeNumber(kind: "whole" | "number", least: number, most: number, above: number): string {
  const noun = kind === "whole" ? "a whole number" : "a number";
  if (above > -Infinity) return `${noun} above ${above}${most < Infinity ? `, up to ${most}` : ""}`;
  if (least > -Infinity && most < Infinity) return `${noun} from ${least} to ${most}`;
  return least > -Infinity ? `${noun} of at least ${least}` : noun;
}

/** The defaults of a table with given values over them. */
export function resolveOptions<T extends OptionTable>(table: T, given: Given<T>): Resolved<T> {
  const entries = Object.entries(table).map(([name, { default: value }]) => [name, given[name] ?? value]);
  return Object.fromEntries(entries) as Resolved<T>;
}

const valueNames = { text: "TEXT", texts: "TEXT", list: "A,B", whole: "N", number: "X" };

/** The lines of `--help` for a table. */
export function describeOptions(table: OptionTable): string {
  const heads = Object.entries(table).map(([name, { kind, value, default: preset }]) =>
    kind === "switch"
      ? `  --${preset === true ? "[no-]" : ""}${writtenName(name)}`
      : `  --${writtenName(name)} ${value ?? valueNames[kind]}`
  );
  const width = Math.max(...heads.map((head) => head.length)) + 2;
  return Object.values(table).map((option, i) => {
    const about = [
      option.choices && option.choices.join(" | "),
      option.kind !== "switch" && option.default !== undefined && option.default !== null &&
      `default ${option.default}`,
      option.kind === "switch" && option.default === true && "on by default",
    ].filter(Boolean).join("; ");
    return `${heads[i].padEnd(width)}${wrap(option.help + (about === "" ? "" : ` (${about})`), 80 - width, width)}`;
  }).join("\n");
}

/** Text in lines of at most `columns`, all but the first indented. */
export function wrap(text: string, columns: number, indent = 0): string {
  const lines = [""];
  for (const word of text.split(" ")) {
    const line = lines.at(-1)!;
    if (line !== "" && line.length + 1 + word.length > columns) lines.push(word);
    else lines[lines.length - 1] = line === "" ? word : `${line} ${word}`;
  }
  return lines.join(`\n${" ".repeat(indent)}`);
}
