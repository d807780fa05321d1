/** Python's methods of texts. */
import { print } from "./printing.ts";
import { type Arguments, Callable, itemsOf, kindOf, numberOf, TemplateError, Tuple, type Value } from "./values.ts";

/** Python's white space: `str.isspace`. */
const space = "[\\t-\\r\\x1c-\\x1f \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const leadingSpace = new RegExp(`^${space}+`),
  trailingSpace = new RegExp(`${space}+$`),
  spaces = new RegExp(`${space}+`);

/** `text.strip(characters)`, at the sides that are asked for. */
export function strip(text: string, characters: Value, sides: "both" | "left" | "right" = "both"): string {
  if (characters !== null && typeof characters !== "string") throw new TemplateError("strip takes characters");
  let found = text;
  if (characters === null) {
    if (sides !== "right") found = found.replace(leadingSpace, "");
    return sides === "left" ? found : found.replace(trailingSpace, "");
  }
  const set = new Set(characters), letters = [...found];
  let [start, end] = [0, letters.length];
  if (sides !== "right") { while (start < end && set.has(letters[start])) start++; }
  if (sides !== "left") { while (end > start && set.has(letters[end - 1])) end--; }
  return letters.slice(start, end).join("");
}

function split(text: string, separator: Value, most: number, fromRight: boolean): string[] {
  if (separator === null) {
    const words = fromRight ? text.replace(trailingSpace, "") : text.replace(leadingSpace, "");
    if (most < 0) return strip(words, null) === "" ? [] : strip(words, null).split(spaces);
    return splitSome(words, most, fromRight);
  }
  if (typeof separator !== "string" || separator === "") {
    throw new TemplateError("split takes a text that is not empty");
  }
  const parts = text.split(separator);
  if (most < 0 || parts.length <= most + 1) return parts;
  return fromRight
    ? [parts.slice(0, -most || undefined).join(separator), ...(most === 0 ? [] : parts.slice(-most))]
    : [...parts.slice(0, most), parts.slice(most).join(separator)];
}

/** At most this many splits at white space. */
function splitSome(text: string, most: number, fromRight: boolean): string[] {
  const words: string[] = [];
  let rest = text;
  while (rest !== "" && words.length < most) {
    const match = (fromRight ? new RegExp(`${space}+(?=[^]?)(?![^]*${space})`) : spaces).exec(rest);
    if (match === null) break;
    words.push(fromRight ? rest.slice(match.index + match[0].length) : rest.slice(0, match.index));
    rest = fromRight ? strip(rest.slice(0, match.index), null, "right") : rest.slice(match.index + match[0].length);
  }
  if (rest !== "") words.push(rest);
  return fromRight ? words.reverse() : words;
}

/** Words with a capital first letter: a letter is the first where none is before it. */
export function title(text: string): string {
  return text.replace(/\p{L}[\p{L}\p{M}]*/gu, capitalize);
}

/** The first letter large, the others small. */
export function capitalize(text: string): string {
  const [first = "", ...rest] = text;
  return first.toUpperCase() + rest.join("").toLowerCase();
}

/** `text.replace(old, new, count)`. */
export function replace(text: string, old: string, by: string, count = -1): string {
  if (count < 0) return old === "" ? by + [...text].map((c) => c + by).join("") : text.replaceAll(old, () => by);
  const parts = old === "" ? ["", ...text, ""] : text.split(old);
  const n = Math.min(count, parts.length - 1);
  return parts.slice(0, n + 1).join(by) + parts.slice(n + 1).map((part) => old + part).join("");
}

const ends = "\\n-\\r\\x1c-\\x1e\\x85\\u2028\\u2029";
const lineEnds = new RegExp(`\\r\\n|[${ends}]`, "g");

/** Lines, with or without their ends. */
export function splitLines(text: string, keepEnds = false): string[] {
  const lines: string[] = [];
  let start = 0;
  for (const { 0: end, index } of text.matchAll(lineEnds)) {
    lines.push(text.slice(start, keepEnds ? index + end.length : index));
    start = index + end.length;
  }
  return start < text.length ? [...lines, text.slice(start)] : lines;
}

/** `text.format(…)`, for the fields and the few formats that templates use. */
function formatFields(text: string, { list, named }: Arguments): string {
  let next = 0;
  return text.replace(/\{\{|\}\}|\{(\w*)(?::([^{}]*))?\}/g, (found, field?: string, format = "") => {
    if (found === "{{" || found === "}}") return found[0];
    const value = field === "" ? list[next++] : /^\d+$/.test(field!) ? list[Number(field)] : named.get(field!);
    if (value === undefined) throw new TemplateError(`format has no value for ${found}`);
    return formatValue(value, format);
  });
}

function formatValue(value: Value, format: string): string {
  if (format === "") return print(value);
  const match = /^(?:(.)?([<>^]))?(0)?(\d*)(?:\.(\d+))?([dfs%]?)$/su.exec(format);
  if (!match) throw new TemplateError(`the format ${format} is not known here`);
  const [, fill = " ", align, zero, width, digits, kind] = match;
  const number = numberOf(value);
  let text = number !== null && (kind === "f" || (digits !== undefined && kind !== "s"))
    ? number.toFixed(Number(digits ?? 6))
    : print(value);
  if (typeof value === "string" && digits !== undefined) text = text.slice(0, Number(digits));
  const missing = Math.max(0, Number(width || 0) - text.length);
  if (zero && number !== null) {
    return text.startsWith("-") ? `-${"0".repeat(missing)}${text.slice(1)}` : "0".repeat(missing) + text;
  }
  const side = align ?? (number === null ? "<" : ">");
  const left = side === ">" ? missing : side === "^" ? Math.floor(missing / 2) : 0;
  return fill.repeat(left) + text + fill.repeat(missing - left);
}

/** `text % values`. */
export function percent(text: string, value: Value): string {
  const values = value instanceof Tuple ? [...value.items] : [value];
  return text.replace(
    /%(?:%|([-0]?)(\d*)(?:\.(\d+))?([sdifr]))/g,
    (found, flag?: string, width?: string, digits?: string, kind?: string) => {
      if (found === "%%") return "%";
      const item = values.shift();
      if (item === undefined) throw new TemplateError("there are fewer values than places in the text");
      const number = numberOf(item);
      if (kind !== "s" && kind !== "r" && number === null) throw new TemplateError(`${kindOf(item)} is not a number`);
      const plain = kind === "f"
        ? number!.toFixed(Number(digits ?? 6))
        : kind === "s"
        ? print(item)
        : String(Math.trunc(number ?? 0));
      return flag === "-" ? plain.padEnd(Number(width)) : plain.padStart(Number(width || 0), flag === "0" ? "0" : " ");
    },
  );
}

const every = (text: string, pattern: RegExp) => text !== "" && [...text].every((c) => pattern.test(c));
const pad = (text: string, width: Value, fill: Value, side: "left" | "right" | "both") => {
  const missing = Math.max(0, (numberOf(width) ?? 0) - [...text].length), mark = print(fill);
  const before = side === "left"
    ? missing
    : side === "right"
    ? 0
    : Math.floor(missing / 2) + (missing & (numberOf(width) ?? 0) & 1);
  return mark.repeat(before) + text + mark.repeat(missing - before);
};

type Method = (text: string, args: readonly Value[], all: Arguments) => Value;

const textOf = (value: Value | undefined, of: string): string => {
  if (typeof value === "string") return value;
  throw new TemplateError(`${of} takes a text, not ${value === undefined ? "nothing" : kindOf(value)}`);
};
const oneOf = (value: Value, of: string): string[] =>
  value instanceof Tuple ? value.items.map((item) => textOf(item, of)) : [textOf(value, of)];
/** The part of a text that `find`, `count` and others look at, by code points. */
const within = (
  text: string,
  start: Value | undefined,
  end: Value | undefined,
): { letters: string[]; from: number } => {
  const letters = [...text];
  const place = (value: Value | undefined, absent: number) => {
    const n = value === undefined || value === null ? absent : numberOf(value) ?? absent;
    return Math.max(0, Math.min(letters.length, n < 0 ? letters.length + n : n));
  };
  const from = place(start, 0);
  return { letters: letters.slice(from, place(end, letters.length)), from };
};
const find = (text: string, args: readonly Value[], last: boolean): number => {
  const { letters, from } = within(text, args[1], args[2]);
  const part = letters.join(""), wanted = textOf(args[0], "find");
  const at = last ? part.lastIndexOf(wanted) : part.indexOf(wanted);
  return at < 0 ? -1 : from + [...part.slice(0, at)].length;
};
const parts = (text: string, separator: string, last: boolean): Value => {
  const at = last ? text.lastIndexOf(separator) : text.indexOf(separator);
  if (at < 0) return new Tuple(last ? ["", "", text] : [text, "", ""]);
  return new Tuple([text.slice(0, at), separator, text.slice(at + separator.length)]);
};

const methods: Readonly<Record<string, Method>> = {
  strip: (text, [characters = null]) => strip(text, characters),
  lstrip: (text, [characters = null]) => strip(text, characters, "left"),
  rstrip: (text, [characters = null]) => strip(text, characters, "right"),
  split: (text, args, all) => splitWith(text, args, all, false),
  rsplit: (text, args, all) => splitWith(text, args, all, true),
  splitlines: (text, [keep = false]) => splitLines(text, keep === true),
  join: (text, [items = []]) => itemsOf(items).map((item) => textOf(item, "join")).join(text),
  replace: (text, [old, by, count = -1], { named }) =>
    replace(text, textOf(old, "replace"), textOf(by, "replace"), numberOf(named.get("count") ?? count) ?? -1),
  startswith: (text, [start = null, from, to]) => {
    const part = within(text, from, to).letters.join("");
    return oneOf(start, "startswith").some((s) => part.startsWith(s));
  },
  endswith: (text, [end = null, from, to]) => {
    const part = within(text, from, to).letters.join("");
    return oneOf(end, "endswith").some((s) => part.endsWith(s));
  },
  upper: (text) => text.toUpperCase(),
  lower: (text) => text.toLowerCase(),
  casefold: (text) => text.toLowerCase().replaceAll("ß", "ss").replaceAll("ς", "σ"),
  swapcase: (text) => Array.from(text, (c) => c === c.toLowerCase() ? c.toUpperCase() : c.toLowerCase()).join(""),
  title: (text) => title(text),
  capitalize: (text) => capitalize(text),
  find: (text, args) => find(text, args, false),
  rfind: (text, args) => find(text, args, true),
  index: (text, args) => {
    const at = find(text, args, false);
    if (at < 0) throw new TemplateError("a text is not in the text where it is looked for");
    return at;
  },
  count: (text, [wanted, from, to]) => {
    const part = within(text, from, to).letters.join(""), sought = textOf(wanted, "count");
    return sought === "" ? [...part].length + 1 : part.split(sought).length - 1;
  },
  removeprefix: (text, [prefix]) => {
    const start = textOf(prefix, "removeprefix");
    return text.startsWith(start) ? text.slice(start.length) : text;
  },
  removesuffix: (text, [suffix]) => {
    const end = textOf(suffix, "removesuffix");
    return end !== "" && text.endsWith(end) ? text.slice(0, -end.length) : text;
  },
  partition: (text, [separator]) => parts(text, textOf(separator, "partition"), false),
  rpartition: (text, [separator]) => parts(text, textOf(separator, "rpartition"), true),
  format: (text, _, all) => formatFields(text, all),
  zfill: (text, [width = 0]) =>
    /^[+-]/.test(text)
      ? text[0] + pad(text.slice(1), (numberOf(width) ?? 1) - 1, "0", "left")
      : pad(text, width, "0", "left"),
  ljust: (text, [width = 0, fill = " "]) => pad(text, width, fill, "right"),
  rjust: (text, [width = 0, fill = " "]) => pad(text, width, fill, "left"),
  center: (text, [width = 0, fill = " "]) => pad(text, width, fill, "both"),
  isspace: (text) => every(text, new RegExp(space)),
  isdigit: (text) => every(text, /[\p{Nd}²³¹⁰-⁹₀-₉①-⑨]/u),
  isdecimal: (text) => every(text, /\p{Nd}/u),
  isnumeric: (text) => every(text, /\p{N}/u),
  isalpha: (text) => every(text, /\p{L}/u),
  isalnum: (text) => every(text, /[\p{L}\p{N}]/u),
  isupper: (text) => /\p{Lu}/u.test(text) && !/\p{Ll}/u.test(text),
  islower: (text) => /\p{Ll}/u.test(text) && !/\p{Lu}/u.test(text),
};

function splitWith(
  text: string,
  [separator, most]: readonly Value[],
  { named }: Arguments,
  fromRight: boolean,
): string[] {
  const by = named.get("sep") ?? separator ?? null, count = named.get("maxsplit") ?? most ?? -1;
  return split(text, by, numberOf(count) ?? -1, fromRight);
}

/** A method of a text; undefined where Python has none of that name. */
export function textMethod(text: string, name: string): Callable | undefined {
  const method = Object.hasOwn(methods, name) ? methods[name] : undefined;
  return method && new Callable(name, (args) => method(text, args.list, args));
}
