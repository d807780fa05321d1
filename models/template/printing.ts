/** Values as text: as Python prints them, and as its `json.dumps` writes them. */
import {
  Attributes,
  Callable,
  Float,
  isList,
  isMap,
  kindOf,
  Namespace,
  numberOf,
  TemplateError,
  truth,
  Tuple,
  Undefined,
  type Value,
} from "./values.ts";

/** `str(value)`. */
export function print(value: Value): string {
  if (typeof value === "string") return value;
  return value instanceof Undefined ? "" : repr(value);
}

/** `repr(value)`: what a value looks like inside a list. */
export function repr(value: Value): string {
  if (value === null) return "None";
  if (typeof value === "string") return quote(value);
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number") return BigInt(value).toString();
  if (value instanceof Float) return printFloat(value.value);
  if (isList(value)) return `[${value.map(repr).join(", ")}]`;
  if (value instanceof Tuple) {
    return value.items.length === 1 ? `(${repr(value.items[0])},)` : `(${value.items.map(repr).join(", ")})`;
  }
  if (isMap(value)) return `{${[...value].map(([key, item]) => `${repr(key)}: ${repr(item)}`).join(", ")}}`;
  if (value instanceof Undefined) return "Undefined";
  if (value instanceof Callable || value instanceof Attributes) return `<${value.name}>`;
  return value instanceof Namespace ? "<Namespace>" : kindOf(value);
}

/** A float's shortest digits; from 1e16 on and below 1e-4 with an exponent. */
function printFloat(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (Object.is(value, -0)) return "-0.0";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e16 || size < 1e-4)) {
    const [digits, exponent] = value.toExponential().split("e");
    return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
  }
  const text = String(value);
  return text.includes(".") ? text : `${text}.0`;
}

const named: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\" };

function quote(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  const body = text.replace(/[^ -~]|[\\'"]/gu, (c) => {
    if (c === mark) return `\\${c}`;
    if (Object.hasOwn(named, c)) return named[c];
    if (c === "'" || c === '"') return c;
    if (!/[\p{C}\p{Zl}\p{Zp}\p{Zs}]/u.test(c)) return c;
    const code = c.codePointAt(0)!;
    const hex = (digits: number) => code.toString(16).padStart(digits, "0");
    return code < 0x100 ? `\\x${hex(2)}` : code < 0x10000 ? `\\u${hex(4)}` : `\\U${hex(8)}`;
  });
  return mark + body + mark;
}

/** How JSON is written. */
export interface JsonStyle {
  /** What is put before each level: a text, or a number of spaces. */
  readonly indent?: Value;
  /** What stands between items, and between a key and its value. */
  readonly separators?: Value;
  readonly sort_keys?: Value;
  readonly ensure_ascii?: Value;
}

/** `json.dumps(value)`, with characters as they are. */
export function toJson(value: Value, style: JsonStyle): string {
  const { indent = null, separators = null, sort_keys: sorts = false, ensure_ascii: ascii = false } = style;
  const step = indent === null
    ? null
    : typeof indent === "string"
    ? indent
    : " ".repeat(Math.max(0, numberOf(indent) ?? 0));
  const given = separators instanceof Tuple ? separators.items : isList(separators) ? separators : null;
  const [between, after] = given === null ? [step === null ? ", " : ",", ": "] : given.map(print);
  const text = (s: string) => {
    const json = JSON.stringify(s);
    return truth(ascii)
      ? json.replace(/[\x80-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`)
      : json;
  };
  const wrap = (open: string, parts: readonly string[], close: string, level: string) => {
    if (parts.length === 0) return open + close;
    if (step === null) return open + parts.join(between) + close;
    const deeper = `\n${level}${step}`;
    return open + deeper + parts.join(between + deeper) + `\n${level}` + close;
  };
  const write = (item: Value, level: string): string => {
    const deeper = level + (step ?? "");
    if (item === null) return "null";
    if (typeof item === "string") return text(item);
    if (typeof item === "boolean") return String(item);
    if (typeof item === "number") return repr(item);
    if (item instanceof Float) return jsonFloat(item.value);
    const list = item instanceof Tuple ? item.items : item;
    if (isList(list)) return wrap("[", list.map((x) => write(x, deeper)), "]", level);
    if (isMap(item)) {
      const entries = [...item].map(([key, x]): [string, Value] => [jsonKey(key), x]);
      if (truth(sorts)) entries.sort(([a], [b]) => a < b ? -1 : 1);
      return wrap("{", entries.map(([key, x]) => text(key) + after + write(x, deeper)), "}", level);
    }
    throw new TemplateError(`${kindOf(item)} can't be written as JSON`);
  };
  return write(value, "");
}

function jsonKey(key: Value): string {
  if (typeof key === "string") return key;
  if (key === null || typeof key === "boolean") return String(key);
  if (numberOf(key) !== null) return repr(key);
  throw new TemplateError(`${kindOf(key)} can't be a key of JSON`);
}

function jsonFloat(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  return Number.isFinite(value) ? printFloat(value) : value > 0 ? "Infinity" : "-Infinity";
}
