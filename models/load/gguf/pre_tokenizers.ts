/** How byte-level BPE tokenizers split a text before they merge, by the name that a GGUF file gives it (`tokenizer.ggml.pre`). */

/** One way of splitting. */
export interface PreTokenizer {
  /** Patterns; what each matches becomes a piece of its own, and so does what is between. Later ones split the pieces of earlier ones. */
  readonly splits: readonly string[];
  /** Whether a text begins with the beginning-of-text token unless the file says otherwise. */
  readonly addBos?: boolean;
  /** Whether a piece that is a token as it stands is taken as that, without merging. */
  readonly ignoreMerges?: boolean;
  /** Whether composed characters are used, as by the tokenizer that the model was trained with. */
  readonly composed?: boolean;
  /** Whether there is no beginning-of-text token where the file names none. */
  readonly noBos?: boolean;
}

const gpt2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)";
const contractions = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";
const lines = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const symbols = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*";

/** Words, digits by the pattern given, punctuation, line ends, spaces. */
const words = (digits: string, letters = "\\p{L}", others = symbols) =>
  `(?:${contractions})|[^\\r\\n\\p{L}\\p{N}]?${letters}+|${digits}|${others}|${lines}`;

/** Words cut where a small letter is followed by a capital one. */
const casedWords = (end: string, digits: string) => {
  const upper = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]", lower = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
  const first = "[^\\r\\n\\p{L}\\p{N}]?";
  return `${first}${upper}*${lower}+${end}|${first}${upper}+${lower}*${end}|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${lines}`;
};

const sentences = " ?[^(\\s|.,!?…。，、।۔،)]+";
const llama3 = words("\\p{N}{1,3}");
const qwen2 = words("\\p{N}");

const families: readonly (PreTokenizer & { readonly names: readonly string[] })[] = [
  {
    names: ["default"],
    splits: ["[\\p{P}\\$\\+<=>\\^~\\|]+", gpt2, "\\p{N}+", "[0-9][0-9][0-9]"],
  },
  {
    names: [
      ...[
        "gpt-2",
        "phi-2",
        "gigachat",
        "a.x-4.0",
        "mellum",
        "modern-bert",
        "exaone4",
        "mpt",
        "olmo",
        "jais",
        "trillion",
      ],
      ...[
        "granite-docling",
        "jina-es",
        "jina-de",
        "jina-v2-es",
        "jina-v2-de",
        "jina-v1-en",
        "jina-v2-code",
        "roberta-bpe",
      ],
    ],
    splits: [gpt2],
  },
  {
    names: ["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
    splits: ["\\p{N}", gpt2],
  },
  {
    names: ["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"],
    splits: [llama3],
    addBos: true,
    ignoreMerges: true,
  },
  { names: ["dbrx", "smaug-bpe"], splits: [llama3] },
  { names: ["chatglm-bpe"], splits: [llama3], noBos: true },
  { names: ["glm4", "glm5"], splits: [llama3], noBos: true, ignoreMerges: true },
  { names: ["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"], splits: [qwen2], composed: true },
  { names: ["stablelm2", "hunyuan", "solar-open", "grok-2"], splits: [qwen2] },
  {
    names: ["qwen35"],
    splits: [words("\\p{N}", "[\\p{L}\\p{M}]", " ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*")],
    composed: true,
  },
  { names: ["laguna"], splits: ["[^\\n]+|[\\n]+", qwen2] },
  { names: ["minicpm5"], splits: ["\\p{N}{1,3}", words("\\p{N}+")], ignoreMerges: true },
  { names: ["seed-coder"], splits: [words("\\p{N}", "\\p{L}", " ?[^\\s\\p{L}\\p{N}\\r\\n]+")] },
  {
    names: ["ufakzeka"],
    splits: [`[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|${symbols}|${lines}`],
  },
  {
    names: ["bailingmoe", "bailingmoe2", "llada-moe"],
    splits: [
      `(?:${contractions})|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|${symbols}|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+`,
    ],
  },
  { names: ["tekken"], splits: [casedWords("", "\\p{N}")], addBos: true, ignoreMerges: true },
  {
    names: ["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
    splits: [casedWords(`(?:${contractions})?`, "\\p{N}{1,3}")],
  },
  { names: ["deepseek-coder"], splits: ["[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", "\\p{N}"] },
  {
    names: ["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
    splits: [
      "\\p{N}{1,3}",
      "[一-龥぀-ゟ゠-ヿ]+",
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|" +
      ` ?[\\p{P}\\p{S}]+[\\r\\n]*|${lines}`,
    ],
  },
  { names: ["falcon"], splits: ["[\\p{P}\\$\\+<=>\\^~\\|`]+", gpt2, "[0-9][0-9][0-9]"] },
  { names: ["bloom", "poro-chat", "gpt3-finnish"], splits: [sentences] },
  { names: ["viking"], splits: [sentences, "\\p{N}"] },
];

/**
 * The known ones by name; a file without a name means `default`. Sources: the patterns of these models' own tokenizer.json,
 * under llama.cpp's names for them (`llama_vocab_pre_type`).
 */
export const preTokenizers: ReadonlyMap<string, PreTokenizer> = new Map(
  families.flatMap((family) => family.names.map((name) => [name, family] as const)),
);
