/** Reading the parts of a tokenizer.json. */

/** An object of the file. */
export type Json = Readonly<Record<string, unknown>>;

/** An object, or nothing where the file has none. */
export function part(value: unknown, what: string): Json | null {
  if (value === undefined || value === null) return null;
  if (typeof value === "object" && !Array.isArray(value)) return value as Json;
  throw new Error(`${what} is ${JSON.stringify(value)?.slice(0, 60)}, where an object is expected`);
}

/** The parts of a sequence. */
export function parts(value: unknown, what: string): Json[] {
  if (!Array.isArray(value)) throw new Error(`${what} is not a list`);
  return value.map((entry, i) => {
    const found = part(entry, `${what} ${i + 1}`);
    if (found === null) throw new Error(`${what} ${i + 1} is empty`);
    return found;
  });
}

/** A part of a kind that is not known. */
export function unknownKind(what: string, { type }: Json, known: readonly string[]): never {
  throw new Error(`its ${what} is of the kind ${JSON.stringify(type)}; supported: ${known.join(", ")}`);
}
