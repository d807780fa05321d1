/** What somebody who means harm writes into a configuration: values of other kinds, and far too large or too deep ones. */
import fc from "fast-check";

const deep = (depth: number): unknown => depth === 0 ? 1 : depth % 2 ? [deep(depth - 1)] : { a: deep(depth - 1) };

const numbers = [0, -1, 0.5, 1, 3, 1e6, 1e7, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 53, 2 ** 63, 1e308, -1e308, 1e-320];
const texts = [
  ...[
    "",
    "x",
    "__proto__",
    "constructor",
    "../../etc/passwd",
    "/dev/zero",
    "\0",
    "a\nerror: b",
    "\x1b]0;owned\x07\u202e",
    "\ud800",
  ],
  ...["x".repeat(1e5), "(a*)*b", ".*.*.*x", "("],
];

/** Chat templates without an end, or of what can't be computed. */
export const templates: fc.Arbitrary<unknown> = fc.constantFrom(
  ...["{{ range(10**9) }}", "{% for i in range(10**9) %}x{% endfor %}", "{{ 'x' * 10**9 }}", "{{ [[0] * 10**9] }}"],
  ...[
    "{{ messages | tojson(indent=10**9) }}",
    "{{ 'x' | center(10**9) }}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ messages[10**20] }}",
  ],
  ...["{{ '%1000000000d' % 1 }}", "{{ 'x'.rjust(10**9) }}", "{{ ''.join(['x' * 10**6] * 10**6) }}", "{{ 1 // 0 }}"],
  ...[
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ ('x' * 10**4).replace('', 'x' * 10**6) }}",
  ],
  ...["{% for m in messages %}{% for n in messages %}{{ loop.index ** 9e9 }}{% endfor %}{% endfor %}", "{{ messages"],
  ...["{{ (".repeat(1000), "{% if 1 %}".repeat(3000), `{{ ${"not ".repeat(20000)}1 }}`, `{{ ${"1+".repeat(20000)}1 }}`],
);

/** A value. */
export const hostile: fc.Arbitrary<unknown> = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom<unknown>(...numbers) },
  fc.constantFrom<unknown>(...texts),
  fc.constantFrom<unknown>(null, true, false, [], {}, [[]], [null], [1e9], [-1, 0.5], { type: "x" }, { a: 1e9 }),
  fc.constantFrom<unknown>(deep(150), deep(500), Array(1e5).fill(0), Array(1e4).fill("a")),
);

/** A change of a JSON value: the path is a part (0 to 1) of what there is at each level; what is put there, or undefined. */
export interface Change {
  readonly path: readonly number[];
  /** A key that is added there, in place of one that is there. */
  readonly key: string | null;
  readonly value: unknown;
}

/** One to three changes; `keys` may be added. */
export function changesOf(keys: readonly string[], values = hostile): fc.Arbitrary<readonly Change[]> {
  const change = fc.record({
    path: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1, maxLength: 6 }),
    key: fc.option(fc.constantFrom(...keys), { freq: 1 }),
    value: fc.oneof({ weight: 6, arbitrary: values }, fc.constant(undefined)),
  });
  return fc.array(change, { minLength: 1, maxLength: 3 });
}

/** A copy of a JSON value with the changes. */
export function withChanges<T>(value: T, changes: readonly Change[]): T {
  const copy = structuredClone(value);
  for (const { path, key, value } of changes) {
    let at = copy as Record<string, unknown>;
    for (const [i, part] of path.entries()) {
      const keys = Object.keys(at);
      const chosen = keys[Math.min(keys.length - 1, Math.floor(part * keys.length))];
      const next = at[chosen];
      if (i < path.length - 1 && next !== null && typeof next === "object") {
        at = next as Record<string, unknown>;
        continue;
      }
      const name = key ?? chosen;
      if (name === undefined) break;
      if (value === undefined) delete at[name];
      else at[name] = structuredClone(value); // another change may go into it
      break;
    }
  }
  return copy;
}
