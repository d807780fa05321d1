/** How a text is split before the vocabulary is asked: `pre_tokenizer` of a tokenizer.json (tokenizers, `pre_tokenizers`). */
import { wordsToByteCharacters } from "./byte_level.ts";
import { type Json, part, parts, unknownKind } from "./json.ts";
import { compilePattern, punctuation, whiteSpace, word } from "./patterns.ts";
import { matches, type TrackedText } from "./tracked_text.ts";

/** Splits pieces of a text into smaller ones, one after the other: of a long text there are many. */
export type PreTokenizer = (pieces: Iterable<TrackedText>) => Iterable<TrackedText>;

type Split = (piece: TrackedText) => Iterable<TrackedText>;

/** What happens to the delimiters that a text is split at (tokenizers, `SplitDelimiterBehavior`). */
type Behavior = "Removed" | "Isolated" | "MergedWithPrevious" | "MergedWithNext" | "Contiguous";

/** GPT-2's split (`encoder.py`). */
const gpt2Words = {
  Regex: "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
};

const makers: Readonly<Record<string, (config: Json) => PreTokenizer>> = {
  Sequence: ({ pretokenizers }) => {
    const all = parts(pretokenizers, "its pre_tokenizer").map(makePreTokenizer);
    return (pieces) => all.reduce((split, preTokenize) => preTokenize(split), pieces);
  },
  ByteLevel: ({ add_prefix_space: prefix = true, use_regex: words = true }) => {
    const begun = each((piece) => [prefix ? begin(piece, " ") : piece]);
    const split = words ? each(splitBy(compilePattern(gpt2Words), "Isolated")) : null;
    const toBytes = wordsToByteCharacters();
    const inBytes = each((word) => [toBytes(word)]);
    return (pieces) => inBytes(split === null ? begun(pieces) : split(begun(pieces)));
  },
  Metaspace: ({ replacement = "▁", add_prefix_space: prefix, prepend_scheme: scheme = "always", split = true }) => {
    const mark = String(replacement), when = prefix === false ? "never" : scheme;
    const words = splitBy(compilePattern({ String: mark }), "MergedWithNext");
    return each((piece) => {
      const isFirst = piece.origin(0, 0)[0] === 0;
      const marked = piece.replaceAll(/ /g, () => mark);
      const begun = when === "always" || (when === "first" && isFirst) ? begin(marked, mark) : marked;
      return split ? words(begun) : [begun];
    });
  },
  Split: ({ pattern, behavior, invert = false }) => {
    const compiled = compilePattern(pattern);
    return each(splitBy(compiled, behaviorOf(behavior), invert === true));
  },
  Digits: ({ individual_digits: single = false }) => each(splitBy(/\p{N}/gu, single ? "Isolated" : "Contiguous")),
  Punctuation: ({ behavior = "Isolated" }) => each(splitBy(punctuation, behaviorOf(behavior))),
  BertPreTokenizer: () => {
    const words = each(splitBy(whiteSpace, "Removed")), split = each(splitBy(punctuation, "Isolated"));
    return (pieces) => split(words(pieces));
  },
  Whitespace: () => each(splitBy(new RegExp(`${word}+|(?:(?!${word})\\P{White_Space})+`, "gu"), "Removed", true)),
  WhitespaceSplit: () => each(splitBy(whiteSpace, "Removed")),
  CharDelimiterSplit: ({ delimiter }) => each(splitBy(compilePattern({ String: String(delimiter) }), "Removed")),
  FixedLength: ({ length = 5 }) => each(splitBy(new RegExp(`[^]{1,${Number(length)}}`, "gu"), "Isolated")),
};

/** The splitter of a tokenizer.json; none splits nothing. */
export function readPreTokenizer(value: unknown): PreTokenizer {
  const config = part(value, "its pre_tokenizer");
  return config === null ? (pieces) => pieces : makePreTokenizer(config);
}

function makePreTokenizer(config: Json): PreTokenizer {
  const make = Object.hasOwn(makers, String(config.type)) ? makers[String(config.type)] : undefined;
  return make ? make(config) : unknownKind("pre_tokenizer", config, Object.keys(makers));
}

const behaviors: readonly string[] = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"];

function behaviorOf(value: unknown): Behavior {
  const found = behaviors.find((name) => name.toLowerCase() === String(value).toLowerCase().replaceAll("_", ""));
  if (found === undefined) {
    throw new Error(`it splits with the behavior ${JSON.stringify(value)}, which is not known`);
  }
  return found as Behavior;
}

function each(split: Split): PreTokenizer {
  return function* (pieces) {
    for (const piece of pieces) {
      for (const smaller of split(piece)) if (smaller.text !== "") yield smaller;
    }
  };
}

/** A text that begins with a mark. */
function begin(piece: TrackedText, mark: string): TrackedText {
  return piece.text.startsWith(mark) || piece.text === "" ? piece : piece.edit([{ start: 0, end: 0, text: mark }]);
}

/** A part of a text, and whether it is what the text is split at. */
interface Part {
  readonly start: number;
  readonly end: number;
  readonly isMatch: boolean;
}

/** Splits at what a pattern finds, or with `invert` at what lies between. */
function splitBy(pattern: RegExp, behavior: Behavior, invert = false): Split {
  return function* (piece) {
    for (const { start, end } of merge(partsOf(piece.text, pattern, invert), behavior)) yield piece.slice(start, end);
  };
}

function* partsOf(text: string, pattern: RegExp, invert: boolean): Generator<Part> {
  let end = 0;
  for (const [found, at] of matches(pattern, text)) {
    if (at > end) yield { start: end, end: at, isMatch: invert };
    yield { start: at, end: end = at + found.length, isMatch: !invert };
  }
  if (end < text.length) yield { start: end, end: text.length, isMatch: invert };
}

function* merge(parts: Iterable<Part>, behavior: Behavior): Generator<Part> {
  // What is merged with the next part is merged with the previous one, read backwards.
  if (behavior === "MergedWithNext") {
    const backwards = Array.from(parts, ({ start, end, isMatch }) => ({ start: -end, end: -start, isMatch })).reverse();
    const merged = [...merge(backwards, "MergedWithPrevious")].reverse();
    return yield* merged.map(({ start, end, isMatch }) => ({ start: -end, end: -start, isMatch }));
  }
  let last = null as Part | null, previous = null as boolean | null;
  for (const part of parts) {
    if (behavior === "Removed") {
      if (!part.isMatch) yield part;
      continue;
    }
    const joins = (behavior === "Contiguous" && part.isMatch === previous) ||
      (behavior === "MergedWithPrevious" && part.isMatch && previous === false);
    if (last !== null && !joins) yield last;
    last = { ...part, start: last !== null && joins ? last.start : part.start };
    previous = part.isMatch;
  }
  if (last !== null) yield last;
}
