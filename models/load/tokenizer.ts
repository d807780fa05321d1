import { Template } from "@huggingface/jinja";
import { Tokenizer as Encoder } from "@huggingface/tokenizers";
import { DataError, FileError, LowrankError, OptionError } from "../../core/errors.ts";
import { parseJsonObject, pathKind, readText } from "./byte_source.ts";

/** One turn of a conversation. */
export interface Message {
  /** `system`, `user`, `assistant`, as the template knows them. */
  readonly role: string;
  /** What was said. */
  readonly content: string;
}

/** Text to token ids and back, and a model's way of writing conversations. */
export interface Tokenizer {
  /** One more than the largest id; a model's embedding may have more rows. */
  readonly vocabSize: number;
  /** The token that begins a text; null where the model names none, as below. */
  readonly bosId: number | null;
  /** Ends a text. */
  readonly eosId: number | null;
  /** Fills a batch. */
  readonly padId: number | null;
  /** Whether the model says how conversations are written. */
  readonly hasChatTemplate: boolean;
  /** @ignore What it was made of, to be saved beside a model. */
  readonly files: TokenizerFiles;
  /**
   * The ids of a text. Special tokens written out in the text count as such; `addSpecialTokens` (default true) also adds those
   * that this model puts around a text (many add none).
   */
  encode(text: string, options?: { readonly addSpecialTokens?: boolean }): number[];
  /** The ids of two texts that belong together, with the special tokens between them, and which text each token is of. */
  encodePair(first: string, second: string): { readonly ids: number[]; readonly tokenTypeIds: number[] };
  /** The text of ids, spaces untouched; bytes that are no whole character become U+FFFD. */
  decode(ids: readonly number[], options?: { readonly skipSpecialTokens?: boolean }): string;
  /** A conversation as the model's chat template writes it. Encode the result with `addSpecialTokens: false`. */
  applyChatTemplate(messages: readonly Message[], options?: { readonly addGenerationPrompt?: boolean }): string;
}

/** What a tokenizer is made of: the contents of tokenizer.json and tokenizer_config.json, and where they came from. */
export interface TokenizerFiles {
  readonly path: string;
  readonly tokenizer: Record<string, unknown>;
  readonly config: Record<string, unknown>;
  readonly chatTemplate?: string;
}

/**
 * Reads the tokenizer of a model, or null when it has no tokenizer.json. `folder` is what error sentences call the place, and
 * where the files are unless `text` gives their contents.
 */
export function readTokenizer(folder: string, text = textsOf(folder)): Tokenizer | null {
  const json = (file: string) => {
    const found = text(file);
    return found === null ? null : parseJsonObject(found, `${folder}/${file}`);
  };
  const tokenizer = json("tokenizer.json");
  if (!tokenizer) return null;
  const config = json("tokenizer_config.json") ?? {};
  const chatTemplate = text("chat_template.jinja") ?? templateOf(config.chat_template);
  return makeTokenizer({ path: `${folder}/tokenizer.json`, tokenizer, config, chatTemplate });
}

/** The text files of a folder by name; null for one that is not there. */
function textsOf(folder: string): (file: string) => string | null {
  return (file) => pathKind(`${folder}/${file}`) === "file" ? readText(`${folder}/${file}`) : null;
}

/** Makes a tokenizer; the work is done by `@huggingface/tokenizers` and `@huggingface/jinja`. */
export function makeTokenizer(files: TokenizerFiles): Tokenizer {
  const encoder = explain(
    files.path,
    () =>
      new Encoder({ ...files.tokenizer, pre_tokenizer: splitAllDigits(files.tokenizer.pre_tokenizer) }, files.config),
  );
  const vocabulary = encoder.get_vocab(true);
  let vocabSize = 0;
  for (const id of vocabulary.values()) vocabSize = Math.max(vocabSize, id + 1);
  const special = (key: string): string | null => {
    const value = files.config[key];
    const text = typeof value === "object" && value !== null ? (value as { content?: unknown }).content : value;
    return typeof text === "string" ? text : null;
  };
  const idOf = (key: string): number | null => {
    const text = special(key);
    return text === null ? null : encoder.token_to_id(text) ?? null;
  };
  const { chatTemplate } = files;
  const template = chatTemplate === undefined ? null : explain(files.path, () => new Template(chatTemplate));
  const tokens = Object.fromEntries(
    ["bos_token", "eos_token", "pad_token", "unk_token"].map((key) => [key, special(key) ?? ""]),
  );
  return {
    vocabSize,
    bosId: idOf("bos_token"),
    eosId: idOf("eos_token"),
    padId: idOf("pad_token"),
    hasChatTemplate: template !== null,
    files,
    encode(text, { addSpecialTokens = true } = {}) {
      return encoder.encode(text, { add_special_tokens: addSpecialTokens }).ids;
    },
    encodePair(first, second) {
      const { ids, token_type_ids } = encoder.encode(first, { text_pair: second, return_token_type_ids: true });
      return { ids, tokenTypeIds: token_type_ids };
    },
    decode(ids, { skipSpecialTokens = false } = {}) {
      for (const id of ids) {
        if (!Number.isInteger(id) || id < 0 || id >= vocabSize) {
          throw new OptionError(
            `Cannot decode the id ${id}: the tokenizer of ${files.path} has 0 to ${vocabSize - 1}.`,
          );
        }
      }
      if (ids.length === 0) return "";
      return encoder.decode([...ids], {
        skip_special_tokens: skipSpecialTokens,
        clean_up_tokenization_spaces: false,
      });
    },
    applyChatTemplate(messages, { addGenerationPrompt = false } = {}) {
      if (template === null) {
        throw new OptionError(`The tokenizer of ${files.path} has no chat template: give prompts as plain text.`);
      }
      try {
        return template.render({ messages, add_generation_prompt: addGenerationPrompt, ...tokens });
      } catch (error) {
        throw new DataError(
          `The chat template of ${files.path} refuses the conversation: ${(error as Error).message}.`,
        );
      }
    },
  };
}

/** Files of older models name several templates; the one called `default` is meant. */
function templateOf(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (!Array.isArray(value)) return undefined;
  return value.find((entry) => entry?.name === "default")?.template;
}

/**
 * A pre-tokenizer in which `Digits` splits off every numeric character (Unicode N*), as the reference tokenizers do; the
 * JavaScript library's own knows 0 to 9 only and would give other ids for ½ or ٣.
 */
function splitAllDigits(value: unknown): unknown {
  if (value === null || typeof value !== "object") return value ?? null;
  const { type, pretokenizers, individual_digits: single } = value as Record<string, unknown>;
  if (type === "Sequence" && Array.isArray(pretokenizers)) {
    return { ...value, pretokenizers: pretokenizers.map(splitAllDigits) };
  }
  return type === "Digits" ? digitSplit(single === true) : value;
}

/** The pre-tokenizer that isolates numeric characters, each one or in runs. */
export function digitSplit(single: boolean): Record<string, unknown> {
  return { type: "Split", pattern: { Regex: single ? "\\p{N}" : "\\p{N}+" }, behavior: "Isolated", invert: false };
}

function explain<T>(path: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof LowrankError) throw error;
    throw new FileError(`The tokenizer in ${path} can't be used (${(error as Error).message}): bring it again.`);
  }
}
