/**
 * Stand-ins for the part of `@std/assert` that the tests use, with the same names and signatures, for machines that reach
 * npm but not JSR. `offline.json` maps to this file; nothing of it is published.
 */
import { inspect, isDeepStrictEqual } from "node:util";

/** What a failed assertion throws. */
export class AssertionError extends Error {
  override name = "AssertionError";
}

// deno-lint-ignore no-explicit-any
type ErrorClass<E extends Error> = abstract new (...args: any[]) => E;

function check(holds: boolean, message: string, note?: string): asserts holds {
  if (!holds) throw new AssertionError(note === undefined ? message : `${message}: ${note}`);
}

function show(value: unknown): string {
  return inspect(value, { depth: 6, maxArrayLength: 64, maxStringLength: 2000 });
}

/** Fails unless `expr` is truthy. */
export function assert(expr: unknown, msg = ""): asserts expr {
  if (!expr) throw new AssertionError(msg);
}

/** Fails unless `expr` is falsy. */
export function assertFalse(expr: unknown, msg = ""): void {
  if (expr) throw new AssertionError(msg);
}

/** Fails, always. */
export function fail(msg?: string): never {
  throw new AssertionError(msg === undefined ? "Failed assertion." : `Failed assertion: ${msg}`);
}

/** Whether two values are deeply equal. */
export function equal(a: unknown, b: unknown): boolean {
  return isDeepStrictEqual(a, b);
}

/** Fails unless the two are deeply equal. */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  check(
    equal(actual, expected),
    `Values are not equal.\n  actual:   ${show(actual)}\n  expected: ${show(expected)}`,
    msg,
  );
}

/** Fails if the two are deeply equal. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void {
  check(!equal(actual, expected), `Expected another value than ${show(expected)}`, msg);
}

/** Fails unless the two are the same by `Object.is`. */
export function assertStrictEquals<T>(actual: unknown, expected: T, msg?: string): asserts actual is T {
  const text = `Values are not strictly equal.\n  actual:   ${show(actual)}\n  expected: ${show(expected)}`;
  check(Object.is(actual, expected), text, msg);
}

/** Fails if the two are the same by `Object.is`. */
export function assertNotStrictEquals<T>(actual: T, expected: T, msg?: string): void {
  check(!Object.is(actual, expected), `Expected not to be strictly equal to ${show(expected)}`, msg);
}

/** Fails unless the two numbers differ by at most `tolerance` (by default 1e-7 of the expected one). */
export function assertAlmostEquals(actual: number, expected: number, tolerance?: number, msg?: string): void {
  const most = tolerance ?? (Number.isFinite(expected) ? Math.abs(expected * 1e-7) : 1e-7);
  const holds = Object.is(actual, expected) || Math.abs(actual - expected) <= most;
  check(holds, `Expected ${actual} to be within ${most} of ${expected}`, msg);
}

/** Fails unless `actual > expected`. */
export function assertGreater<T>(actual: T, expected: T, msg?: string): void {
  check(actual > expected, `Expected ${show(actual)} > ${show(expected)}`, msg);
}

/** Fails unless `actual >= expected`. */
export function assertGreaterOrEqual<T>(actual: T, expected: T, msg?: string): void {
  check(actual >= expected, `Expected ${show(actual)} >= ${show(expected)}`, msg);
}

/** Fails unless `actual < expected`. */
export function assertLess<T>(actual: T, expected: T, msg?: string): void {
  check(actual < expected, `Expected ${show(actual)} < ${show(expected)}`, msg);
}

/** Fails unless `actual <= expected`. */
export function assertLessOrEqual<T>(actual: T, expected: T, msg?: string): void {
  check(actual <= expected, `Expected ${show(actual)} <= ${show(expected)}`, msg);
}

/** Fails if the value is null or undefined. */
export function assertExists<T>(actual: T, msg?: string): asserts actual is NonNullable<T> {
  check(actual !== null && actual !== undefined, `Expected ${show(actual)} to be neither null nor undefined`, msg);
}

/** Fails unless the value is an instance of the class. */
// deno-lint-ignore no-explicit-any
export function assertInstanceOf<T extends abstract new (...args: any[]) => any>(
  actual: unknown,
  expectedType: T,
  msg = "",
): asserts actual is InstanceType<T> {
  check(actual instanceof expectedType, `Expected an instance of ${expectedType.name}, got ${show(actual)}`, msg);
}

/** Fails unless the string contains `expected`. */
export function assertStringIncludes(actual: string, expected: string, msg?: string): void {
  check(actual.includes(expected), `Expected ${show(actual)} to contain ${show(expected)}`, msg);
}

/** Fails unless the string matches. */
export function assertMatch(actual: string, expected: RegExp, msg?: string): void {
  check(expected.test(actual), `Expected ${show(actual)} to match ${expected}`, msg);
}

/** Fails if the string matches. */
export function assertNotMatch(actual: string, expected: RegExp, msg?: string): void {
  check(!expected.test(actual), `Expected ${show(actual)} not to match ${expected}`, msg);
}

/** Fails unless every element of `expected` is in `actual`, by deep equality. */
export function assertArrayIncludes<T>(actual: ArrayLike<T>, expected: ArrayLike<T>, msg?: string): void {
  const missing = Array.from(expected).filter((e) => !Array.from(actual).some((a) => equal(a, e)));
  check(missing.length === 0, `Expected ${show(actual)} to include ${show(missing)}`, msg);
}

/** Fails unless `actual` has every property of `expected`, deeply. */
export function assertObjectMatch(
  actual: Record<PropertyKey, unknown>,
  expected: Record<PropertyKey, unknown>,
  msg?: string,
): void {
  check(matches(actual, expected), `Expected ${show(actual)} to match ${show(expected)}`, msg);
}

function matches(actual: unknown, expected: unknown): boolean {
  if (typeof expected !== "object" || expected === null) return equal(actual, expected);
  if (typeof actual !== "object" || actual === null) return false;
  if (Object.getPrototypeOf(expected) !== Object.prototype && !Array.isArray(expected)) return equal(actual, expected);
  return Reflect.ownKeys(expected).every((key) =>
    matches((actual as Record<PropertyKey, unknown>)[key], (expected as Record<PropertyKey, unknown>)[key])
  );
}

/** Fails unless `error` is an error of the class whose message contains or matches. */
export function assertIsError<E extends Error = Error>(
  error: unknown,
  ErrorClass?: ErrorClass<E>,
  msgMatches?: string | RegExp,
  msg?: string,
): asserts error is E {
  check(error instanceof Error, `Expected an error, got ${show(error)}`, msg);
  if (ErrorClass !== undefined) {
    check(error instanceof ErrorClass, `Expected ${ErrorClass.name}, got ${error.name}: ${error.message}`, msg);
  }
  if (typeof msgMatches === "string") {
    check(error.message.includes(msgMatches), `Expected ${show(error.message)} to contain ${show(msgMatches)}`, msg);
  } else if (msgMatches !== undefined) {
    check(msgMatches.test(error.message), `Expected ${show(error.message)} to match ${msgMatches}`, msg);
  }
}

/** Fails unless `fn` throws; with a class, the error must be one. */
export function assertThrows(fn: () => unknown, msg?: string): unknown;
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  ErrorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): E;
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  classOrMsg?: ErrorClass<E> | string,
  msgIncludes?: string,
  msg?: string,
): E | unknown {
  let error: unknown;
  try {
    fn();
  } catch (thrown) {
    error = thrown;
    if (typeof classOrMsg === "function") assertIsError(error, classOrMsg, msgIncludes, msg);
    return error;
  }
  throw new AssertionError(`Expected the function to throw${typeof classOrMsg === "string" ? `: ${classOrMsg}` : ""}`);
}

/** Fails unless the promise of `fn` rejects; with a class, the error must be one. */
export function assertRejects(fn: () => PromiseLike<unknown>, msg?: string): Promise<unknown>;
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;
export async function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  classOrMsg?: ErrorClass<E> | string,
  msgIncludes?: string,
  msg?: string,
): Promise<E | unknown> {
  let error: unknown;
  try {
    await fn();
  } catch (thrown) {
    error = thrown;
    if (typeof classOrMsg === "function") assertIsError(error, classOrMsg, msgIncludes, msg);
    return error;
  }
  throw new AssertionError(`Expected the promise to reject${typeof classOrMsg === "string" ? `: ${classOrMsg}` : ""}`);
}
