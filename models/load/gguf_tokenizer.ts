import { FileError } from "../../core/errors.ts";
import type { GgufSource } from "./gguf_source.ts";
import { digitSplit, makeTokenizer, type Tokenizer } from "./tokenizer.ts";

const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };

/** Words, punctuation, line ends and spaces apart, and digits by the pattern given. */
const words = (digits: string) => ({
  type: "Sequence",
  pretokenizers: [
    {
      type: "Split",
      pattern: {
        Regex: "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" +
          `${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`,
      },
      behavior: "Isolated",
      invert: false,
    },
    { ...byteLevel, use_regex: false },
  ],
});

/** Splits of a text before byte-pair merging, by `tokenizer.ggml.pre` (llama.cpp `llama_vocab_pre_type`). */
const preTokenizers: Readonly<Record<string, unknown>> = {
  "default": byteLevel,
  "gpt-2": byteLevel,
  // Every digit by itself, then GPT-2's split.
  "smollm": { type: "Sequence", pretokenizers: [digitSplit(true), byteLevel] },
  "llama-bpe": words("\\p{N}{1,3}"),
  "qwen2": words("\\p{N}"),
};

/** What is done to a text before it is split: composed characters, for the tokenizers that were trained on them. */
const normalizers: Readonly<Record<string, unknown>> = { "qwen2": { type: "NFC" } };

/** Token types in GGUF metadata that are matched in the text before anything else: control (3) and user-defined (4). */
const control = 3, userDefined = 4;

/**
 * Rebuilds a byte-level BPE tokenizer from a GGUF's metadata (`tokenizer.ggml.*`; ggml docs/gguf.md). Throws a
 * {@link FileError} for other kinds of tokenizer, naming the ones that are known, or when the metadata has none.
 */
export function tokenizerFromGguf(source: GgufSource): Tokenizer {
  const { path } = source;
  const refuse = (problem: string, mend: string): never => {
    throw new FileError(`${path} ${problem}: ${mend}.`);
  };
  const key = (name: string) => source.metadata.get(`tokenizer.ggml.${name}`);
  const texts = (name: string): string[] => {
    const list = key(name);
    if (Array.isArray(list) && list.every((item) => typeof item === "string")) return list;
    return refuse(
      `has no tokenizer.ggml.${name}`,
      "it has no tokenizer of its own; put the model's tokenizer.json beside it",
    );
  };
  if (key("model") !== "gpt2") {
    refuse(
      `has a tokenizer of the kind ${key("model") ?? "(none named)"}, and only gpt2 (byte-level BPE) is rebuilt`,
      "put the model's tokenizer.json beside it",
    );
  }
  const pre = key("pre") ?? "default";
  if (typeof pre !== "string" || !Object.hasOwn(preTokenizers, pre)) {
    refuse(
      `splits texts by the rule ${pre}, and known are ${Object.keys(preTokenizers).join(", ")}`,
      "put the model's tokenizer.json beside it",
    );
  }
  const tokens = texts("tokens");
  const types = key("token_type");
  const typeOf = (id: number) => Array.isArray(types) ? types[id] : 1;
  const added = [];
  for (const [id, content] of tokens.entries()) {
    const type = typeOf(id);
    if (type === control || type === userDefined) {
      added.push({
        id,
        content,
        special: type === control,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
      });
    }
  }
  const name = (which: string): string | undefined => {
    const id = key(`${which}_token_id`);
    return typeof id === "number" ? tokens[id] : undefined;
  };
  const bos = name("bos");
  const template = source.metadata.get("tokenizer.chat_template");
  return makeTokenizer({
    path,
    tokenizer: {
      added_tokens: added,
      normalizer: normalizers[pre as string] ?? null,
      pre_tokenizer: preTokenizers[pre as string],
      post_processor: key("add_bos_token") === true && bos !== undefined ? prepend(bos, tokens.indexOf(bos)) : null,
      decoder: byteLevel,
      model: {
        type: "BPE",
        unk_token: name("unknown") ?? null,
        fuse_unk: false,
        byte_fallback: false,
        ignore_merges: pre === "llama-bpe",
        vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
        merges: texts("merges").map((merge) => splitMerge(merge)),
      },
    },
    config: { bos_token: bos, eos_token: name("eos"), pad_token: name("padding"), unk_token: name("unknown") },
    chatTemplate: typeof template === "string" ? template : undefined,
  });
}

/** `Ġ t` → its two halves; in byte-level vocabularies no token holds a space. */
function splitMerge(merge: string): [string, string] {
  const space = merge.indexOf(" ", 1);
  return [merge.slice(0, space), merge.slice(space + 1)];
}

function prepend(token: string, id: number): Record<string, unknown> {
  const first = { SpecialToken: { id: token, type_id: 0 } };
  return {
    type: "TemplateProcessing",
    single: [first, { Sequence: { id: "A", type_id: 0 } }],
    pair: [first, { Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 0 } }],
    special_tokens: { [token]: { id: token, ids: [id], tokens: [token] } },
  };
}
