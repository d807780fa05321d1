/** Real llama.cpp reads the same GGUF files: the same ids and the same logits, whatever keys are there. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { type HostTensor, tensor } from "../../core/tensor.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import { evaluate } from "../../kernels/runtime/read.ts";
import { ggufKeys } from "../../models/load/gguf/keys.ts";
import { preTokenizers } from "../../models/load/gguf/pre_tokenizers.ts";
import { openGguf } from "../../models/load/gguf/source.ts";
import { tokenizerFromGguf } from "../../models/load/gguf/tokenizer.ts";
import { loadModel } from "../../models/load/load_model.ts";
import { f32Tensor, makeGguf, type Meta } from "../../testing/make_gguf.ts";
import { apart, peer, readFloats, runScript } from "./peer.ts";
import { asF32 } from "./tiny_gguf.ts";

/** What texts are made of: words, digits, marks and spaces of many scripts. */
const bits = [
  ...["the", "The", "THE", "camelCase", "it's", "IT'S", "we'll", "don’t", "é", "ñandú", "Straße", "и", "слово", "漢字"],
  ...["かな", "한글", "שלום", "नमस्ते", "ไทย", "🙂", "👩‍👩‍👧", "1", "12", "1234567", "3.14", "٣٤", "½", "²"],
  ...[" ", "  ", "     ", "\n", "\n\n", " \n ", "\r\n", "\t", "\u00a0", ".", ",", "...", "!?", "(x)", "[", "]", "{}"],
  ...["$5", "a+b", "<=", "~|`^", "#", "/path/to", "x=1;", "--", "_", '"', "'", "s", "ª", "ﬁ"],
];

/** Texts that are the same in every run. */
const texts: string[] = fc.sample(
  fc.array(fc.constantFrom(...bits), { minLength: 1, maxLength: 14 }).map((parts) => parts.join("")),
  { numRuns: 150, seed: 7 },
);

/** The pairs that are most frequent in `words`, one after another: byte-pair merging that knows no borders. */
function learnMerges(words: string[][], count: number): [string, string][] {
  const merges: [string, string][] = [];
  while (merges.length < count) {
    const pairs = new Map<string, number>();
    for (const word of words) {
      for (let i = 0; i + 1 < word.length; i++) {
        const pair = `${word[i]}\0${word[i + 1]}`;
        pairs.set(pair, (pairs.get(pair) ?? 0) + 1);
      }
    }
    const [best] = [...pairs].sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1))[0];
    const [left, right] = best.split("\0");
    merges.push([left, right]);
    for (const word of words) {
      for (let i = 0; i + 1 < word.length; i++) {
        if (word[i] === left && word[i + 1] === right) word.splice(i, 2, left + right);
      }
    }
  }
  return merges;
}

/** The letters that stand for bytes in byte-level vocabularies. */
const byteLetters: string[] = (() => {
  const printable = (b: number) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(printable(b) ? b : next++));
})();

const base: Record<string, Meta> = {
  "general.architecture": { text: "llama" },
  "llama.block_count": { u32: 1 },
  "llama.context_length": { u32: 64 },
  "llama.embedding_length": { u32: 2 },
  "llama.feed_forward_length": { u32: 2 },
  "llama.attention.head_count": { u32: 1 },
  "llama.attention.layer_norm_rms_epsilon": { f32: 0.5 },
};

const special = ["<s>", "</s>", "<|turn|>", "[user]"];
const types = { normal: 1, unknown: 2, control: 3, userDefined: 4, byte: 6 };

/** A byte-level vocabulary whose merges cross every border that a pre-tokenizer may draw. */
const byteLevel: Record<string, Meta> = (() => {
  const encode = (text: string) => [...new TextEncoder().encode(text)].map((b) => byteLetters[b]);
  const merges = learnMerges([...texts, ...bits.flatMap((a) => bits.map((b) => a + b))].map(encode), 600);
  const tokens = [...byteLetters, ...new Set(merges.map(([a, b]) => a + b))];
  const typeOf = [...tokens.map(() => types.normal), types.control, types.control, types.control, types.userDefined];
  return {
    ...base,
    "tokenizer.ggml.model": { text: "gpt2" },
    "tokenizer.ggml.tokens": { texts: [...tokens, ...special] },
    "tokenizer.ggml.token_type": { i32s: typeOf },
    "tokenizer.ggml.merges": { texts: merges.map(([a, b]) => `${a} ${b}`) },
    "tokenizer.ggml.bos_token_id": { u32: tokens.length },
    "tokenizer.ggml.eos_token_id": { u32: tokens.length + 1 },
  };
})();

/** A SentencePiece vocabulary with bytes for what it has no letter for. */
const sentencePiece: Record<string, Meta> = (() => {
  const words = [...texts, ...bits].map((text) => [...`▁${text.replaceAll(" ", "▁")}`].filter((c) => c < "☀"));
  const letters = [...new Set(words.flat())].sort().filter((_, i) => i % 5 !== 4); // the others are written in bytes
  const merges = learnMerges(words.map((word) => word.filter((c) => letters.includes(c))), 500);
  const bytes = Array.from({ length: 256 }, (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`);
  const joined = [...new Set(merges.map(([a, b]) => a + b))];
  const tokens = ["<unk>", "<s>", "</s>", ...bytes, ...joined, ...letters, "<|turn|>", "[user]"];
  const typeOf = (token: string, i: number) =>
    i === 0
      ? types.unknown
      : i < 3 || token === "<|turn|>"
      ? types.control
      : token === "[user]"
      ? types.userDefined
      : i < 259
      ? types.byte
      : types.normal;
  return {
    ...base,
    "tokenizer.ggml.model": { text: "llama" },
    "tokenizer.ggml.tokens": { texts: tokens },
    "tokenizer.ggml.token_type": { i32s: tokens.map(typeOf) },
    "tokenizer.ggml.scores": { i32s: tokens.map((_, i) => i < 259 ? 0 : -(i - 259)) },
  };
})();

const asked = [...texts, "", "<s>the cat</s>", "a <|turn|> b", " [user]x", "  two", "<|turn|><|turn|> "];

/** llama.cpp's patterns of these leave out the combining marks that the models' own count as letters. */
const withoutMarks = ["tekken", "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"];

async function compareIds(folder: string, files: ReadonlyMap<string, Record<string, Meta>>): Promise<void> {
  const tensors = { "token_embd.weight": f32Tensor([1100, 2], new Float32Array(2200)) };
  for (const [name, metadata] of files) Deno.writeFileSync(`${folder}/${name}.gguf`, makeGguf(metadata, tensors));
  const models = [...files.keys()].map((name) => `${folder}/${name}.gguf`);
  const right = await runScript<(number[][] | null)[]>("llama_cpp_tokens.py", { models, texts: asked });
  const wrong: string[] = [];
  for (const [i, path] of models.entries()) {
    using source = openGguf(path);
    const tokenizer = tokenizerFromGguf(source);
    assert(right[i] !== null, `llama.cpp refuses ${path}`);
    for (const [j, text] of asked.entries()) {
      if (withoutMarks.includes([...files.keys()][i]) && /\p{M}/u.test(text)) continue;
      const [ours, theirs] = [tokenizer.encode(text), right[i]![j]].map(String);
      if (ours !== theirs) wrong.push(`${[...files.keys()][i]} ${JSON.stringify(text)}: ${ours}, llama.cpp ${theirs}`);
    }
  }
  assertEquals(
    wrong.length,
    0,
    `${wrong.length} of ${models.length * asked.length} differ:\n${wrong.slice(0, 40).join("\n")}`,
  );
}

peer("llama.cpp's ids, with every rule of splitting and with none", (folder) =>
  compareIds(
    folder,
    new Map([
      ["absent", byteLevel],
      ...[...preTokenizers.keys()].map((pre) =>
        [pre, { ...byteLevel, "tokenizer.ggml.pre": { text: pre } as Meta }] as const
      ),
    ]),
  ));

const flags: readonly [string, Record<string, Meta>][] = [
  ["nothing", {}],
  ["bos", { "tokenizer.ggml.add_bos_token": { bool: true } }],
  ["no bos", { "tokenizer.ggml.add_bos_token": { bool: false } }],
  ["eos", { "tokenizer.ggml.add_eos_token": { bool: true } }],
  ["no space", { "tokenizer.ggml.add_space_prefix": { bool: false } }],
  ["sep", { "tokenizer.ggml.add_sep_token": { bool: true } }],
  ["spaces", { "tokenizer.ggml.remove_extra_whitespaces": { bool: true } }],
  ["far ids", { "tokenizer.ggml.bos_token_id": { u32: 5000 }, "tokenizer.ggml.add_bos_token": { bool: true } }],
];

peer("llama.cpp's ids of SentencePiece vocabularies, and with every flag", (folder) =>
  compareIds(
    folder,
    new Map(flags.flatMap(([name, more]) => [
      [`spm ${name}`, { ...sentencePiece, ...more }] as const,
      [`bpe ${name}`, { ...byteLevel, "tokenizer.ggml.pre": { text: "gpt-2" }, ...more }] as const,
      [`llama3 ${name}`, { ...byteLevel, "tokenizer.ggml.pre": { text: "llama-bpe" }, ...more }] as const,
    ])),
  ));

/** Keys of a model without a tokenizer that decide its numbers, and some that do not. */
const computed: readonly [string, Record<string, Meta | null>][] = [
  ["as it is", {}],
  ["no base", { "llama.rope.freq_base": null }],
  ["an old factor", { "llama.rope.scale_linear": { f32: 4 } }],
  ["a factor without a type", { "llama.rope.scaling.factor": { f32: 2 } }],
  ["a linear factor", { "llama.rope.scaling.factor": { f32: 2 }, "llama.rope.scaling.type": { text: "linear" } }],
  ["two factors", { "llama.rope.scaling.factor": { f32: 2 }, "llama.rope.scale_linear": { f32: 8 } }],
  ["a factor of none", { "llama.rope.scaling.factor": { f32: 2 }, "llama.rope.scaling.type": { text: "none" } }],
  ["a factor of 0", { "llama.rope.scaling.factor": { f32: 0 } }],
  ["no widths", { "llama.rope.dimension_count": null, "llama.attention.key_length": null }],
  ["widths", { "llama.attention.key_length": { u32: 16 }, "llama.attention.value_length": { u32: 16 } }],
  ["lists", { "llama.attention.head_count": { i32s: [4, 4] }, "llama.feed_forward_length": { i32s: [160, 160] } }],
  ["an ε", { "llama.attention.layer_norm_rms_epsilon": { f32: 0.125 } }],
  ["a window", { "llama.attention.sliding_window": { u32: 2 } }],
  ["trained so", { "llama.rope.scaling.finetuned": { bool: true } }],
];

peer("llama.cpp's logits, with keys of sizes and positions there and absent", async (folder) => {
  const prompt = [5, 17, 200, 3, 99, 42, 7, 250];
  using device = await openCpu();
  let plain: Float32Array | null = null;
  const changes: string[] = [];
  for (const [name, more] of computed) {
    for (const factors of [false, true]) {
      const path = `${folder}/m.gguf`;
      Deno.writeFileSync(
        path,
        asF32(`${import.meta.dirname}/../goldens/cases/llama-gguf/llama-F32.gguf`, more, factors),
      );
      await runScript("llama_cpp_logits.py", { model: path, prompts: [prompt], out: `${folder}/logits` });
      const theirs = readFloats(`${folder}/logits`);
      using model = await loadModel(path, { device });
      const logits = model.apply(model.params, { inputIds: tensor(device, [prompt], "i32") });
      const { data } = await evaluate(logits) as HostTensor;
      const found = apart(theirs, data);
      assert(found <= 1e-4, `${name}${factors ? " with a factor for each frequency" : ""}: ${found} apart`);
      plain ??= theirs;
      if (apart(theirs, plain) > 1e-3) changes.push(name);
    }
  }
  assert(changes.length >= 12, `only these change anything: ${changes.join(", ")}`);
});

Deno.test("the keys of numbers that are honoured are among those compared with llama.cpp", () => {
  const compared = new Set(
    computed.flatMap(([, more]) => Object.keys(more).map((key) => key.replace("llama.", "ARCH."))),
  );
  const given = ["ARCH.block_count", "ARCH.context_length", "ARCH.embedding_length"]; // in every file
  const others = ["ARCH.attention.layer_norm_epsilon", "ARCH.attention.head_count_kv"]; // of GPT-2; of the file itself
  const missing = ggufKeys.filter(({ key, effect }) => effect === "honoured" && key.startsWith("ARCH.")).map((
    { key },
  ) => key)
    .filter((key) => !compared.has(key) && ![...given, ...others].includes(key));
  assertEquals(missing, []);
});
