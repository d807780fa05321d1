/** JSON whose keys may repeat and whose numbers keep their digits, where JSON.parse keeps neither. */

/** An object's keys and values, in order, repeated ones too. */
export class JsonEntries {
  constructor(readonly list: readonly (readonly [string, Json])[]) {}
}

/** A number as it was spelled. */
export class JsonNumber {
  constructor(readonly digits: string) {}
}

/** A value as {@link parseJsonEntries} has it. */
export type Json = null | boolean | string | JsonNumber | readonly Json[] | JsonEntries;

/** The nesting that Rust's serde_json, which the reference readers use, takes. */
const deepest = 127;

/**
 * Parses a text as Rust's serde_json does: also a number beyond the floats, half of a surrogate pair and deep nesting are
 * errors.
 *
 * @throws {SyntaxError} where it is none
 */
export function parseJsonEntries(text: string): Json {
  JSON.parse(text); // checks the grammar, so that below no token can stand where it must not
  const tokens = text.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\]]|[^\s{}[\]:,"]+/g);
  const next = () => tokens.next().value![0];
  const string = (token: string): string => {
    const value = JSON.parse(token) as string;
    if (!value.isWellFormed()) throw new SyntaxError(`${token} has half of a surrogate pair`);
    return value;
  };
  const parse = (token: string, depth: number): Json => {
    if (depth > deepest) throw new SyntaxError(`it is nested more than ${deepest} deep`);
    if (token === "{") {
      const list: [string, Json][] = [];
      for (let key = next(); key !== "}"; key = next()) list.push([string(key), parse(next(), depth + 1)]);
      return new JsonEntries(list);
    }
    if (token === "[") {
      const list: Json[] = [];
      for (let item = next(); item !== "]"; item = next()) list.push(parse(item, depth + 1));
      return list;
    }
    if (token.startsWith('"')) return string(token);
    const value = JSON.parse(token) as null | boolean | number;
    if (typeof value !== "number") return value;
    if (!Number.isFinite(value)) throw new SyntaxError(`the number ${token} is out of range`);
    return new JsonNumber(token);
  };
  return parse(next(), 1);
}
