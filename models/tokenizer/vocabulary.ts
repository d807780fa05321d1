/**
 * Words as tokens of a vocabulary. The search is `@huggingface/tokenizers`' own; here its pieces get their ids and places, and
 * what the vocabulary lacks becomes bytes or the unknown token, as in tokenizers' `models`.
 */
import { Tokenizer as Package } from "@huggingface/tokenizers";
import { type Json, part } from "./json.ts";
import { memoize } from "./memoize.ts";

/** A token of a word, and the UTF-16 code units of it that it stands for. */
export interface WordToken {
  readonly id: number;
  readonly start: number;
  readonly end: number;
}

/** The vocabulary of a tokenizer. */
export interface Vocabulary {
  /** Ids by token. */
  readonly ids: ReadonlyMap<string, number>;
  /** The tokens of a word. */
  tokenize(word: string): readonly WordToken[];
}

/** A piece of a word as the search gives it: what stands in the vocabulary, and how many units of the word it is. */
type Piece = { readonly token: string; readonly length: number };

const encoder = new TextEncoder();

/** The vocabulary of a tokenizer.json: `model`. */
export function readVocabulary(value: unknown): Vocabulary {
  const model = part(value, "its model");
  if (model === null) throw new Error("it has no model");
  const kind = kindOf(model);
  const ids = readIds(model.vocab);
  const search = searches[kind](model, ids);
  const unknown = kind === "Unigram" ? numberOrNull(model.unk_id) : idOrNull(ids, model.unk_token);
  const fuses = kind === "Unigram" || model.fuse_unk === true;
  const bytes = model.byte_fallback === true ? byteTokens(ids) : null;
  const tokenize = (word: string): readonly WordToken[] => {
    const tokens: WordToken[] = [];
    let at = 0, unknownBefore = false;
    for (const { token, length } of search(word)) {
      const [start, end] = [at, at += length];
      const id = ids.get(token);
      const spelled = id === undefined ? bytes?.(word.slice(start, end)) : undefined;
      if (id !== undefined && id !== unknown) tokens.push({ id, start, end });
      else if (spelled) tokens.push(...spelled.map((id) => ({ id, start, end })));
      else if (unknown !== null && fuses && unknownBefore) tokens.push({ ...tokens.pop()!, end });
      else if (unknown !== null) tokens.push({ id: unknown, start, end });
      unknownBefore = !spelled && (id === undefined || id === unknown);
    }
    return tokens;
  };
  return { ids, tokenize: memoize(tokenize) };
}

type Kind = "BPE" | "Unigram" | "WordPiece" | "WordLevel";

/** Old files don't say what their model is. */
function kindOf(model: Json): Kind {
  const { type = "merges" in model ? "BPE" : Array.isArray(model.vocab) ? "Unigram" : "WordPiece" } = model;
  if (typeof type === "string" && Object.hasOwn(searches, type)) return type as Kind;
  throw new Error(
    `its model is of the kind ${JSON.stringify(type)}; supported: ${Object.keys(searches).join(", ")}`,
  );
}

/** The package's result for a model. */
function packaged(model: Json): any {
  const nothing = { added_tokens: [], normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null };
  return new Package({ ...nothing, model }, {}).model;
}

const searches: Readonly<Record<Kind, (model: Json, ids: ReadonlyMap<string, number>) => (word: string) => Piece[]>> = {
  BPE: (model, ids) => {
    if (model.continuing_subword_prefix) {
      throw new Error(
        `its BPE model marks continuations by ${JSON.stringify(model.continuing_subword_prefix)}, which is not known`,
      );
    }
    const suffix = String(model.end_of_word_suffix ?? "");
    const bpe = packaged(model);
    return (word) => {
      if (model.ignore_merges === true && ids.has(word)) return [{ token: word, length: word.length }];
      const pieces: string[] = bpe.bpe(word);
      return pieces.map((token, i) => ({
        token,
        length: token.length - (i === pieces.length - 1 ? suffix.length : 0),
      }));
    };
  },
  Unigram: (model) => {
    const unigram = packaged(model);
    return (word) => (unigram.tokenize(word) as string[]).map((token) => ({ token, length: token.length }));
  },
  WordPiece: (model, ids) => {
    const prefix = String(model.continuing_subword_prefix ?? "##"), unknown = String(model.unk_token);
    const pieces = packaged({ ...model, continuing_subword_prefix: prefix, type: "WordPiece" });
    return (word) => {
      const found: string[] = pieces.encode([word]);
      // A word that is unknown is so as a whole.
      if (found.length === 1 && found[0] === unknown) {
        return [{ token: ids.has(word) ? word : unknown, length: word.length }];
      }
      return found.map((token, i) => ({ token, length: token.length - (i === 0 ? 0 : prefix.length) }));
    };
  },
  WordLevel: () => (word) => [{ token: word, length: word.length }],
};

/** Ids by token; a model's embedding has a row for each, so they are whole numbers and no two tokens share one. */
function readIds(vocab: unknown): Map<string, number> {
  const entries: [string, unknown][] = Array.isArray(vocab)
    ? vocab.map((entry, id) => [String(Array.isArray(entry) ? entry[0] : entry), id])
    : Object.entries(part(vocab, "its vocabulary") ?? {});
  const ids = new Map<string, number>();
  for (const [token, id] of entries) ids.set(token, checkId(token, id));
  if (!Array.isArray(vocab)) refuseShared([...ids]);
  return ids;
}

/** An id of a token. */
export function checkId(token: string, id: unknown): number {
  if (Number.isInteger(id) && (id as number) >= 0 && (id as number) < 2 ** 31) return id as number;
  throw new Error(
    `its token ${JSON.stringify(token)} has the id ${JSON.stringify(id)}, where a row's number is expected`,
  );
}

/** Refuses two tokens with one id. */
export function refuseShared(tokens: readonly (readonly [string, number])[]): void {
  const first = new Map<number, string>();
  for (const [token, id] of tokens) {
    const other = first.get(id);
    if (other !== undefined && other !== token) {
      throw new Error(`its tokens ${JSON.stringify(other)} and ${JSON.stringify(token)} have the same id, ${id}`);
    }
    first.set(id, token);
  }
}

/** The tokens of a text's bytes; undefined where one is missing. */
function byteTokens(ids: ReadonlyMap<string, number>): (text: string) => number[] | undefined {
  const table = Array.from({ length: 256 }, (_, b) => ids.get(`<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`));
  return (text) => {
    const found = Array.from(encoder.encode(text), (byte) => table[byte]);
    return found.every((id) => id !== undefined) ? found as number[] : undefined;
  };
}

function idOrNull(ids: ReadonlyMap<string, number>, token: unknown): number | null {
  return typeof token === "string" ? ids.get(token) ?? null : null;
}

function numberOrNull(value: unknown): number | null {
  return typeof value === "number" ? value : null;
}
