import { makeTokenizer, type Tokenizer, type TokenizerFiles } from "./tokenizer.ts";

/**
 * The files of a tokenizer whose tokens are the 256 bytes of UTF-8 (byte b has id b), and `endToken` with id 256. It is a
 * byte-level BPE without merges, so that transformers reads the same two files. Keys: `tokenizer.json`'s and
 * `tokenizer_config.json`'s contents.
 */
export function byteTokenizerFiles(endToken: string): TokenizerFiles {
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  return {
    path: "the byte tokenizer",
    tokenizer: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: [{
        ...{ id: 256, content: endToken, special: true },
        ...{ single_word: false, lstrip: false, rstrip: false, normalized: false },
      }],
      normalizer: null,
      pre_tokenizer: byteLevel,
      post_processor: null,
      decoder: byteLevel,
      model: {
        ...{ type: "BPE", dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null },
        ...{ fuse_unk: false, byte_fallback: false, ignore_merges: false },
        vocab: Object.fromEntries([...byteLetters()].map((letter, byte) => [letter, byte])),
        merges: [],
      },
    },
    config: {
      tokenizer_class: "PreTrainedTokenizerFast",
      ...{ bos_token: endToken, eos_token: endToken, pad_token: endToken },
      clean_up_tokenization_spaces: false,
    },
  };
}

/** The byte tokenizer itself. */
export function byteTokenizer(endToken: string): Tokenizer {
  return makeTokenizer(byteTokenizerFiles(endToken));
}

/** GPT-2's letter for every byte: printable ones stand for themselves, the others for U+0100 on, in order. */
function byteLetters(): string {
  const printable = (b: number) => (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
  let next = 0x100;
  let letters = "";
  for (let b = 0; b < 256; b++) letters += String.fromCharCode(printable(b) ? b : next++);
  return letters;
}
