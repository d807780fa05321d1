import { DataError, FileError, LowrankError, OptionError } from "../../core/errors.ts";
import { readChatTemplate } from "../template/chat_template.ts";
import { writeConversation } from "../template/conversation.ts";
import { findAddedTokens, readAddedTokens } from "../tokenizer/added_tokens.ts";
import { readDecoder } from "../tokenizer/decoders.ts";
import { refuseGrowth } from "../tokenizer/growth.ts";
import { readNormalizer } from "../tokenizer/normalizers.ts";
import { readFrame } from "../tokenizer/post_processor.ts";
import { readPreTokenizer } from "../tokenizer/pre_tokenizers.ts";
import { type Range, TrackedText } from "../tokenizer/tracked_text.ts";
import { checkId, readVocabulary, refuseShared } from "../tokenizer/vocabulary.ts";
import { parseJsonObject, pathKind, readText } from "./files/byte_source.ts";
import { checkOptions } from "../../core/options.ts";

/** One turn of a conversation. What else it holds, such as `tool_calls`, is for the template. */
export interface Message {
  /** `system`, `user`, `assistant`, `tool`, as the template knows them. */
  readonly role: string;
  /** The content: a text, or parts such as `{"type": "text", "text": …}`, or nothing beside `tool_calls`. */
  readonly content?: string | null | readonly Readonly<Record<string, unknown>>[];
  /** Anything else. */
  readonly [key: string]: unknown;
}

/** What a chat template gets besides the messages. */
export interface ChatOptions {
  /** Begin the assistant's next turn. Default false. */
  readonly addGenerationPrompt?: boolean;
  /** The functions that the model may call, as JSON schemas (transformers' `tools`). */
  readonly tools?: readonly unknown[];
  /** Texts that an answer is to rest on (transformers' `documents`). */
  readonly documents?: readonly unknown[];
}

/** A conversation as text. */
export interface WrittenChat {
  /** What the template wrote. */
  readonly text: string;
  /** What the assistant says, where the template marks it (`{% generation %}`): UTF-16 code units [start, end). */
  readonly generated: readonly { readonly start: number; readonly end: number }[];
}

/** Which special tokens a text gets. */
export interface EncodeOptions {
  /** Those that the model puts around a text, only those before it, or none. Default true. */
  readonly addSpecialTokens?: boolean | "before";
}

/** Text to token ids and back, and a model's way of writing conversations. */
export interface Tokenizer {
  /** One more than the largest id; a model's embedding may have more rows. */
  readonly vocabSize: number;
  /** The token that begins a text; null where the model names none, as below. */
  readonly bosId: number | null;
  /** Ends a text: what training adds to a text and an answer. */
  readonly eosId: number | null;
  /** The tokens at which a text that is generated ends: {@link eosId}, and what else the model's files name. */
  readonly endIds: readonly number[];
  /** Fills a batch. */
  readonly padId: number | null;
  /** Stands for a hidden word, in models that tell these. */
  readonly maskId: number | null;
  /** Whether the model says how conversations are written. */
  readonly hasChatTemplate: boolean;
  /** @ignore What it was made of, to be saved beside a model. */
  readonly files: TokenizerFiles;
  /**
   * The ids of a text. Special tokens written out in the text count as such; `addSpecialTokens` (default true) also adds those
   * that this model puts around a text (many add none), and `"before"` only those before it, for a text that is to go on.
   */
  encode(text: string, options?: EncodeOptions): number[];
  /**
   * The same with the part [start, end) of the text, in UTF-16 code units, that each token stands for. Tokens of parts of one
   * character share it; tokens put around a text stand for nothing, at its beginning or its end.
   */
  encodeWithOffsets(
    text: string,
    options?: EncodeOptions,
  ): { readonly ids: number[]; readonly offsets: readonly (readonly [start: number, end: number])[] };
  /** The ids of two texts that belong together, with the special tokens between them, and which text each token is of. */
  encodePair(first: string, second: string): { readonly ids: number[]; readonly tokenTypeIds: number[] };
  /**
   * The text of ids, spaces untouched; bytes that are no whole character become U+FFFD, and ids of no token, which a model with
   * a padded vocabulary can make, nothing. With `after`, what ids add to the text of those: at its beginning many tokenizers
   * drop a space.
   */
  decode(
    ids: readonly number[],
    options?: { readonly skipSpecialTokens?: boolean; readonly after?: readonly number[] },
  ): string;
  /** A conversation as the model's chat template writes it. Encode the result with `addSpecialTokens: false`. */
  applyChatTemplate(messages: readonly Message[], options?: ChatOptions): string;
  /** The same, with where the assistant speaks. */
  writeChat(messages: readonly Message[], options?: ChatOptions): WrittenChat;
}

/** What a tokenizer is made of: the contents of tokenizer.json and tokenizer_config.json, and where they came from. */
export interface TokenizerFiles {
  readonly path: string;
  readonly tokenizer: Record<string, unknown>;
  readonly config: Record<string, unknown>;
  readonly chatTemplate?: string;
  /** The template for conversations with tools, where it is another. */
  readonly toolTemplate?: string;
  /** Ids that end a text by other files than the tokenizer's. */
  readonly endIds?: readonly number[];
}

/**
 * Reads the tokenizer of a model, or null when it has no tokenizer.json. `folder` is what error sentences call the place, and
 * where the files are unless `text` gives their contents; `known` are ends of a text that another file names.
 */
export function readTokenizer(
  folder: string,
  text = textsOf(folder),
  known: readonly number[] = [],
): Tokenizer | null {
  const json = (file: string) => {
    const found = text(file);
    return found === null ? null : parseJsonObject(found, `${folder}/${file}`);
  };
  const tokenizer = json("tokenizer.json");
  if (!tokenizer) return null;
  const config = { ...json("special_tokens_map.json"), ...json("tokenizer_config.json") };
  const chatTemplate = text("chat_template.jinja") ?? templateOf(config.chat_template, "default");
  const toolTemplate = templateOf(config.chat_template, "tool_use");
  const endIds = endIdsIn(json("generation_config.json")) ?? endIdsIn(json("config.json")) ?? known;
  return makeTokenizer({ path: `${folder}/tokenizer.json`, tokenizer, config, chatTemplate, toolTemplate, endIds });
}

/** The ids that end a text by a configuration: one, or a list; null where it names none. */
function endIdsIn(config: Readonly<Record<string, unknown>> | null): readonly number[] | null {
  const { eos_token_id: ids = null } = config ?? {};
  const found = (Array.isArray(ids) ? ids : [ids]).filter((id) => Number.isInteger(id) && id >= 0);
  return found.length === 0 ? null : found;
}

/** The text files of a folder by name; null for one that is not there. */
function textsOf(folder: string): (file: string) => string | null {
  return (file) => pathKind(`${folder}/${file}`) === "file" ? readText(`${folder}/${file}`) : null;
}

/**
 * Makes a tokenizer. Texts go the way of Hugging Face's tokenizers: added tokens, normaliser, splits, vocabulary, frame; all
 * along it is known which characters of the text each token stands for.
 */
export function makeTokenizer(files: TokenizerFiles): Tokenizer {
  const { path, config } = files;
  const { ids, tokens, special, encodeText, frame, decode } = explain(path, () => readPipeline(files.tokenizer));
  let vocabSize = 0;
  for (const id of tokens.keys()) vocabSize = Math.max(vocabSize, id + 1);
  const textOf = (key: string): string | null => {
    const value = config[key];
    const text = typeof value === "object" && value !== null ? (value as { content?: unknown }).content : value;
    return typeof text === "string" ? text : null;
  };
  const idOf = (key: string): number | null => {
    const text = textOf(key);
    return text === null ? null : ids(text) ?? null;
  };
  const named = files.endIds ?? [];
  const eosId = idOf("eos_token") ?? named[0] ?? null;
  const templateFrom = (source: string | undefined) =>
    source === undefined ? null : { source, write: explain(path, () => readChatTemplate(source)) };
  const template = templateFrom(files.chatTemplate), toolTemplate = templateFrom(files.toolTemplate);
  const specialTexts = Object.fromEntries(
    ["bos_token", "eos_token", "pad_token", "unk_token"].flatMap((key) =>
      textOf(key) === null ? [] : [[key, textOf(key)]]
    ),
  );

  /** Calls back for each token of a text, in order, with what of the text it stands for. */
  const walk = (
    text: string,
    framed: boolean | "before",
    put: (id: number, start: number, end: number) => void,
  ) => {
    let isBefore = true;
    for (const place of frame.single) {
      if ("text" in place) {
        encodeText(text, put);
        isBefore = false;
      } else if (framed === true || (framed === "before" && isBefore)) {
        const at = isBefore ? 0 : text.length;
        for (const id of place.ids) put(id, at, at);
      }
    }
  };
  const textOfIds = (all: readonly number[], skipSpecial: boolean) => {
    const texts: string[] = [];
    for (const id of all) {
      // A model's table may have more rows than there are tokens: such ids say nothing.
      const token = tokens.get(id);
      if (token !== undefined && !(skipSpecial && special.has(id))) texts.push(token);
    }
    return texts.length === 0 ? "" : decode(texts);
  };
  const writeChat = (messages: readonly Message[], options: ChatOptions = {}): WrittenChat => {
    checkOptions("writeChat", options, { addGenerationPrompt: true, tools: true, documents: true });
    if (template === null) {
      throw new OptionError(`The tokenizer of ${path} has no chat template: give prompts as plain text.`);
    }
    const { addGenerationPrompt = false, tools = null, documents = null } = options;
    const { write, source } = (tools === null ? null : toolTemplate) ?? template;
    try {
      const given = { messages, tools, documents, add_generation_prompt: addGenerationPrompt, ...specialTexts };
      return writeConversation(write, source, given);
    } catch (error) {
      throw new DataError(`The chat template of ${path} refuses the conversation: ${(error as Error).message}.`);
    }
  };
  return {
    vocabSize,
    bosId: idOf("bos_token"),
    eosId,
    endIds: [...new Set([...(eosId === null ? [] : [eosId]), ...named])],
    padId: idOf("pad_token"),
    maskId: idOf("mask_token"),
    hasChatTemplate: template !== null,
    files,
    encode(text, options = {}) {
      checkOptions("encode", options, { addSpecialTokens: true });
      const { addSpecialTokens = true } = options;
      const found: number[] = [];
      walk(text, addSpecialTokens, (id) => found.push(id));
      return found;
    },
    encodeWithOffsets(text, options = {}) {
      checkOptions("encodeWithOffsets", options, { addSpecialTokens: true });
      const { addSpecialTokens = true } = options;
      const found: number[] = [], offsets: Range[] = [];
      walk(text, addSpecialTokens, (id, start, end) => {
        found.push(id);
        offsets.push([start, end]);
      });
      return { ids: found, offsets };
    },
    encodePair(first, second) {
      const found: number[] = [], tokenTypeIds: number[] = [];
      for (const place of frame.pair) {
        const before = found.length;
        if ("text" in place) encodeText([first, second][place.text], (id) => found.push(id));
        else found.push(...place.ids);
        for (let i = before; i < found.length; i++) tokenTypeIds.push(place.type);
      }
      return { ids: found, tokenTypeIds };
    },
    decode(all, options = {}) {
      checkOptions("decode", options, { skipSpecialTokens: true, after: true });
      const { skipSpecialTokens = false, after = [] } = options;
      for (const id of all) {
        if (!Number.isInteger(id) || id < 0) {
          throw new OptionError(`Cannot decode the id ${id}: ids are whole numbers from 0 on.`);
        }
      }
      const context = contextOf(after, (some) => textOfIds(some, true));
      const before = textOfIds(context, skipSpecialTokens);
      const text = textOfIds([...context, ...all], skipSpecialTokens);
      return text.startsWith(before) ? text.slice(before.length) : textOfIds(all, skipSpecialTokens);
    },
    applyChatTemplate: (messages, options) => writeChat(messages, options).text,
    writeChat,
  };
}

/** The last of the ids before others that decide how the others are written: whole characters, and not only special tokens. */
function contextOf(before: readonly number[], textOf: (ids: readonly number[]) => string): readonly number[] {
  for (let n = 1; n < before.length; n *= 2) {
    const text = textOf(before.slice(-n));
    if (text.trim() !== "" && !text.includes("\uFFFD")) return before.slice(-n);
  }
  return textOf(before) === "" ? [] : before;
}

/** A tokenizer.json, ready to use. */
function readPipeline(file: TokenizerFiles["tokenizer"]) {
  for (const name of ["normalizer", "pre_tokenizer", "decoder"]) refuseGrowth(file[name], `its ${name}`);
  const vocabulary = readVocabulary(file.model);
  // A token that the vocabulary has keeps its id there.
  const added = readAddedTokens(file.added_tokens).map((token) => ({
    ...token,
    id: vocabulary.ids.get(token.content) ?? checkId(token.content, token.id),
  }));
  const normalize = readNormalizer(file.normalizer);
  const preTokenize = readPreTokenizer(file.pre_tokenizer);
  const sections = findAddedTokens(added, normalize);
  const addedIds = new Map(added.map(({ content, id }) => [content, id]));
  const tokens = new Map([...vocabulary.ids].map(([token, id]) => [id, token]));
  refuseShared([...vocabulary.ids, ...addedIds]);
  for (const { id, content, normalized } of added) {
    tokens.set(id, normalized ? normalize(TrackedText.of(content)).text : content);
  }
  return {
    tokens,
    ids: (token: string) => addedIds.get(token) ?? vocabulary.ids.get(token),
    special: new Set(added.filter((token) => token.special).map(({ id }) => id)),
    frame: readFrame(file.post_processor),
    decode: readDecoder(file.decoder),
    encodeText(text: string, put: (id: number, start: number, end: number) => void) {
      for (const section of sections(text)) {
        if (section.token !== null) {
          put(section.token.id, ...section.text.origin(0, section.text.text.length));
          continue;
        }
        for (const word of preTokenize([section.text])) {
          for (const { id, start, end } of vocabulary.tokenize(word.text)) put(id, ...word.origin(start, end));
        }
      }
    },
  };
}

/** A model's template, or of several the one of that name: `default`, or `tool_use` for conversations with tools. */
function templateOf(value: unknown, name: string): string | undefined {
  if (!Array.isArray(value)) return typeof value === "string" && name === "default" ? value : undefined;
  const found = value.find((entry) => entry?.name === name)?.template;
  return typeof found === "string" ? found : undefined;
}

function explain<T>(path: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof LowrankError) throw error;
    throw new FileError(
      `The tokenizer in ${path} can't be used: ${(error as Error).message}. Download the model's own again.`,
    );
  }
}
