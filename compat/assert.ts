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

const show = (value: unknown) => inspect(value, { depth: 6, maxArrayLength: 64, maxStringLength: 2000 });

/** Fails unless `expr` is truthy. */
export function assert(expr: unknown, msg = ""): asserts expr {
  if (!expr) throw new AssertionError(msg);
}

/** Fails unless the two are deeply equal. */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  const text = `Values are not equal.\n  actual:   ${show(actual)}\n  expected: ${show(expected)}`;
  check(isDeepStrictEqual(actual, expected), text, msg);
}

/** Fails if the two are deeply equal. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void {
  check(!isDeepStrictEqual(actual, expected), `Expected another value than ${show(expected)}`, msg);
}

/** Fails unless the two are the same by `Object.is`. */
export function assertStrictEquals<T>(actual: unknown, expected: T, msg?: string): asserts actual is T {
  check(Object.is(actual, expected), `Expected ${show(actual)} to be the very same as ${show(expected)}`, msg);
}

/** Fails unless the two numbers differ by at most `tolerance` (by default 1e-7 of the expected one). */
export function assertAlmostEquals(actual: number, expected: number, tolerance?: number, msg?: string): void {
  const most = tolerance ?? (Number.isFinite(expected) ? Math.abs(expected * 1e-7) : 1e-7);
  const holds = Object.is(actual, expected) || Math.abs(actual - expected) <= most;
  check(holds, `Expected ${actual} to be within ${most} of ${expected}`, msg);
}

/** Fails if the value is null or undefined. */
export function assertExists<T>(actual: T, msg?: string): asserts actual is NonNullable<T> {
  check(actual !== null && actual !== undefined, `Expected ${show(actual)} to be neither null nor undefined`, msg);
}

/** Fails unless the string contains `expected`. */
export function assertStringIncludes(actual: string, expected: string, msg?: string): void {
  check(actual.includes(expected), `Expected ${show(actual)} to contain ${show(expected)}`, msg);
}

/** Fails unless the string matches. */
export function assertMatch(actual: string, expected: RegExp, msg?: string): void {
  check(expected.test(actual), `Expected ${show(actual)} to match ${expected}`, msg);
}

/** The error, where it is of the class and its message has the words; fails otherwise. */
function caught<E extends Error>(error: unknown, kind: ErrorClass<E> | string | undefined, words = "", msg?: string) {
  if (typeof kind !== "function") return error;
  const found = error instanceof Error ? `${error.name}: ${error.message}` : show(error);
  check(error instanceof kind, `Expected ${kind.name}, got ${found}`, msg);
  check(error.message.includes(words), `Expected ${show(error.message)} to contain ${show(words)}`, msg);
  return error;
}

const nothingThrown = (msg: unknown) =>
  new AssertionError(`Expected an error, and there was none${typeof msg === "string" ? `: ${msg}` : ""}`);

/** Fails unless `fn` throws; with a class, the error must be one. */
export function assertThrows(fn: () => unknown, msg?: string): unknown;
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  ErrorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): E;
export function assertThrows(fn: () => unknown, kind?: ErrorClass<Error> | string, words?: string, msg?: string) {
  try {
    fn();
  } catch (error) {
    return caught(error, kind, words, msg);
  }
  throw nothingThrown(typeof kind === "string" ? kind : msg);
}

/** Fails unless the promise of `fn` rejects; with a class, the error must be one. */
export function assertRejects(fn: () => PromiseLike<unknown>, msg?: string): Promise<unknown>;
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;
export async function assertRejects(
  fn: () => PromiseLike<unknown>,
  kind?: ErrorClass<Error> | string,
  words?: string,
  msg?: string,
) {
  try {
    await fn();
  } catch (error) {
    return caught(error, kind, words, msg);
  }
  throw nothingThrown(typeof kind === "string" ? kind : msg);
}
