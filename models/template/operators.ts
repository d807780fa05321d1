/** Python's operators, attributes and subscripts on values. */
import { print } from "./printing.ts";
import { percent, textMethod } from "./text_methods.ts";
import {
  type Arguments,
  Attributes,
  Callable,
  compare,
  contains,
  equal,
  Float,
  isList,
  isMap,
  itemsOf,
  kindOf,
  Namespace,
  numberOf,
  orElse,
  TemplateError,
  Tuple,
  Undefined,
  type Value,
} from "./values.ts";

/** The most items or characters that a template may make at once. */
export const maxTemplateSize = 2 ** 24;

/** `a OP b`, for all operators but `and` and `or`. */
export function operate(operator: string, a: Value, b: Value): Value {
  switch (operator) {
    case "==":
      return equal(a, b);
    case "!=":
      return !equal(a, b);
    case "in":
      return contains(b, a);
    case "not in":
      return !contains(b, a);
    case "~":
      return print(a) + print(b);
    case "<":
      return compare(a, b) < 0;
    case "<=":
      return compare(a, b) <= 0;
    case ">":
      return compare(a, b) > 0;
    case ">=":
      return compare(a, b) >= 0;
  }
  for (const value of [a, b]) if (value instanceof Undefined) value.fail();
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== null && y !== null) return arithmetic(operator, x, y, a instanceof Float || b instanceof Float);
  if (operator === "+") {
    if (typeof a === "string" && typeof b === "string") return a + b;
    if (isList(a) && isList(b)) return [...a, ...b];
    if (a instanceof Tuple && b instanceof Tuple) return new Tuple([...a.items, ...b.items]);
  }
  if (operator === "*" && (x === null) !== (y === null)) return repeated(x === null ? a : b, (x ?? y)!);
  if (operator === "%" && typeof a === "string") return percent(a, b);
  throw new TemplateError(`${operator} is not for ${kindOf(a)} and ${kindOf(b)}`);
}

function repeated(value: Value, count: number): Value {
  const times = Math.max(0, Math.trunc(count));
  const length = typeof value === "string" ? value.length : itemsOf(value).length;
  if (length * times > maxTemplateSize) throw new TemplateError(`${length * times} items are too many for a template`);
  if (typeof value === "string") return value.repeat(times);
  const items = Array.from({ length: times }, () => itemsOf(value)).flat();
  return value instanceof Tuple ? new Tuple(items) : items;
}

function arithmetic(operator: string, x: number, y: number, float: boolean): Value {
  const make = (value: number) => float ? new Float(value) : value;
  if (y === 0 && ["/", "//", "%"].includes(operator)) throw new TemplateError("a number is divided by zero");
  switch (operator) {
    case "+":
      return make(x + y);
    case "-":
      return make(x - y);
    case "*":
      return make(x * y);
    case "/":
      return new Float(x / y);
    case "//":
      return make(Math.floor(x / y));
    case "%":
      return make(x - y * Math.floor(x / y));
    case "**":
      return float || y < 0 ? new Float(x ** y) : x ** y;
  }
  throw new TemplateError(`the operator ${operator} is not known`);
}

/** `-value` and `+value`. */
export function negate(sign: string, value: Value): Value {
  const number = numberOf(value);
  if (number === null) throw new TemplateError(`${sign} is not for ${kindOf(value)}`);
  const found = sign === "-" ? -number : number;
  return value instanceof Float ? new Float(found) : found + 0;
}

type MapMethod = (map: ReadonlyMap<Value, Value>, args: Arguments) => Value;

const mapMethods: Readonly<Record<string, MapMethod>> = {
  get: (map, { list: [key, absent = null], named }) => orElse(map.get(key), orElse(named.get("default"), absent)),
  items: (map) => [...map].map((pair) => new Tuple(pair)),
  keys: (map) => [...map.keys()],
  values: (map) => [...map.values()],
  copy: (map) => new Map(map),
};

const changing = new Set([
  ...["append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse"],
  ...["update", "setdefault", "popitem"],
]);

/** `value.name`. */
export function attributeOf(value: Value, name: string): Value {
  if (value instanceof Undefined) value.fail();
  const absent = () => new Undefined(`the attribute ${name}`);
  if (name.startsWith("__")) return absent();
  if (value instanceof Namespace) return orElse(value.attributes.get(name), absent());
  if (value instanceof Attributes) return orElse(value.get(name), absent());
  if (typeof value === "string") return textMethod(value, name) ?? absent();
  if (isMap(value)) {
    const method = Object.hasOwn(mapMethods, name) ? mapMethods[name] : undefined;
    if (method) return new Callable(name, (args) => method(value, args));
    const found = value.get(name);
    if (found !== undefined) return found;
  }
  const items = value instanceof Tuple ? value.items : value;
  if (isList(items)) {
    if (name === "count") return new Callable(name, ({ list: [item] }) => items.filter((x) => equal(x, item)).length);
    if (name === "index") {
      return new Callable(name, ({ list: [item] }) => {
        const at = items.findIndex((x) => equal(x, item));
        if (at < 0) throw new TemplateError(`${print(item)} is not in the list where it is looked for`);
        return at;
      });
    }
    if (name === "copy") return new Callable(name, () => [...items]);
  }
  if ((isMap(value) || isList(value)) && changing.has(name)) {
    return new Callable(name, () => {
      throw new TemplateError(`${name} would change a ${kindOf(value)}, which templates may not`);
    });
  }
  return absent();
}

/** `value[key]`. */
export function itemOf(value: Value, key: Value): Value {
  if (value instanceof Undefined) value.fail();
  const number = key instanceof Float ? null : numberOf(key);
  if (isMap(value)) {
    const found = value.get(key);
    if (found !== undefined) return found;
  } else if (number !== null && (typeof value === "string" || isList(value) || value instanceof Tuple)) {
    return orElse(itemsOf(value).at(number), new Undefined(`item ${number}`));
  }
  if (typeof key === "string") return attributeOf(value, key);
  return new Undefined(`the item ${print(key)}`);
}

/** `value[start:stop:step]`. */
export function sliceOf(value: Value, [start, stop, step]: readonly (Value | undefined)[]): Value {
  if (value instanceof Undefined) value.fail();
  if (typeof value !== "string" && !isList(value) && !(value instanceof Tuple)) return new Undefined("the slice");
  const items = itemsOf(value), { length } = items;
  const by = step === undefined || step === null ? 1 : numberOf(step) ?? 1;
  if (by === 0) throw new TemplateError("a slice can't have the step 0");
  const place = (given: Value | undefined, absent: number) => {
    if (given === undefined || given === null) return absent;
    const n = numberOf(given) ?? 0, from = n < 0 ? n + length : n;
    return by > 0 ? Math.min(Math.max(from, 0), length) : Math.min(Math.max(from, -1), length - 1);
  };
  const [first, end] = by > 0 ? [place(start, 0), place(stop, length)] : [place(start, length - 1), place(stop, -1)];
  const found: Value[] = [];
  for (let i = first; by > 0 ? i < end : i > end; i += by) found.push(items[i]);
  if (typeof value === "string") return found.join("");
  return value instanceof Tuple ? new Tuple(found) : found;
}
