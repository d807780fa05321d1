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
  let expression: RegExp;
  try {
    expression = toRegExp(source, { global: true });
  } catch (error) {
    throw new Error(`its pattern ${JSON.stringify(source)} can't be read: ${(error as Error).message}`);
  }
  const part = ambiguousPart(expression);
  if (part === null) return expression;
  throw new Error(`its pattern ${JSON.stringify(source)} can match a text in too many ways, by ${part}`);
}
