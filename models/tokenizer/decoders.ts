/** From tokens to text: `decoder` of a tokenizer.json (tokenizers, `decoders`). Each step maps the texts of tokens. */
import { bytesOfCharacters } from "./byte_level.ts";
import { type Json, part, parts, unknownKind } from "./json.ts";
import { compilePattern } from "./patterns.ts";

/** A step from tokens to text. */
type Decoder = (tokens: readonly string[]) => readonly string[];

const encoder = new TextEncoder(), decoder = new TextDecoder("utf-8", { ignoreBOM: true });

const makers: Readonly<Record<string, (config: Json) => Decoder>> = {
  Sequence: ({ decoders }) => {
    const all = parts(decoders, "its decoder").map(makeDecoder);
    return (tokens) => all.reduce((changed, decode) => decode(changed), tokens);
  },
  ByteLevel: () => (tokens) => [decoder.decode(Uint8Array.from(tokens.flatMap(bytesOf)))],
  Metaspace: ({ replacement = "▁", add_prefix_space: prefix, prepend_scheme: scheme = "always" }) => {
    const mark = String(replacement), begins = prefix !== false && scheme !== "never";
    return (tokens) => tokens.map((token, i) => token.replaceAll(mark, i === 0 && begins ? "" : " "));
  },
  WordPiece: ({ prefix = "##", cleanup = true }) => {
    const mark = String(prefix);
    return (tokens) =>
      tokens.map((token, i) => {
        const spaced = i === 0 ? token : token.startsWith(mark) ? token.slice(mark.length) : ` ${token}`;
        return cleanup ? tidy(spaced) : spaced;
      });
  },
  BPEDecoder: ({ suffix = "</w>" }) => (tokens) =>
    tokens.map((token, i) => token.replaceAll(String(suffix), i === tokens.length - 1 ? "" : " ")),
  Replace: ({ pattern, content }) => {
    const compiled = compilePattern(pattern);
    return (tokens) => tokens.map((token) => token.replaceAll(compiled, () => String(content)));
  },
  Fuse: () => (tokens) => [tokens.join("")],
  Strip: ({ content, start = 0, stop = 0 }) => (tokens) =>
    tokens.map((token) => {
      let [begin, end] = [0, token.length];
      while (begin < Number(start) && begin < end && token[begin] === content) begin++;
      while (token.length - end < Number(stop) && end > begin && token[end - 1] === content) end--;
      return token.slice(begin, end);
    }),
  ByteFallback: () => (tokens) => {
    const texts: string[] = [];
    let bytes: number[] = [];
    const end = () => {
      texts.push(...wholeOrMarks(bytes));
      bytes = [];
    };
    for (const token of tokens) {
      const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token);
      if (byte) bytes.push(parseInt(byte[1], 16));
      else {
        end();
        texts.push(token);
      }
    }
    end();
    return texts;
  },
};

/** Makes text of tokens; without a decoder they stand side by side with spaces between, as in the reference. */
export function readDecoder(value: unknown): (tokens: readonly string[]) => string {
  const config = part(value, "its decoder");
  if (config === null) return (tokens) => tokens.join(" ");
  const decode = makeDecoder(config);
  return (tokens) => decode(tokens).join("");
}

function makeDecoder(config: Json): Decoder {
  const make = Object.hasOwn(makers, String(config.type)) ? makers[String(config.type)] : undefined;
  return make ? make(config) : unknownKind("decoder", config, Object.keys(makers));
}

/** The bytes that a token's characters stand for; a token with any other character is its own text. */
function bytesOf(token: string): readonly number[] {
  const bytes = Array.from(token, (c) => bytesOfCharacters.get(c));
  return bytes.every((byte) => byte !== undefined) ? bytes as number[] : [...encoder.encode(token)];
}

/** The text of bytes, or where they are not UTF-8 one U+FFFD for each. */
function wholeOrMarks(bytes: readonly number[]): string[] {
  if (bytes.length === 0) return [];
  try {
    return [new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes))];
  } catch {
    return bytes.map(() => "\uFFFD");
  }
}

/** English spaces before punctuation, taken away. */
function tidy(text: string): string {
  return text.replaceAll(" .", ".").replaceAll(" ?", "?").replaceAll(" !", "!").replaceAll(" ,", ",")
    .replaceAll(" ' ", "'").replaceAll(" n't", "n't").replaceAll(" 'm", "'m").replaceAll(" do not", " don't")
    .replaceAll(" 's", "'s").replaceAll(" 've", "'ve").replaceAll(" 're", "'re");
}
