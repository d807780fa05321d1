/** Tokens that are found in a text before anything else: `added_tokens` of a tokenizer.json (tokenizers, `AddedVocabulary`). */
import type { Normalizer } from "./normalizers.ts";
import { parts } from "./json.ts";
import { escapePattern, word } from "./patterns.ts";
import { TrackedText } from "./tracked_text.ts";

/** A token that is found as it is written. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Left out where a text is wanted without special tokens. */
  readonly special: boolean;
  /** Found only where no letter or digit touches it. */
  readonly singleWord: boolean;
  /** The white space before it belongs to it, */
  readonly lstrip: boolean;
  /** and that after it. */
  readonly rstrip: boolean;
  /** Found in the normalised text. */
  readonly normalized: boolean;
}

/** The added tokens of a file. */
export function readAddedTokens(value: unknown): AddedToken[] {
  return parts(value ?? [], "its added_tokens").map((token) => {
    const { id, content, special = false } = token;
    if (typeof content !== "string") throw new Error(`its added token ${JSON.stringify(id)} has no content`);
    return {
      id: id as number,
      content,
      special: special === true,
      singleWord: token.single_word === true,
      lstrip: token.lstrip === true,
      rstrip: token.rstrip === true,
      normalized: (token.normalized ?? !special) === true,
    };
  });
}

/** A part of a text: a token that was found in it, or text that is still to be split. */
export type Section = { readonly text: TrackedText; readonly token: AddedToken | null };

/** Makes a function that finds added tokens in a text; what lies between them is normalised. */
export function findAddedTokens(tokens: readonly AddedToken[], normalize: Normalizer): (text: string) => Section[] {
  const finder = (some: readonly AddedToken[], textOf: (token: AddedToken) => string) => {
    const byText = new Map(some.map((token) => [textOf(token), token]));
    byText.delete("");
    return byText.size === 0 ? null : { pattern: anyOf([...byText.keys()]), byText };
  };
  const asWritten = finder(tokens.filter((token) => !token.normalized), ({ content }) => content);
  const normalised = finder(
    tokens.filter((token) => token.normalized),
    ({ content }) => normalize(TrackedText.of(content)).text,
  );
  return (text) =>
    split(TrackedText.of(text), asWritten).flatMap((section) =>
      section.token === null ? split(normalize(section.text), normalised) : [section]
    ).filter(({ text, token }) => token !== null || text.text !== "");
}

type Finder = { readonly pattern: RegExp; readonly byText: ReadonlyMap<string, AddedToken> } | null;

/** Matches the longest of several texts. */
function anyOf(texts: readonly string[]): RegExp {
  const escaped = texts.toSorted((a, b) => b.length - a.length).map(escapePattern);
  return new RegExp(escaped.join("|"), "gu");
}

const endsWithWord = new RegExp(`${word}$`, "u"), startsWithWord = new RegExp(`^${word}`, "u");

function split(text: TrackedText, finder: Finder): Section[] {
  if (finder === null) return [{ text, token: null }];
  const whole = text.text;
  const found: Section[] = [];
  let end = 0;
  for (const match of whole.matchAll(finder.pattern)) {
    const token = finder.byText.get(match[0])!;
    let [start, stop] = [match.index, match.index + match[0].length];
    if (
      token.singleWord &&
      (endsWithWord.test(lastCharacter(whole, start)) || startsWithWord.test(whole.slice(stop, stop + 2)))
    ) {
      continue;
    }
    if (token.lstrip) { while (start > end && isSpace(whole[start - 1])) start--; }
    if (token.rstrip) { while (stop < whole.length && isSpace(whole[stop])) stop++; }
    if (start < end) start = end; // its beginning was white space that the token before it took
    if (end < start) found.push({ text: text.slice(end, start), token: null });
    found.push({ text: text.slice(start, stop), token });
    end = stop;
  }
  if (end < whole.length) found.push({ text: text.slice(end, whole.length), token: null });
  return found;
}

function lastCharacter(text: string, before: number): string {
  return text.slice(Math.max(0, before - 2), before);
}

function isSpace(unit: string): boolean {
  return /\p{White_Space}/u.test(unit);
}
