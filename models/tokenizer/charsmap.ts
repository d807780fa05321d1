/** SentencePiece's compiled table of replacements (sentencepiece `src/normalizer.cc`, `third_party/darts_clone`). */
import type { Edit, TrackedText } from "./tracked_text.ts";

const encoder = new TextEncoder(), decoder = new TextDecoder();

/**
 * A normaliser from `precompiled_charsmap`, base64 of: the bytes of a double-array trie (u32), the trie (u32 each), and the
 * replacements, each ended by a zero byte. Replaced are grapheme clusters of up to five bytes, else single characters.
 */
export function charsmap(base64: string): (text: TrackedText) => TrackedText {
  const bytes = decodeBase64(base64);
  if (bytes.length === 0) return (text) => text;
  const view = new DataView(bytes.buffer);
  const size = bytes.length < 4 ? Infinity : view.getUint32(0, true);
  if (size % 4 !== 0 || size + 4 > bytes.length) throw new Error("its precompiled_charsmap is damaged");
  const trie = Uint32Array.from({ length: size / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
  const texts = bytes.subarray(4 + size);
  const known = new Map<string, string | undefined>();
  const replacement = (piece: string): string | undefined => {
    if (known.has(piece)) return known.get(piece);
    const at = shortestPrefix(trie, encoder.encode(piece));
    const end = at === null ? -1 : texts.indexOf(0, at);
    const found = at === null ? undefined : decoder.decode(texts.subarray(at, end < 0 ? texts.length : end));
    known.set(piece, found);
    return found;
  };
  const segmenter = new Intl.Segmenter("und", { granularity: "grapheme" });
  return (text) => {
    const edits: Edit[] = [];
    for (const { segment, index } of segmenter.segment(text.text)) {
      const whole = encoder.encode(segment).length < 6 ? replacement(segment) : undefined;
      if (whole !== undefined) {
        if (whole !== segment) edits.push({ start: index, end: index + segment.length, text: whole });
        continue;
      }
      let at = index;
      for (const character of segment) {
        const found = replacement(character);
        const end = at + character.length;
        if (found !== undefined && found !== character) edits.push({ start: at, end, text: found });
        at = end;
      }
    }
    return text.edit(edits);
  };
}

/** The value of the shortest key of the trie that `key` begins with, or null. */
function shortestPrefix(trie: Uint32Array, key: Uint8Array): number | null {
  const offset = (unit: number) => (unit >>> 10) << ((unit & 0x200) >>> 6);
  let at = offset(trie[0]);
  for (const byte of key) {
    if (byte === 0) return null;
    at ^= byte;
    const unit = trie[at];
    if (unit === undefined || ((unit & 0x800000ff) >>> 0) !== byte) return null;
    at ^= offset(unit);
    if ((unit >>> 8) & 1) return trie[at] & 0x7fffffff;
  }
  return null;
}

function decodeBase64(text: string): Uint8Array<ArrayBuffer> {
  try {
    return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  } catch {
    throw new Error("its precompiled_charsmap is not base64");
  }
}
