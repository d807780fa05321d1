/** Changes of a file's bytes, as accidents and malice make them. */
import fc from "fast-check";

/** One change. `at` is a place as a part of the file, 0 to 1, or of its tokens. */
export type Edit =
  | { readonly kind: "bit"; readonly at: number; readonly bit: number }
  | { readonly kind: "bytes"; readonly at: number; readonly bytes: readonly number[] }
  | { readonly kind: "insert"; readonly at: number; readonly bytes: readonly number[] }
  | { readonly kind: "remove"; readonly at: number; readonly count: number }
  | { readonly kind: "repeat"; readonly at: number; readonly count: number }
  | { readonly kind: "end"; readonly at: number }
  | { readonly kind: "token"; readonly at: number; readonly text: string };

/** What stands for a number, a string or a sign in the wrong place. */
const tokens = [
  ...["-1", "0", "1", "1e308", "-0.5", "4294967296", "9007199254740993", "99999999999999999999", "NaN", "null", "true"],
  ...[
    "[]",
    "{}",
    '""',
    '"__proto__"',
    '"constructor"',
    '"\\ud800"',
    '"a very long name ".',
    "[[[[[[[[",
    ",",
    ":",
    "}",
    "]",
  ],
  ...["&a", "*a", "!!js/function 'x'", "- - -", "? x", "'", "%YAML 9", "\u0000", "\r", "\ufeff", "\u2028"],
];

/** Integers that sizes and offsets must survive, little-endian. */
const integers = [0n, 1n, 255n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n].map((n) =>
  Array.from({ length: 8 }, (_, i) => Number((n >> BigInt(8 * i)) & 255n))
);

// Where a format says what follows, most accidents matter; so half of the places are among the first tenth.
const place = fc.oneof(fc.double({ min: 0, max: 0.1, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true }));
const byte = fc.nat(255);

const edit: fc.Arbitrary<Edit> = fc.oneof(
  fc.record({ kind: fc.constant("bit" as const), at: place, bit: fc.nat(7) }),
  fc.record({
    kind: fc.constant("bytes" as const),
    at: place,
    bytes: fc.oneof(fc.array(byte, { minLength: 1, maxLength: 8 }), fc.constantFrom(...integers)),
  }),
  fc.record({ kind: fc.constant("insert" as const), at: place, bytes: fc.array(byte, { minLength: 1, maxLength: 9 }) }),
  fc.record({ kind: fc.constant("remove" as const), at: place, count: fc.integer({ min: 1, max: 40 }) }),
  fc.record({ kind: fc.constant("repeat" as const), at: place, count: fc.integer({ min: 1, max: 400 }) }),
  fc.record({ kind: fc.constant("end" as const), at: place }),
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant("token" as const), at: place, text: fc.constantFrom(...tokens) }),
  },
);

/** One to four changes. */
export const edits: fc.Arbitrary<readonly Edit[]> = fc.array(edit, { minLength: 1, maxLength: 4 });

const token = /-?\d+(\.\d+)?(e[+-]?\d+)?|"(\\.|[^"\\])*"|true|false|null|[[\]{},:]/g;

/** The bytes with one change after the other. */
export function mutate(bytes: Uint8Array, edits: readonly Edit[]): Uint8Array {
  return edits.reduce(apply, bytes);
}

function apply(bytes: Uint8Array, edit: Edit): Uint8Array {
  const at = Math.min(bytes.length - 1, Math.floor(edit.at * bytes.length));
  if (at < 0) return bytes;
  const splice = (from: number, removed: number, put: ArrayLike<number>) => {
    const rest = bytes.subarray(from + removed);
    const made = new Uint8Array(from + put.length + rest.length);
    made.set(bytes.subarray(0, from));
    made.set(put, from);
    made.set(rest, from + put.length);
    return made;
  };
  switch (edit.kind) {
    case "bit": {
      const copy = bytes.slice();
      copy[at] ^= 1 << edit.bit;
      return copy;
    }
    case "bytes": {
      const copy = bytes.slice();
      copy.set(edit.bytes.slice(0, copy.length - at), at);
      return copy;
    }
    case "insert":
      return splice(at, 0, edit.bytes);
    case "remove":
      return splice(at, edit.count, []);
    case "repeat":
      return splice(at, 0, bytes.subarray(at, at + edit.count));
    case "end":
      return bytes.slice(0, at);
    case "token": {
      // One character a byte, so that places in the text are places in the file; only its first part has tokens.
      const text = new TextDecoder("latin1").decode(bytes.subarray(0, 65536));
      const found = [...text.matchAll(token)];
      const hit = found[Math.min(found.length - 1, Math.floor(edit.at * found.length))];
      if (!hit) return bytes;
      return splice(hit.index, hit[0].length, new TextEncoder().encode(edit.text));
    }
  }
}
