/** How a text is normalised before it is split: `normalizer` of a tokenizer.json (tokenizers, `normalizers`). */
import { toByteCharacters } from "./byte_level.ts";
import { charsmap } from "./charsmap.ts";
import { type Json, part, parts, unknownKind } from "./json.ts";
import { compilePattern, whiteSpace } from "./patterns.ts";
import type { TrackedText } from "./tracked_text.ts";

/** Changes a text. */
export type Normalizer = (text: TrackedText) => TrackedText;

type Form = "NFC" | "NFD" | "NFKC" | "NFKD";

const makers: Readonly<Record<string, (config: Json) => Normalizer>> = {
  Sequence: ({ normalizers }) => {
    const all = parts(normalizers, "its normalizer").map(makeNormalizer);
    return (text) => all.reduce((changed, normalize) => normalize(changed), text);
  },
  NFC: () => unicodeForm("NFC"),
  NFD: () => unicodeForm("NFD"),
  NFKC: () => unicodeForm("NFKC"),
  NFKD: () => unicodeForm("NFKD"),
  Lowercase: () => lowercase,
  StripAccents: () => (text) => text.replaceAll(/\p{M}+/gu, () => ""),
  Strip: ({ strip_left: left = true, strip_right: right = true }) => (text) => {
    const { length } = text.text;
    const [, before] = /^(\p{White_Space}*)/u.exec(text.text)!;
    const start = left ? before.length : 0;
    const tail = right ? /\p{White_Space}*$/u.exec(text.text.slice(start))![0].length : 0;
    return start + tail === 0 ? text : text.slice(start, length - tail);
  },
  Replace: ({ pattern, content }) => {
    const compiled = compilePattern(pattern);
    return (text) => text.replaceAll(compiled, () => String(content));
  },
  Prepend: ({ prepend }) => (text) =>
    text.text === "" ? text : text.edit([{ start: 0, end: 0, text: String(prepend) }]),
  BertNormalizer: bert,
  Precompiled: ({ precompiled_charsmap: map }) => charsmap(String(map ?? "")),
  ByteLevel: () => toByteCharacters,
  Nmt: () => (text) =>
    text.replaceAll(/(?:(?![\0\t\n\f\r\x80-\x8E\x90-\x9E])\p{Cc})+/gu, () => "")
      .replaceAll(/[\t\n\f\r\u1680\u200B-\u200F\u2028\u2029\u2581\uFEFF\uFFFD]/g, () => " "),
};

/** The normaliser that a file describes; none changes nothing. */
function makeNormalizer(config: Json | null): Normalizer {
  if (config === null) return (text) => text;
  const make = Object.hasOwn(makers, String(config.type)) ? makers[String(config.type)] : undefined;
  return make ? make(config) : unknownKind("normalizer", config, Object.keys(makers));
}

/** The normaliser of a tokenizer.json. */
export function readNormalizer(value: unknown): Normalizer {
  return makeNormalizer(part(value, "its normalizer"));
}

/** Every character by itself: a final sigma stays σ, as in the reference. */
const lowercase: Normalizer = (text) => text.replaceAll(/\p{Changes_When_Lowercased}/gu, (c) => c.toLowerCase());

/** A character with what may combine with it, so that each such piece can be brought to a form by itself. */
const combining = /[\u1100-\u11FF\uA960-\uA97F\uD7B0-\uD7FF\uAC00-\uD7A3]+|[^\p{M}]?\p{M}+|[^\p{M}]/gu;

function unicodeForm(form: Form): Normalizer {
  return (text) => {
    const whole = text.text.normalize(form);
    if (whole === text.text) return text;
    const changed = text.replaceAll(combining, (piece) => piece.normalize(form));
    return changed.text === whole ? changed : text.edit([{ start: 0, end: text.text.length, text: whole }]);
  };
}

/** CJK ideographs, which BERT takes as words by themselves. */
const ideographs = new RegExp(
  "[\\u4E00-\\u9FFF\\u3400-\\u4DBF\\u{20000}-\\u{2A6DF}\\u{2A700}-\\u{2B73F}\\u{2B740}-\\u{2B81F}" +
    "\\u{2B920}-\\u{2CEAF}\\uF900-\\uFAFF\\u{2F800}-\\u{2FA1F}]",
  "gu",
);

function bert(
  { clean_text: clean = true, handle_chinese_chars: cjk = true, strip_accents, lowercase: lower = true }: Json,
) {
  const steps: Normalizer[] = [];
  if (clean) {
    steps.push((text) => text.replaceAll(/(?:(?![\t\n\r])[\p{Cc}\p{Cf}\p{Co}\p{Cs}\uFFFD])+/gu, () => ""));
    steps.push((text) => text.replaceAll(whiteSpace, () => " "));
  }
  if (cjk) steps.push((text) => text.replaceAll(ideographs, (c) => ` ${c} `));
  if (strip_accents ?? lower) {
    const decompose = unicodeForm("NFD");
    steps.push((text) => decompose(text).replaceAll(/\p{Mn}+/gu, () => ""));
  }
  if (lower) steps.push(lowercase);
  return (text: TrackedText) => steps.reduce((changed, step) => step(changed), text);
}
