/** What distinguishes things in a key: contents for plain data, identity for everything else. */

/** Numbers for objects, functions and symbols, for as long as they live. */
export class Identities {
  readonly #known = new WeakMap<WeakKey, number>();
  #count = 0;

  /** The number of `x`, another for every other. */
  of(x: WeakKey): number {
    let number = this.#known.get(x);
    if (number === undefined) this.#known.set(x, number = this.#count++);
    return number;
  }
}

/**
 * Text that is equal for equal data only: NaN, infinities, -0, `true` and `"true"` differ. Lists and plain objects are written
 * out; functions, symbols and other objects are compared by identity.
 */
export function exactText(x: unknown, ids: Identities): string {
  switch (typeof x) {
    case "string":
      return JSON.stringify(x);
    case "number":
      return Object.is(x, -0) ? "-0" : String(x);
    case "bigint":
      return `${x}n`;
    case "symbol":
      return Symbol.keyFor(x) === undefined ? `#${ids.of(x)}` : `for ${JSON.stringify(Symbol.keyFor(x))}`;
    case "function":
      return `#${ids.of(x)}`;
    case "object": {
      if (x === null) return "null";
      if (Array.isArray(x)) return `[${x.map((item) => exactText(item, ids))}]`;
      const proto = Object.getPrototypeOf(x);
      if (proto !== Object.prototype && proto !== null) return `#${ids.of(x)}`;
      return `{${Object.entries(x).map(([key, item]) => `${JSON.stringify(key)}:${exactText(item, ids)}`)}}`;
    }
    default:
      return String(x);
  }
}
