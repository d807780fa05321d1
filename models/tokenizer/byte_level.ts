/** Bytes as characters, as byte-level BPE writes them (Radford et al. 2019, section 2.2). */
import { memoize } from "./memoize.ts";
import { characterLength, type Edit, type Sources, sourcesOf, type TrackedText } from "./tracked_text.ts";

/** The character of each byte: a printable Latin-1 character is itself, the others are numbered from U+0100 on. */
export const byteCharacters: readonly string[] = (() => {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    return String.fromCharCode(printable ? byte : next++);
  });
})();

/** The byte of each character. */
export const bytesOfCharacters: ReadonlyMap<string, number> = new Map(byteCharacters.map((c, byte) => [c, byte]));

const encoder = new TextEncoder();

/** A text as the characters of its bytes; those of a character come from it as a whole. */
export function toByteCharacters(text: TrackedText): TrackedText {
  return isItself(text.text) ? text : text.become(bytesIn(text.text));
}

/** {@link toByteCharacters} for words, which come again and again: short ones are remembered. */
export function wordsToByteCharacters(): (word: TrackedText) => TrackedText {
  const bytesOf = memoize(bytesIn);
  return (word) => isItself(word.text) ? word : word.become(bytesOf(word.text));
}

function isItself(text: string): boolean {
  return /^[!-~]*$/.test(text);
}

function bytesIn(text: string): Sources {
  const edits: Edit[] = [];
  for (let at = 0; at < text.length;) {
    const length = characterLength(text, at);
    const character = text.slice(at, at + length);
    const bytes = Array.from(encoder.encode(character), (byte) => byteCharacters[byte]).join("");
    if (bytes !== character) edits.push({ start: at, end: at + length, text: bytes });
    at += length;
  }
  return sourcesOf(text, edits);
}
