/** The two assertions that the laws make, for a page, which lacks what the stand-ins in compat/ are made of. */

/** Throws unless `condition` holds. */
export function assert(condition: unknown, message = "it does not hold"): asserts condition {
  if (!condition) throw new Error(message);
}

/** Throws unless two plain values are alike. */
export function assertEquals(actual: unknown, expected: unknown, message = ""): void {
  const [a, b] = [JSON.stringify(actual), JSON.stringify(expected)];
  assert(a === b, `${message} ${a} is not ${b}`);
}
