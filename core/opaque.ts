/** Arrays throw a sentence when JavaScript asks them for contents, instead of giving NaN, undefined or a string. */
import { LowrankError } from "./errors.ts";

const asks = "was asked by JavaScript for";

/** What a lookup of this property asks for, or null where an array could not be expected to have it. */
function asked(key: string | symbol): { readonly what: string; readonly parts: boolean } | null {
  if (key === Symbol.toPrimitive) {
    return { what: "a number or a text, as +, <, a loop's end, an index or a template does", parts: false };
  }
  if (key === "toJSON") return { what: "JSON", parts: false };
  if (key === Symbol.iterator) {
    return { what: "its elements one by one, as a spread, a loop or [a, b] = … does", parts: true };
  }
  if (key === "length" || typeof key === "string" && /^-?\d+$/.test(key)) return { what: `[${key}]`, parts: true };
  return null;
}

/**
 * Makes instances of a class throw where JavaScript would go on with a wrong value. `remedy` says what to do in place of
 * asking for the contents. `String(x)` is asking, too: `x.toString()` is how to print one.
 */
export function refusePrimitives<T extends object>(type: { readonly prototype: T }, remedy: (x: T) => string): void {
  // At the end of the chain, where only lookups arrive that found nothing: others cost what they did.
  const end = new Proxy<object>({}, {
    get(target, key, receiver) {
      const ask = asked(key);
      if (ask === null) return Reflect.get(target, key, receiver);
      throw new LowrankError(
        `${receiver.toString()} ${asks} ${ask.what}, ` +
          (ask.parts
            ? "but it is one array: take parts with slice, split or gather, and sizes from its shape"
            : remedy(receiver)),
      );
    },
  });
  Object.setPrototypeOf(type.prototype, end);
}
