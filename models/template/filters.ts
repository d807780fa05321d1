/** Jinja's filters and tests, with Python's meaning (jinja2 `filters.py`, `tests.py`). */
import { print, toJson } from "./printing.ts";
import { capitalize, percent, replace, splitLines, strip, textMethod } from "./text_methods.ts";
import {
  type Arguments,
  Callable,
  compare,
  contains,
  equal,
  Float,
  isList,
  isMap,
  itemsOf,
  kindOf,
  needNumber,
  numberOf,
  orElse,
  TemplateError,
  truth,
  Tuple,
  Undefined,
  type Value,
} from "./values.ts";

/** What filters need from the interpreter. */
export interface Context {
  attribute(value: Value, name: string): Value;
  filter(name: string, value: Value, args: Arguments): Value;
  test(name: string, value: Value, args: Arguments): boolean;
}

type Filter = (value: Value, args: Arguments, context: Context) => Value;

/** The argument at a place or of a name; `absent` where it is not given. */
function argument({ list, named }: Arguments, place: number, name: string, absent: Value): Value {
  return orElse(list[place], orElse(named.get(name), absent));
}

const none: Arguments = { list: [], named: new Map() };
const rest = ({ list, named }: Arguments): Arguments => ({ list: list.slice(1), named });
const folded = (value: Value, cased: Value): Value =>
  typeof value === "string" && !truth(cased) ? value.toLowerCase() : value;

/** What an attribute like `a.b` or `0` gives of each item; without one, the item. */
function getter(attribute: Value, { attribute: get }: Context, absent?: Value): (item: Value) => Value {
  if (attribute === null) return (item) => item;
  const names = print(attribute).split(".");
  return (item) => {
    let found = item;
    for (const name of names) {
      if (isList(found) || found instanceof Tuple) found = orElse(itemsOf(found)[Number(name)], new Undefined(name));
      else found = get(found, name);
    }
    return found instanceof Undefined && absent !== undefined ? absent : found;
  };
}

/** Items for `map`, `select` and their like, to which what is empty or false has none. */
const walked = (value: Value): readonly Value[] => truth(value) ? itemsOf(value) : [];

/** Items that a test holds for, or with `wanted` false does not. */
function choose(value: Value, args: Arguments, context: Context, by: (item: Value) => Value, wanted: boolean): Value {
  const [name] = args.list;
  const holds = (item: Value) => name === undefined ? truth(by(item)) : context.test(print(name), by(item), rest(args));
  return walked(value).filter((item) => holds(item) === wanted);
}

function extreme(value: Value, args: Arguments, context: Context, sign: number): Value {
  const cased = argument(args, 0, "case_sensitive", false);
  const key = getter(argument(args, 1, "attribute", null), context);
  const [first, ...others] = itemsOf(value);
  if (first === undefined) return new Undefined("the extreme of no items");
  const size = (item: Value) => folded(key(item), cased);
  return others.reduce((best, item) => sign * compare(size(item), size(best)) > 0 ? item : best, first);
}

function toInteger(value: Value, args: Arguments): Value {
  const absent = argument(args, 0, "default", 0), base = numberOf(argument(args, 1, "base", 10)) ?? 10;
  const number = numberOf(value);
  if (number !== null) return Number.isFinite(number) ? Math.trunc(number) : absent;
  if (typeof value !== "string") return absent;
  const text = strip(value, null).replaceAll("_", "");
  if (base === 10 ? /^[+-]?\d+$/.test(text) : /^[+-]?(0x)?[\da-z]+$/i.test(text)) {
    const found = parseInt(text.replace(/0x/i, ""), base);
    if (!Number.isNaN(found)) return found;
  }
  const float = toFloat(text);
  return float === null || !Number.isFinite(float) ? absent : Math.trunc(float);
}

function toFloat(text: string): number | null {
  const plain = strip(text, null);
  if (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain)) return Number(plain);
  if (/^[+-]?inf(inity)?$/i.test(plain)) return plain.startsWith("-") ? -Infinity : Infinity;
  return /^[+-]?nan$/i.test(plain) ? NaN : null;
}

/** Rounded to a number of digits; halves to the even neighbour. */
function round(value: Value, args: Arguments): Value {
  const number = needNumber(value, "round");
  const digits = numberOf(argument(args, 0, "precision", 0)) ?? 0, method = argument(args, 1, "method", "common");
  if (method === "ceil" || method === "floor") {
    const unit = 10 ** digits;
    return new Float((method === "ceil" ? Math.ceil(number * unit) : Math.floor(number * unit)) / unit);
  }
  if (!(value instanceof Float) && digits >= 0) return number;
  const scaled = number * 10 ** digits, low = Math.floor(scaled);
  const whole = scaled - low === 0.5 ? low + (low % 2 === 0 ? 0 : 1) : Math.round(scaled);
  const found = scaled - low === 0.5
    ? whole / 10 ** digits
    : digits >= 0
    ? Number(number.toFixed(digits))
    : whole / 10 ** digits;
  return value instanceof Float ? new Float(found) : found;
}

function indent(text: string, args: Arguments): string {
  const width = argument(args, 0, "width", 4),
    mark = typeof width === "string" ? width : " ".repeat(numberOf(width) ?? 0);
  const first = truth(argument(args, 1, "first", false)), blank = truth(argument(args, 2, "blank", false));
  const [start, ...lines] = splitLines(text + "\n");
  const others = lines.map((line) => line === "" && !blank ? "" : mark + line);
  return (first ? mark : "") + [start, ...others].join("\n");
}

function groups(value: Value, size: number, fill: Value | undefined): Value {
  const items = itemsOf(value);
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i): Value => {
    const some = items.slice(i * size, (i + 1) * size);
    return fill === undefined || fill === null ? some : [...some, ...Array<Value>(size - some.length).fill(fill)];
  });
}

const text = (make: (value: string, args: Arguments) => Value): Filter => (value, args) => make(print(value), args);
const escapes: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&#34;",
  "'": "&#39;",
};
const escape = text((s) => s.replace(/[&<>"']/g, (c) => escapes[c]));
const length: Filter = (value) => isMap(value) ? value.size : itemsOf(value).length;
const orDefault: Filter = (value, args) => {
  const absent = argument(args, 0, "default_value", ""), falsy = truth(argument(args, 1, "boolean", false));
  return value instanceof Undefined || (falsy && !truth(value)) ? absent : value;
};

const filters: Readonly<Record<string, Filter>> = {
  abs: (value) => value instanceof Float ? new Float(Math.abs(value.value)) : Math.abs(needNumber(value, "abs")),
  attr: (value, { list: [name] }, { attribute }) => attribute(value, print(name)),
  batch: (value, { list: [size, fill] }) => groups(value, numberOf(size) ?? 1, fill),
  capitalize: text(capitalize),
  center: (value, { list: [width = 80] }) => textMethod(print(value), "center")!.call({ ...none, list: [width] }),
  count: length,
  d: orDefault,
  default: orDefault,
  dictsort: (value, args) => {
    if (!isMap(value)) throw new TemplateError(`dictsort takes a mapping, not ${kindOf(value)}`);
    const cased = argument(args, 0, "case_sensitive", false), by = argument(args, 1, "by", "key") === "key" ? 0 : 1;
    const sign = truth(argument(args, 2, "reverse", false)) ? -1 : 1;
    return [...value].sort((a, b) => sign * compare(folded(a[by], cased), folded(b[by], cased))).map((pair) =>
      new Tuple(pair)
    );
  },
  e: escape,
  escape,
  first: (value) => orElse(itemsOf(value)[0], new Undefined("the first of no items")),
  float: (value, args) => {
    const number = typeof value === "string" ? toFloat(value) : numberOf(value);
    return number === null ? argument(args, 0, "default", new Float(0)) : new Float(number);
  },
  forceescape: escape,
  format: (value, { list }) => percent(print(value), new Tuple(list)),
  groupby: (value, args, context) => {
    const key = getter(argument(args, 0, "attribute", null), context, args.named.get("default"));
    const sorted = itemsOf(value).toSorted((a, b) => compare(folded(key(a), false), folded(key(b), false)));
    const found: { key: Value; items: Value[] }[] = [];
    for (const item of sorted) {
      const last = found.at(-1);
      if (last !== undefined && equal(folded(last.key, false), folded(key(item), false))) last.items.push(item);
      else found.push({ key: key(item), items: [item] });
    }
    return found.map(({ key, items }) => new Tuple([key, items]));
  },
  indent: text(indent),
  int: toInteger,
  items: (value) => {
    if (value instanceof Undefined) return [];
    if (!isMap(value)) throw new TemplateError(`items takes a mapping, not ${kindOf(value)}`);
    return [...value].map((pair) => new Tuple(pair));
  },
  join: (value, args, context) => {
    const get = getter(argument(args, 1, "attribute", null), context);
    return itemsOf(value).map((item) => print(get(item))).join(print(argument(args, 0, "d", "")));
  },
  last: (value) => orElse(itemsOf(value).at(-1), new Undefined("the last of no items")),
  length,
  list: (value) => [...itemsOf(value)],
  lower: text((s) => s.toLowerCase()),
  map: (value, args, context) => {
    const attribute = args.named.get("attribute");
    if (attribute !== undefined) return walked(value).map(getter(attribute, context, args.named.get("default")));
    const [name] = args.list;
    if (name === undefined) throw new TemplateError("map needs a filter or an attribute");
    return walked(value).map((item) => context.filter(print(name), item, rest(args)));
  },
  max: (value, args, context) => extreme(value, args, context, 1),
  min: (value, args, context) => extreme(value, args, context, -1),
  reject: (value, args, context) => choose(value, args, context, (item) => item, false),
  rejectattr: (value, args, context) => choose(value, rest(args), context, getter(args.list[0], context), false),
  replace: text((s, args) => {
    const count = argument(args, 2, "count", null);
    return replace(s, print(argument(args, 0, "old", "")), print(argument(args, 1, "new", "")), numberOf(count) ?? -1);
  }),
  reverse: (value) => typeof value === "string" ? [...value].reverse().join("") : itemsOf(value).toReversed(),
  round,
  safe: (value) => print(value),
  select: (value, args, context) => choose(value, args, context, (item) => item, true),
  selectattr: (value, args, context) => choose(value, rest(args), context, getter(args.list[0], context), true),
  slice: (value, { list: [count, fill = null] }) => {
    const items = itemsOf(value),
      n = numberOf(count) ?? 1,
      least = Math.floor(items.length / n),
      more = items.length % n;
    return Array.from({ length: n }, (_, i): Value => {
      const start = i * least + Math.min(i, more), some = items.slice(start, start + least + (i < more ? 1 : 0));
      return fill !== null && i >= more ? [...some, fill] : some;
    });
  },
  sort: (value, args, context) => {
    const sign = truth(argument(args, 0, "reverse", false)) ? -1 : 1,
      cased = argument(args, 1, "case_sensitive", false);
    const attributes = argument(args, 2, "attribute", null);
    const keys = attributes === null ? [null] : print(attributes).split(",");
    const gets = keys.map((key) => getter(key, context));
    return itemsOf(value).toSorted((a, b) => {
      for (const get of gets) {
        const order = compare(folded(get(a), cased), folded(get(b), cased));
        if (order !== 0) return sign * order;
      }
      return 0;
    });
  },
  string: (value) => print(value),
  sum: (value, args, context) => {
    const get = getter(argument(args, 0, "attribute", null), context);
    const items = [argument(args, 1, "start", 0), ...itemsOf(value).map(get)];
    const total = items.reduce((sum: number, item) => sum + needNumber(item, "sum"), 0);
    return items.some((item) => item instanceof Float) ? new Float(total) : total;
  },
  title: text((s) => s.split(/([-\s({[<]+)/).map(capitalize).join("")),
  tojson: (value, { list, named }) =>
    toJson(value, {
      ensure_ascii: list[0],
      indent: list[1],
      separators: list[2],
      sort_keys: list[3],
      ...Object.fromEntries(named),
    }),
  trim: (value, args) => strip(print(value), argument(args, 0, "chars", null)),
  truncate: text((s, args) => {
    const most = numberOf(argument(args, 0, "length", 255)) ?? 255, end = print(argument(args, 2, "end", "..."));
    const leeway = numberOf(argument(args, 3, "leeway", 5)) ?? 5, letters = [...s];
    if (letters.length <= most + leeway) return s;
    const cut = letters.slice(0, most - [...end].length).join("");
    if (truth(argument(args, 1, "killwords", false))) return cut + end;
    const space = cut.lastIndexOf(" ");
    return (space < 0 ? cut : cut.slice(0, space)) + end;
  }),
  unique: (value, args, context) => {
    const cased = argument(args, 0, "case_sensitive", false),
      get = getter(argument(args, 1, "attribute", null), context);
    const seen: Value[] = [];
    return itemsOf(value).filter((item) => {
      const key = folded(get(item), cased);
      return seen.some((other) => equal(other, key)) ? false : seen.push(key) > 0;
    });
  },
  upper: text((s) => s.toUpperCase()),
  urlencode: text((s) =>
    encodeURIComponent(s).replace(/%2F/g, "/").replace(
      /[!'()*]/g,
      (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
    )
  ),
  wordcount: text((s) => s.match(/[\p{L}\p{N}_]+/gu)?.length ?? 0),
};

const isNumber = (value: Value) => numberOf(value) !== null;
const order = (holds: (sign: number) => boolean): Test => (value, [other]) => holds(compare(value, other));
const same: Test = (value, [other]) => equal(value, other);
type Test = (value: Value, args: readonly Value[]) => boolean;

const tests: Readonly<Record<string, Test>> = {
  boolean: (value) => typeof value === "boolean",
  callable: (value) => value instanceof Callable,
  defined: (value) => !(value instanceof Undefined),
  divisibleby: (value, [by]) => needNumber(value, "divisibleby") % needNumber(by, "divisibleby") === 0,
  eq: same,
  equalto: same,
  escaped: () => false,
  even: (value) => needNumber(value, "even") % 2 === 0,
  false: (value) => value === false,
  filter: (value) => typeof value === "string" && Object.hasOwn(filters, value),
  float: (value) => value instanceof Float,
  ge: order((sign) => sign >= 0),
  greaterthan: order((sign) => sign > 0),
  gt: order((sign) => sign > 0),
  in: (value, [container]) => contains(container, value),
  integer: (value) => typeof value === "number",
  iterable: (value) =>
    value instanceof Undefined || typeof value === "string" || isList(value) || isMap(value) || value instanceof Tuple,
  le: order((sign) => sign <= 0),
  lessthan: order((sign) => sign < 0),
  lower: (value) => truth(textMethod(print(value), "islower")!.call(none)),
  lt: order((sign) => sign < 0),
  mapping: isMap,
  ne: (value, [other]) => !equal(value, other),
  none: (value) => value === null,
  number: isNumber,
  odd: (value) => Math.abs(needNumber(value, "odd") % 2) === 1,
  sameas: (value, [other]) => value === other,
  sequence: (value) =>
    value instanceof Undefined || typeof value === "string" || isList(value) || isMap(value) || value instanceof Tuple,
  string: (value) => typeof value === "string",
  true: (value) => value === true,
  undefined: (value) => value instanceof Undefined,
  upper: (value) => truth(textMethod(print(value), "isupper")!.call(none)),
};

const signs: Readonly<Record<string, string>> = {
  "==": "eq",
  "!=": "ne",
  "<": "lt",
  "<=": "le",
  ">": "gt",
  ">=": "ge",
};

/** The name of the filter that a test is, for one that has arguments. No template can write it. */
export function testFilter(test: string, negated: boolean): string {
  return `${negated ? "is not " : "is "}${test}`;
}

/** Applies a filter. */
export function applyFilter(name: string, value: Value, args: Arguments, context: Context): Value {
  const test = /^is (not )?(.*)$/.exec(name);
  if (test) return applyTest(test[2], value, args) !== (test[1] !== undefined);
  if (!Object.hasOwn(filters, name)) throw new TemplateError(`the filter ${name} is not known`);
  return filters[name](value, args, context);
}

/** Applies a test. */
export function applyTest(name: string, value: Value, { list }: Arguments): boolean {
  const plain = Object.hasOwn(signs, name) ? signs[name] : name === "None" ? "none" : name;
  if (!Object.hasOwn(tests, plain)) throw new TemplateError(`the test ${name} is not known`);
  return tests[plain](value, list);
}
