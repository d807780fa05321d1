/** The patterns of tokenizer files as regular expressions of this language. */
import { toRegExp } from "oniguruma-to-es";
import { ambiguousPart } from "./backtracking.ts";

/** What Unicode, and so the reference tokenizers, count as white space; `\s` is another set. */
export const whiteSpace = /\p{White_Space}/gu;

/** Punctuation: Unicode's, and all ASCII characters that are neither letters, digits nor space. */
export const punctuation = /[\p{P}!-/:-@[-`{-~]/gu;

/** Letters, marks, digits and connectors: `\w` of Rust's regular expressions. */
export const word = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]";

/** A pattern that matches a text as it stands. */
export function escapePattern(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}

const shorten = (text: string) => text.length > 200 ? `${text.slice(0, 200)}…` : text;

/** The most characters of an expression; those of known models have a few hundred. */
const longestPattern = 4096;

/**
 * The pattern of a `Split` or `Replace`, with the flag g: a text as it is, or an expression in the language of Oniguruma, which
 * the reference tokenizers use.
 */
export function compilePattern(pattern: unknown): RegExp {
  const { String: text, Regex: source } = Object(pattern) as { String?: unknown; Regex?: unknown };
  if (typeof text === "string") return new RegExp(escapePattern(text), "gu");
  if (typeof source !== "string") {
    throw new Error(`it splits by ${JSON.stringify(pattern)}, which is not a valid pattern`);
  }
  if (source.length > longestPattern) {
    throw new Error(`it has a pattern of ${source.length} characters, and at most ${longestPattern} are read`);
  }
  const shown = shorten(JSON.stringify(source));
  let expression: RegExp;
  try {
    expression = toRegExp(source, { global: true });
  } catch (error) {
    throw new Error(`its pattern ${shown} can't be read: ${(error as Error).message}`);
  }
  const part = ambiguousPart(expression);
  if (part === null) return expression;
  throw new Error(`its pattern ${shown} can match a text in too many ways, by ${shorten(part)}`);
}
