/** The values of a template: Python's, since templates are written for it. Text, true, false and null are their own. */

/** An error of a template; its message becomes part of another. */
export class TemplateError extends Error {
  override name = "TemplateError";
}

/** A number that Python prints with a point. Whole numbers are numbers of this language. */
export class Float {
  constructor(readonly value: number) {}
}

/** Jinja's undefined: empty when printed or iterated, an error on any other use. */
export class Undefined {
  constructor(readonly name: string) {}

  fail(): never {
    throw new TemplateError(`${this.name} is undefined`);
  }
}

/** A sequence that can't be changed, which prints with parentheses. */
export class Tuple {
  constructor(readonly items: readonly Value[]) {}
}

/** An object whose attributes a template may set. */
export class Namespace {
  readonly attributes = new Map<string, Value>();
}

/** Arguments of a call. */
export interface Arguments {
  readonly list: readonly Value[];
  readonly named: ReadonlyMap<string, Value>;
}

/** Something that can be called. */
export class Callable {
  constructor(readonly name: string, readonly call: (args: Arguments) => Value) {}
}

/** Attributes that are read only, such as those of `loop`. */
export class Attributes {
  constructor(readonly get: (name: string) => Value | undefined, readonly name: string) {}
}

/** Any value of a template. */
export type Value =
  | string
  | number
  | boolean
  | null
  | Float
  | Undefined
  | Tuple
  | Namespace
  | Callable
  | Attributes
  | readonly Value[]
  | ReadonlyMap<Value, Value>;

/** A JavaScript object as a template's value. */
export function toValue(given: unknown): Value {
  if (given === undefined) return new Undefined("a value");
  if (given instanceof Float) return given;
  if (given === null || typeof given === "string" || typeof given === "boolean") return given;
  if (typeof given === "number") return Number.isInteger(given) ? given : new Float(given);
  if (Array.isArray(given)) return given.map(toValue);
  if (typeof given === "object") {
    return new Map(Object.entries(given).filter(([, v]) => v !== undefined).map(([key, v]) => [key, toValue(v)]));
  }
  throw new TemplateError(`a ${typeof given} is not a valid template value`);
}

/** A value, or a given default where there is none. None is a value. */
export function orElse(value: Value | undefined, absent: Value): Value {
  return value === undefined ? absent : value;
}

/** Whether a value is a list. */
export function isList(value: Value): value is readonly Value[] {
  return Array.isArray(value);
}

/** Whether a value is a mapping. */
export function isMap(value: Value): value is ReadonlyMap<Value, Value> {
  return value instanceof Map;
}

/** The number of a value that is one, true and false among them; else null. */
export function numberOf(value: Value): number | null {
  if (typeof value === "number") return value;
  if (typeof value === "boolean") return value ? 1 : 0;
  return value instanceof Float ? value.value : null;
}

/** {@link numberOf}, and an error where the value is not a number. */
export function needNumber(value: Value | undefined, what: string): number {
  const number = value === undefined ? null : numberOf(value);
  if (number !== null) return number;
  if (value instanceof Undefined) value.fail();
  throw new TemplateError(`${what} takes a number, not ${value === undefined ? "nothing" : kindOf(value)}`);
}

/** The kind of a value, for messages. */
export function kindOf(value: Value): string {
  if (value === null) return "None";
  if (value instanceof Undefined) return "undefined";
  if (typeof value === "string") return "str";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "number") return "int";
  if (value instanceof Float) return "float";
  if (isList(value)) return "list";
  if (isMap(value)) return "dict";
  return value instanceof Tuple ? "tuple" : "object";
}

/** Whether a value counts as true. */
export function truth(value: Value): boolean {
  if (value === null || value instanceof Undefined) return false;
  if (typeof value === "string") return value !== "";
  const number = numberOf(value);
  if (number !== null) return number !== 0;
  if (isList(value)) return value.length > 0;
  if (isMap(value)) return value.size > 0;
  return value instanceof Tuple ? value.items.length > 0 : true;
}

/** Whether two values are equal: numbers by size, sequences and mappings by what they hold. */
export function equal(a: Value, b: Value): boolean {
  if (a === b) return true;
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== null || y !== null) return x === y;
  if (a instanceof Undefined) return b instanceof Undefined;
  if (isList(a) && isList(b)) return a.length === b.length && a.every((item, i) => equal(item, b[i]));
  if (a instanceof Tuple && b instanceof Tuple) return equal(a.items, b.items);
  if (isMap(a) && isMap(b)) {
    return a.size === b.size && [...a].every(([key, item]) => {
      const other = b.get(key);
      return other !== undefined && equal(item, other);
    });
  }
  return false;
}

/** Below 0 where `a` comes before `b`; an error where they have no order. */
export function compare(a: Value, b: Value): number {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== null && y !== null) return x - y;
  if (typeof a === "string" && typeof b === "string") return compareText(a, b);
  const [first, second] = [a instanceof Tuple ? a.items : a, b instanceof Tuple ? b.items : b];
  if (isList(first) && isList(second) && kindOf(a) === kindOf(b)) {
    const at = first.findIndex((item, i) => i >= second.length || !equal(item, second[i]));
    if (at < 0) return first.length - second.length;
    return at < second.length ? compare(first[at], second[at]) : 1;
  }
  for (const value of [a, b]) if (value instanceof Undefined) value.fail();
  throw new TemplateError(`${kindOf(a)} and ${kindOf(b)} have no order`);
}

/** Texts by their code points. */
function compareText(a: string, b: string): number {
  const [x, y] = [[...a], [...b]];
  const at = x.findIndex((c, i) => c !== y[i]);
  if (at < 0) return x.length - y.length;
  return at < y.length ? x[at].codePointAt(0)! - y[at].codePointAt(0)! : 1;
}

/** What a loop iterates over: the items of a sequence, the keys of a mapping, the characters of a string. */
export function itemsOf(value: Value): readonly Value[] {
  if (isList(value)) return value;
  if (value instanceof Tuple) return value.items;
  if (isMap(value)) return [...value.keys()];
  if (typeof value === "string") return [...value];
  if (value instanceof Undefined) return [];
  throw new TemplateError(`${kindOf(value)} is not a sequence`);
}

/** Whether a value is in another. */
export function contains(container: Value, item: Value): boolean {
  if (typeof container === "string") {
    if (typeof item !== "string") throw new TemplateError(`${kindOf(item)} can't be looked for in a text`);
    return container.includes(item);
  }
  if (isMap(container)) return container.has(item instanceof Float ? item.value : item);
  return itemsOf(container).some((other) => equal(other, item));
}
