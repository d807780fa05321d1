/** The end mark of {@link byteTokenizerFile}, and its id: the 256 bytes come before it. */
export const END_OF_TEXT = { text: "<|endoftext|>", id: 256 } as const;

/**
 * The contents of a `tokenizer.json` in which every byte is a token and its id is its value, and {@link END_OF_TEXT} follows:
 * byte-level BPE (Radford et al. 2019, section 2.2) without merges.
 */
export function byteTokenizerFile(): Record<string, unknown> {
  const vocab = Object.fromEntries(byteCharacters().map((character, byte) => [character, byte]));
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  const end = { id: END_OF_TEXT.id, content: END_OF_TEXT.text, special: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [{ ...end, single_word: false, lstrip: false, rstrip: false, normalized: false }],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      ...{ type: "BPE", dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null },
      ...{ fuse_unk: false, byte_fallback: false, ignore_merges: false },
      vocab: { ...vocab, [END_OF_TEXT.text]: END_OF_TEXT.id },
      merges: [],
    },
  };
}

/** The contents of the `tokenizer_config.json` beside it. */
export function byteTokenizerConfig(): Record<string, unknown> {
  const { text } = END_OF_TEXT;
  return {
    tokenizer_class: "PreTrainedTokenizerFast",
    ...{ bos_token: text, eos_token: text, pad_token: text },
    clean_up_tokenization_spaces: false,
  };
}

/** GPT-2's name of each byte: a printable Latin-1 character is itself, the others are numbered from U+0100 on. */
function byteCharacters(): string[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    return String.fromCharCode(printable ? byte : next++);
  });
}
