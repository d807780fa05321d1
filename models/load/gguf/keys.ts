/** The keys of a GGUF file's metadata: what each means, what its absence means, and how it is handled here. */
import { FileError } from "../../../core/errors.ts";
import type { GgufValue } from "./gguf.ts";
import { ggufFamily } from "./names.ts";

/** How a key is handled: it decides something, some of its values are refused, or nothing depends on it. */
export type GgufEffect = "honoured" | "refused" | "none";

/** One key, or several with a common prefix (`general.*`). `ARCH` stands for the name of the architecture. */
export interface GgufKey {
  readonly key: string;
  readonly meaning: string;
  /** What its absence means. */
  readonly absent: string;
  readonly effect: GgufEffect;
  /** What is done here, in words. */
  readonly here: string;
  /** The values that are not refused. */
  readonly takes?: readonly GgufValue[];
}

const honoured = (key: string, meaning: string, absent: string, here = "honoured"): GgufKey => ({
  ...{ key, meaning, absent, here },
  effect: "honoured",
});

/** A key whose other values would mean a different computation. */
const only = (key: string, meaning: string, absent: string, takes: readonly GgufValue[], why: string): GgufKey => ({
  ...{ key, meaning, absent, takes },
  effect: "refused",
  here: `refused unless ${takes.join(" or ")} (${why})`,
});

const none = (key: string, meaning: string, here: string): GgufKey => ({
  ...{ key, meaning, here },
  absent: "—",
  effect: "none",
});

/** Every key of all architectures that is known, as llama.cpp's `llama-arch.cpp` lists them for the architectures that are read. */
export const ggufKeys: readonly GgufKey[] = [
  honoured("general.architecture", "which architecture", "refused", "others than those above are refused by name"),
  only(
    "general.type",
    "what the file is",
    "`model`",
    ["model"],
    "adapters, vocabularies and projectors are not models",
  ),
  honoured("general.alignment", "where tensors may begin", "32", "honoured, a multiple of 8"),
  only("general.quantization_version", "layout of quantised blocks", "2", [2], "older blocks have a different layout"),
  none("general.file_type", "the most frequent tensor type", "each tensor's own type decides"),
  none("general.sampling.*", "advice for sampling", "the options of `generate` decide"),
  none("general.*", "name, author, licence, sources", "not read"),
  only("split.count", "how many files the model is in", "1", [0, 1], "`llama-gguf-split --merge` joins them"),
  none("split.*", "which of them this is, total number of tensors", "there is only one"),

  honoured("ARCH.block_count", "layers", "refused"),
  honoured("ARCH.context_length", "context length in tokens", "refused"),
  honoured("ARCH.embedding_length", "width", "refused"),
  honoured("ARCH.feed_forward_length", "inner width", "refused", "honoured; a list must have equal values"),
  none("ARCH.vocab_size", "tokens", "the rows of `token_embd.weight` decide; fewer rows than tokens are refused"),
  honoured("ARCH.attention.head_count", "query heads", "refused", "honoured; a list must have equal values"),
  honoured("ARCH.attention.head_count_kv", "key heads", "as `head_count`", "honoured; a list must have equal values"),
  honoured("ARCH.attention.key_length", "width of a head", "`embedding_length` over `head_count`"),
  honoured("ARCH.attention.value_length", "the same for values", "the default of `key_length`", "must equal it"),
  honoured("ARCH.attention.layer_norm_rms_epsilon", "ε of RMS norms", "refused (`gpt2` has none)"),
  honoured("ARCH.attention.layer_norm_epsilon", "ε of layer norms", "refused (only `gpt2` has them)"),
  only(
    "ARCH.attention.causal",
    "whether a token sees only earlier ones",
    "true",
    [true],
    "only such models are supported",
  ),
  only("ARCH.attention.scale", "scale of query-key products", "1/√width", [0], "it is 1/√width"),
  only("ARCH.attention.clamp_kqv", "a bound on q, k and v", "none", [0], "there is none"),
  only(
    "ARCH.attention.max_alibi_bias",
    "a bias that depends on distance",
    "none",
    [0],
    "positions are rotated or learned",
  ),
  none(
    "ARCH.attention.sliding_window",
    "how far back a token attends",
    "as in llama.cpp, which lets these architectures attend to everything",
  ),
  none("ARCH.attention.sliding_window_pattern", "which layers have a window", "as above"),
  only("ARCH.attn_logit_softcapping", "a bound on attention logits", "none", [0], "there is none"),
  only("ARCH.final_logit_softcapping", "a bound on the logits", "none", [0], "there is none"),
  only("ARCH.logit_scale", "a factor on the logits", "1", [0, 1], "there is none"),
  only("ARCH.embedding_scale", "a factor on the embedding", "1", [0, 1], "there is none"),
  only("ARCH.residual_scale", "a factor on what layers add", "1", [0, 1], "there is none"),
  only(
    "ARCH.use_parallel_residual",
    "attention parallel to the feed-forward part",
    "false",
    [false],
    "one follows the other",
  ),
  only("ARCH.expert_count", "experts", "0", [0], "mixtures of experts are not supported"),
  none("ARCH.expert_*", "how experts are chosen", "there are none"),
  only("ARCH.nextn_predict_layers", "layers that predict further tokens", "0", [0], "there are none"),
  none("ARCH.pooling_type", "how token vectors become a text's vector", "these models generate text"),
  none("ARCH.tensor_data_layout", "a note of old converters on the order of rows", "the order is the architecture's"),
  honoured("ARCH.rope.dimension_count", "values of a head that are rotated", "all", "fewer than all are refused"),
  honoured("ARCH.rope.freq_base", "θ of rotary positions", "10000"),
  honoured("ARCH.rope.scale_linear", "older name of `rope.scaling.factor`", "1", "honoured if that is absent"),
  honoured("ARCH.rope.scaling.type", "how positions are scaled", "`linear`", "`linear` and `none`; others are refused"),
  honoured("ARCH.rope.scaling.factor", "positions are divided by it", "1 (so is 0)"),
  only("ARCH.rope.scaling.attn_factor", "a factor on what is rotated", "1", [1], "there is none"),
  none("ARCH.rope.scaling.original_context_length", "the context before `yarn`", "`yarn` is refused"),
  none("ARCH.rope.scaling.finetuned", "whether it was trained that way", "it changes no number"),
  none("ARCH.rope.scaling.alpha", "belongs to another architecture", "as in llama.cpp"),
  none("ARCH.rope.scaling.yarn_*", "how `yarn` scales", "`yarn` is refused"),

  honoured("tokenizer.ggml.model", "kind of tokenizer", "refused", "`gpt2` and `llama`; others need a tokenizer.json"),
  honoured("tokenizer.ggml.pre", "how `gpt2` splits texts", "`default`, with a note", "the names below"),
  honoured("tokenizer.ggml.tokens", "the tokens", "refused"),
  honoured(
    "tokenizer.ggml.token_type",
    "the type of each",
    "all normal",
    "control, user-defined and unknown ones are special",
  ),
  honoured("tokenizer.ggml.scores", "order of merges, for `llama`", "refused (`gpt2` needs none)"),
  honoured("tokenizer.ggml.merges", "order of merges, for `gpt2`", "refused (`llama` needs none)"),
  honoured("tokenizer.ggml.bos_token_id", "begins a text", "`gpt2` 11, `llama` 1; a note says so"),
  honoured("tokenizer.ggml.eos_token_id", "ends a text", "`gpt2` 11, `llama` 2; a note says so"),
  honoured("tokenizer.ggml.unknown_token_id", "stands for unknown text", "`gpt2` none, `llama` 0"),
  honoured("tokenizer.ggml.padding_token_id", "fills a batch", "none"),
  honoured("tokenizer.ggml.eot_token_id", "ends a turn", "none", "one of the end tokens of generation"),
  honoured("tokenizer.ggml.eom_token_id", "ends a message", "none", "one of the end tokens of generation"),
  honoured("tokenizer.ggml.add_bos_token", "whether a text begins with BOS", "by `pre`; `llama` true"),
  honoured("tokenizer.ggml.add_eos_token", "whether a text ends with EOS", "false"),
  honoured("tokenizer.ggml.add_space_prefix", "whether `llama` prepends a space to a text", "true"),
  none("tokenizer.ggml.add_sep_token", "a separator between two texts", "these models read a single text"),
  none("tokenizer.ggml.*_token_id", "mask, separator, class and fill-in-the-middle tokens", "no command needs one"),
  none("tokenizer.ggml.remove_extra_whitespaces", "for kind `t5`", "as in llama.cpp"),
  none("tokenizer.ggml.precompiled_charsmap", "for kind `t5`", "as in llama.cpp"),
  none("tokenizer.ggml.normalizer.*", "for kind `bert`", "as in llama.cpp"),
  none("tokenizer.ggml.token_type_count", "for kind `bert`", "as in llama.cpp"),
  none("tokenizer.ggml.suppress_tokens", "never sampled by llama.cpp", "all tokens are sampled"),
  honoured("tokenizer.chat_template", "how conversations are written", "none"),
  none("tokenizer.chat_templates", "names of further templates", "the first one is used"),
  none("tokenizer.chat_template.*", "further templates", "the first one is used"),
  none("tokenizer.huggingface.json", "the tokenizer as a tokenizer.json", "as in llama.cpp; the keys above decide"),
];

/** The keys that an architecture has alone, from its literal. */
export function ownGgufKeys(architecture: string): GgufKey[] {
  return Object.entries(ggufFamily(architecture)?.gguf.keys ?? {}).map(([name, { meaning, absent, config }]) => {
    const without = absent === undefined ? "refused" : JSON.stringify(absent);
    return honoured(`${architecture}.${name}`, meaning, without, `honoured: config.json's \`${config}\``);
  });
}

/** The row for a key, or null: the architecture's own, or the table's. */
export function ggufKey(key: string, architecture: string): GgufKey | null {
  const own = ownGgufKeys(architecture).find((row) => row.key === key);
  if (own !== undefined) return own;
  return ggufKeys.find((row) => {
    const [before, after] = row.key.replace(/^ARCH\./, `${architecture}.`).split("*");
    if (after === undefined) return key === before;
    return key.length >= before.length + after.length && key.startsWith(before) && key.endsWith(after);
  }) ?? null;
}

/**
 * Checks a file's keys against the table. Returns notes for a person: keys of the architecture or the tokenizer that are not
 * in the table.
 *
 * @throws {FileError} for a value that asks for what is not computed here
 */
export function checkGgufKeys(
  { path, metadata }: { readonly path: string; readonly metadata: ReadonlyMap<string, GgufValue> },
  architecture: string,
): string[] {
  const unknown: string[] = [];
  for (const [key, value] of metadata) {
    const row = ggufKey(key, architecture);
    if (row === null && (key.startsWith(`${architecture}.`) || key.startsWith("tokenizer."))) unknown.push(key);
    if (row?.takes === undefined || row.takes.includes(value)) continue;
    throw new FileError(
      `${path} says ${key} is ${
        describe(value)
      }, which is ${row.here}. Choose another file of the model, or another model.`,
    );
  }
  if (unknown.length === 0) return [];
  const [named, more] = [unknown.slice(0, 8), unknown.length - 8];
  return [
    `the file says ${named.join(", ")}${more > 0 ? ` and ${more} keys more` : ""}, which ${
      unknown.length === 1 ? "is" : "are"
    } not known here and without effect`,
  ];
}

function describe(value: GgufValue): string {
  const text = typeof value === "object" ? `a list of ${value.length}` : String(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
