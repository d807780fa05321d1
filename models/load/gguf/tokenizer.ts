/** Tokenizers rebuilt from a GGUF's metadata (`tokenizer.ggml.*`), with llama.cpp's defaults for keys that are absent. */
import { FileError } from "../../../core/errors.ts";
import type { GgufValue } from "./gguf.ts";
import { preTokenizers } from "./pre_tokenizers.ts";
import type { GgufSource } from "./source.ts";
import { makeTokenizer, type Tokenizer } from "../tokenizer.ts";

type Metadata = Pick<GgufSource, "path" | "metadata">;

/** The ids of special tokens; null for one that there is not. */
export interface GgufSpecialIds {
  readonly bos: number | null;
  readonly eos: number | null;
  readonly unknown: number | null;
  readonly padding: number | null;
  /** All that end what a model says: the end of a text, of a turn, of a message, and tokens that say so by their text. */
  readonly ends: readonly number[];
}

/** llama.cpp's ids where a file names none, by kind of tokenizer. */
const defaultIds: Readonly<
  Record<string, { readonly bos?: number; readonly eos?: number; readonly unknown?: number }>
> = {
  gpt2: { bos: 11, eos: 11 },
  llama: { bos: 1, eos: 2, unknown: 0 },
};

/** The special ids of a file. One beyond the tokens counts as absent. */
export function ggufSpecialIds(source: Metadata): GgufSpecialIds {
  const key = keyOf(source);
  const tokens = key("tokens");
  const count = Array.isArray(tokens) ? tokens.length : Infinity;
  const kind = String(key("model"));
  const defaults = Object.hasOwn(defaultIds, kind) ? defaultIds[kind] : {};
  const noBos = kind === "gpt2" && preTokenizers.get(String(key("pre")))?.noBos;
  const find = (name: string, fallback?: number): number | null => {
    const fits = (id: unknown): id is number => typeof id === "number" && id >= 0 && id < count;
    const given = key(`${name}_token_id`);
    return fits(given) ? given : fits(fallback) ? fallback : null;
  };
  const eos = find("eos", defaults.eos);
  const byText = Array.isArray(tokens) ? tokens.flatMap((token, id) => controlTexts.has(token) ? [id] : []) : [];
  const ends = [eos, find("eot"), find("eom"), ...byText].filter((id) => id !== null);
  return {
    bos: find("bos", noBos ? undefined : defaults.bos),
    eos,
    unknown: find("unknown", defaults.unknown),
    padding: find("padding"),
    ends: [...new Set(ends)],
  };
}

/** Notes on a rebuilt tokenizer: what the file leaves out. */
export function ggufTokenizerNotes(source: Metadata): string[] {
  const key = keyOf(source);
  const kind = key("model");
  if (kind !== "gpt2" && kind !== "llama") return [];
  const ids = ggufSpecialIds(source);
  const tokens = key("tokens");
  const notes = (["bos", "eos"] as const).flatMap((name) => {
    const id = ids[name];
    if (id === null || key(`${name}_token_id`) === id || !Array.isArray(tokens)) return [];
    return [
      `the file names no ${name}_token_id of its own, so it is ${id}, ${JSON.stringify(tokens[id])}, as in llama.cpp`,
    ];
  });
  if (kind === "gpt2" && key("pre") === undefined) {
    notes.push(
      "the file does not say how its tokenizer splits texts (tokenizer.ggml.pre), so they are split as llama.cpp's " +
        "default does, which may not be as the model learned: put its tokenizer.json beside it, or take a newer file",
    );
  }
  return notes;
}

/**
 * Rebuilds a tokenizer: of the kind `gpt2`, byte-level BPE, or `llama`, SentencePiece's BPE. Throws a {@link FileError} for other
 * kinds, naming the ones that are known, or when the metadata has none.
 */
export function tokenizerFromGguf(source: Metadata): Tokenizer {
  const { path, metadata } = source;
  const key = keyOf(source);
  const kind = key("model");
  if (kind !== "gpt2" && kind !== "llama") {
    throw refusal(
      source,
      `has a tokenizer of the kind ${
        kind ?? "(none named)"
      }, and gpt2 (byte-level BPE) and llama (SentencePiece) are rebuilt`,
    );
  }
  const tokens = texts(source, "tokens").map((token, id) => token === "" ? `[EMPTY_${id}]` : token);
  if (new Set(tokens).size < tokens.length) throw refusal(source, "lists a token twice");
  const ids = ggufSpecialIds(source);
  const name = (id: number | null) => id === null ? undefined : tokens[id];
  const { addBos, ...parts } = kind === "gpt2"
    ? byteLevelBpe(source, tokens)
    : sentencePiece(source, tokens, name(ids.unknown));
  const flag = (key: GgufValue | undefined, absent: boolean) => typeof key === "boolean" ? key : absent;
  const around = (id: number | null, wanted: boolean, which: string) => {
    if (!wanted) return [];
    if (id === null) throw refusal(source, `puts a token at the ${which} of every text and names none`);
    return [{ id, token: tokens[id] }];
  };
  const template = metadata.get("tokenizer.chat_template");
  return makeTokenizer({
    path,
    tokenizer: {
      added_tokens: specialTokens(source, tokens),
      ...parts,
      post_processor: surround(
        around(ids.bos, flag(key("add_bos_token"), addBos), "beginning"),
        around(ids.eos, flag(key("add_eos_token"), false), "end"),
      ),
    },
    config: {
      ...{ bos_token: name(ids.bos), eos_token: name(ids.eos) },
      ...{ pad_token: name(ids.padding), unk_token: name(ids.unknown) },
    },
    chatTemplate: typeof template === "string" ? template : undefined,
    endIds: ids.ends,
  });
}

const keyOf = ({ metadata }: Metadata) => (name: string): GgufValue | undefined =>
  metadata.get(`tokenizer.ggml.${name}`);

const refusal = ({ path }: Metadata, problem: string) =>
  new FileError(`${path} ${problem}: put the model's tokenizer.json beside it.`);

/** A list of texts. */
function texts(source: Metadata, name: string): readonly string[] {
  const list = keyOf(source)(name);
  if (Array.isArray(list) && list.every((item) => typeof item === "string")) return list;
  throw refusal(source, `has no tokenizer.ggml.${name}, so it has no tokenizer of its own`);
}

/** Token types in GGUF metadata. */
const unknown = 2, control = 3, userDefined = 4;

/** Tokens that end a text, a turn or a message, by their text: llama.cpp takes them as control tokens whatever their type. */
const controlTexts = new Set([
  ...["<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"],
  ...["<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>"],
  ...["<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>"],
]);

/** The tokens that are matched in a text before anything else. */
function specialTokens(source: Metadata, tokens: readonly string[]): Record<string, unknown>[] {
  const types = keyOf(source)("token_type");
  const typeOf = (id: number) => Array.isArray(types) ? types[id] : 1;
  return tokens.flatMap((content, id) => {
    const type = controlTexts.has(content) ? control : typeOf(id);
    if (type !== unknown && type !== control && type !== userDefined) return [];
    const exact = { single_word: false, lstrip: false, rstrip: false, normalized: false };
    return [{ id, content, special: type !== userDefined, ...exact }];
  });
}

/** What a kind of tokenizer is, in the terms of tokenizer.json, and whether texts begin with a token by default. */
interface Parts {
  readonly addBos: boolean;
  readonly normalizer: unknown;
  readonly pre_tokenizer: unknown;
  readonly decoder: unknown;
  readonly model: Record<string, unknown>;
}

const vocabulary = (tokens: readonly string[]) => Object.fromEntries(tokens.map((token, id) => [token, id]));
const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };

function byteLevelBpe(source: Metadata, tokens: readonly string[]): Parts {
  const name = keyOf(source)("pre") ?? "default";
  const pre = preTokenizers.get(String(name));
  if (pre === undefined) {
    throw refusal(source, `splits texts by the rule ${name}; supported: ${[...preTokenizers.keys()].join(", ")}`);
  }
  const splits = pre.splits.map((Regex) => ({
    type: "Split",
    pattern: { Regex },
    behavior: "Isolated",
    invert: false,
  }));
  return {
    addBos: pre.addBos ?? false,
    normalizer: pre.composed ? { type: "NFC" } : null,
    pre_tokenizer: { type: "Sequence", pretokenizers: [...splits, byteLevel] },
    decoder: byteLevel,
    model: {
      type: "BPE",
      unk_token: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: pre.ignoreMerges ?? false,
      vocab: vocabulary(tokens),
      merges: texts(source, "merges").map(splitMerge),
    },
  };
}

/** `Ġ t` → its two halves; in byte-level vocabularies no token holds a space. */
function splitMerge(merge: string): [string, string] {
  const space = merge.indexOf(" ", 1);
  return [merge.slice(0, space), merge.slice(space + 1)];
}

function sentencePiece(source: Metadata, tokens: readonly string[], unknownToken: string | undefined): Parts {
  const key = keyOf(source);
  const scores = key("scores");
  if (!Array.isArray(scores) || scores.length < tokens.length || scores.some((s) => typeof s !== "number")) {
    throw refusal(source, `has no tokenizer.ggml.scores for its ${tokens.length} tokens`);
  }
  const spaces = { type: "Replace", pattern: { String: " " }, content: "▁" };
  const prefix = key("add_space_prefix") !== false;
  const decoders = [
    { type: "Replace", pattern: { String: "▁" }, content: " " },
    { type: "ByteFallback" },
    { type: "Fuse" },
    ...(prefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
  ];
  return {
    addBos: true,
    normalizer: prefix ? { type: "Sequence", normalizers: [{ type: "Prepend", prepend: "▁" }, spaces] } : spaces,
    pre_tokenizer: null,
    decoder: { type: "Sequence", decoders },
    model: {
      type: "BPE",
      unk_token: unknownToken ?? null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: vocabulary(tokens),
      merges: mergesByScore(tokens, scores as readonly number[]),
    },
  };
}

/** SentencePiece joins the two neighbours that make the token of the greatest score: as merges, every split of every token. */
function mergesByScore(tokens: readonly string[], scores: readonly number[]): [string, string][] {
  const known = new Set(tokens);
  const merges: { readonly pair: [string, string]; readonly score: number }[] = [];
  for (const [id, token] of tokens.entries()) {
    const letters = [...token];
    for (let at = 0, i = 0; i + 1 < letters.length; i++) {
      at += letters[i].length;
      const pair: [string, string] = [token.slice(0, at), token.slice(at)];
      if (known.has(pair[0]) && known.has(pair[1])) merges.push({ pair, score: scores[id] });
    }
  }
  return merges.sort((a, b) => b.score - a.score).map(({ pair }) => pair);
}

/** What puts tokens before and after a text; null where there are none. */
function surround(before: readonly Special[], after: readonly Special[]): Record<string, unknown> | null {
  if (before.length + after.length === 0) return null;
  const special = ({ token }: Special) => ({ SpecialToken: { id: token, type_id: 0 } });
  const text = (id: string) => ({ Sequence: { id, type_id: 0 } });
  return {
    type: "TemplateProcessing",
    single: [...before.map(special), text("A"), ...after.map(special)],
    pair: [...before.map(special), text("A"), text("B"), ...after.map(special)],
    special_tokens: Object.fromEntries(
      [...before, ...after].map(({ id, token }) => [token, { id: token, ids: [id], tokens: [token] }]),
    ),
  };
}

interface Special {
  readonly id: number;
  readonly token: string;
}
