/** Every row of the table of keys does what it says. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { FileError } from "../../../core/errors.ts";
import { f32Tensor, makeGguf, type Meta, wholeLlama, wholePieces } from "../../../testing/make_gguf.ts";
import { memoryBytes } from "../files/byte_source.ts";
import { configFromGguf } from "./config.ts";
import type { GgufValue } from "./gguf.ts";
import { ggufKey, ggufKeys } from "./keys.ts";
import { openGguf } from "./source.ts";
import { ggufTokenizerNotes, tokenizerFromGguf } from "./tokenizer.ts";

const texts = ["ab", "b a ab", "<x>ab", "A"];

const tensors = { "token_embd.weight": f32Tensor([12, 8], new Float32Array(96)) };

/** All that is made of a file: configuration, tokenizer, ids of texts, notes; a refusal's sentence in place of them. */
function made(metadata: Record<string, Meta>, alignment = 32): { said: string; notes: string[] } {
  try {
    using source = openGguf(memoryBytes("m.gguf", makeGguf(metadata, tensors, { alignment })));
    const { files, encode } = tokenizerFromGguf(source);
    const { raw } = configFromGguf(source);
    return {
      said: JSON.stringify([raw, files, texts.map((text) => encode(text))]),
      notes: [...source.notes, ...ggufTokenizerNotes(source)],
    };
  } catch (error) {
    if (!(error instanceof FileError)) throw error;
    return { said: error.message, notes: [] };
  }
}

const asMeta = (value: GgufValue): Meta =>
  typeof value === "boolean" ? { bool: value } : typeof value === "number" ? { f32: value } : { text: String(value) };

/** A value of each honoured key that says other than the whole file does, and the kind of tokenizer where it matters. */
const others: Readonly<Record<string, readonly ["gpt2" | "llama" | "both", Meta]>> = {
  "general.architecture": ["both", { text: "qwen2" }],
  "general.alignment": ["both", { u32: 12 }],
  "ARCH.block_count": ["both", { u32: 3 }],
  "ARCH.context_length": ["both", { u32: 32 }],
  "ARCH.embedding_length": ["both", { u32: 16 }],
  "ARCH.feed_forward_length": ["both", { u32: 16 }],
  "ARCH.attention.head_count": ["both", { u32: 4 }],
  "ARCH.attention.head_count_kv": ["both", { u32: 1 }],
  "ARCH.attention.key_length": ["both", { u32: 2 }],
  "ARCH.attention.value_length": ["both", { u32: 2 }],
  "ARCH.attention.layer_norm_rms_epsilon": ["both", { f32: 0.25 }],
  "ARCH.rope.dimension_count": ["both", { u32: 2 }],
  "ARCH.rope.freq_base": ["both", { f32: 500 }],
  "ARCH.rope.scale_linear": ["both", { f32: 4 }],
  "ARCH.rope.scaling.type": ["both", { text: "yarn" }],
  "ARCH.rope.scaling.factor": ["both", { f32: 4 }],
  "tokenizer.ggml.model": ["both", { text: "t5" }],
  "tokenizer.ggml.pre": ["gpt2", { text: "llama-bpe" }],
  "tokenizer.ggml.tokens": ["both", { texts: [...wholePieces.slice(0, 11), "<z>"] }],
  "tokenizer.ggml.token_type": ["both", { i32s: [2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 4, 4] }],
  "tokenizer.ggml.scores": ["llama", { i32s: wholePieces.map((_, i) => i) }],
  "tokenizer.ggml.merges": ["gpt2", { texts: ["b a", "a b"] }],
  "tokenizer.ggml.bos_token_id": ["both", { u32: 2 }],
  "tokenizer.ggml.eos_token_id": ["both", { u32: 10 }],
  "tokenizer.ggml.unknown_token_id": ["both", { u32: 10 }],
  "tokenizer.ggml.padding_token_id": ["both", { u32: 10 }],
  "tokenizer.ggml.eot_token_id": ["both", { u32: 10 }],
  "tokenizer.ggml.eom_token_id": ["both", { u32: 10 }],
  "tokenizer.ggml.add_bos_token": ["both", { bool: true }],
  "tokenizer.ggml.add_eos_token": ["both", { bool: true }],
  "tokenizer.ggml.add_space_prefix": ["llama", { bool: false }],
  "tokenizer.chat_template": ["both", { text: "{{ messages }}" }],
};

for (const row of ggufKeys) {
  const key = row.key.replace("ARCH", "llama").replaceAll("*", "anything");
  Deno.test(`${row.key}: ${row.here}`, () => {
    assert(ggufKey(key, "llama") === row, "an earlier row speaks of it");
    for (const kind of ["gpt2", "llama"] as const) {
      const plain = made(wholeLlama(kind));
      assert(plain.said.startsWith("["), plain.said);
      if (row.effect === "none") {
        for (const value of [{ u32: 7 }, { text: "x" }, { bool: false }, { i32s: [1, 2] }]) {
          assertEquals(made({ ...wholeLlama(kind), [key]: value }), plain);
        }
      } else if (row.effect === "refused") {
        for (const value of row.takes!) assertEquals(made({ ...wholeLlama(kind), [key]: asMeta(value) }), plain);
        for (const value of [{ f32: 0.5 }, { text: "x" }, { i32s: [1] }]) {
          const { said } = made({ ...wholeLlama(kind), [key]: value });
          assert(said.includes(`m.gguf says ${key} is `) && said.includes(row.here), said);
        }
      } else if (row.key === "ARCH.attention.layer_norm_epsilon") {
        continue; // of GPT-2 alone, see below
      } else {
        assert(Object.hasOwn(others, row.key), "no other value is tried");
        const [where, value] = others[row.key];
        if (where !== "both" && where !== kind) continue;
        // SentencePiece's begin with a token already.
        const turned = row.key === "tokenizer.ggml.add_bos_token" && kind === "llama" ? { bool: false } : value;
        assert(made({ ...wholeLlama(kind), [key]: turned }).said !== plain.said, "nothing depends on it");
      }
    }
  });
}

Deno.test("keys that are absent mean llama.cpp's defaults", () => {
  const without = (kind: "gpt2" | "llama", ...names: string[]) =>
    made(Object.fromEntries(Object.entries(wholeLlama(kind)).filter(([name]) => !names.includes(name))));
  const plain = made(wholeLlama("llama"));
  // The default said in so many words is the same as nothing.
  for (
    const [key, value] of Object.entries<Meta>({
      "llama.attention.head_count_kv": { u32: 2 },
      "llama.attention.key_length": { u32: 4 },
      "llama.attention.value_length": { u32: 4 },
      "llama.rope.dimension_count": { u32: 4 },
      "llama.rope.freq_base": { f32: 10000 },
      "llama.rope.scaling.type": { text: "linear" },
      "llama.rope.scaling.factor": { f32: 0 },
      "llama.rope.scale_linear": { f32: 1 },
      "tokenizer.ggml.add_bos_token": { bool: true },
      "tokenizer.ggml.add_eos_token": { bool: false },
      "tokenizer.ggml.add_space_prefix": { bool: true },
      "tokenizer.ggml.unknown_token_id": { u32: 0 },
      "tokenizer.ggml.padding_token_id": { u32: 4294967295 },
      "llama.attention.head_count": { i32s: [2] },
      "llama.feed_forward_length": { i32s: [8] },
    })
  ) assertEquals(made({ ...wholeLlama("llama"), [key]: value }), plain, key);
  // SentencePiece's ids are 1 and 2; byte-level BPE's 11, which is said.
  const spm = without("llama", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id");
  assertEquals(spm.said, plain.said);
  assertEquals(spm.notes.length, 2);
  const bpe = without("gpt2", "tokenizer.ggml.eos_token_id");
  assert(bpe.said.includes('"eos_token_id":[11,2]') && bpe.notes[0].includes('so it is 11, "<y>"'), bpe.notes.join());
  // No rule of splitting is llama.cpp's default, with a note.
  const noPre = without("gpt2", "tokenizer.ggml.pre");
  assertEquals(noPre.said, made({ ...wholeLlama("gpt2"), "tokenizer.ggml.pre": { text: "default" } }).said);
  assert(noPre.notes.join().includes("tokenizer.ggml.pre"));
  // The rest is needed.
  for (const name of ["block_count", "context_length", "embedding_length", "feed_forward_length"]) {
    assert(without("gpt2", `llama.${name}`).said.includes(`does not say llama.${name}`), name);
  }
  for (const name of ["head_count", "layer_norm_rms_epsilon"]) {
    assert(without("gpt2", `llama.attention.${name}`).said.includes(`does not say llama.attention.${name}`), name);
  }
});

Deno.test("layers that differ, keys that are not known, tokens without rows", () => {
  const say = (more: Record<string, Meta>) => made({ ...wholeLlama("gpt2"), ...more });
  const two = { "llama.block_count": { u32: 2 } };
  assert(
    say({ ...two, "llama.attention.head_count": { i32s: [2, 1] } }).said.includes("2 in one layer and 1 in another"),
  );
  assert(say({ ...two, "llama.feed_forward_length": { i32s: [8] } }).said.includes("1 values of"));
  const { notes, said } = say({ "llama.warp": { u32: 1 }, "tokenizer.ggml.odd": { u32: 1 }, "other.key": { u32: 1 } });
  assertEquals([notes.length, said], [1, made(wholeLlama("gpt2")).said]);
  assert(notes[0].includes("llama.warp, tokenizer.ggml.odd") && !notes[0].includes("other.key"), notes[0]);
  const many = say({ "tokenizer.ggml.tokens": { texts: [...wholePieces, "more"] } }).said;
  assert(many.includes("has 13 tokens, and token_embd.weight has 12 rows"), many);
});

Deno.test("GPT-2's keys", () => {
  const gpt2: Record<string, Meta> = {
    "general.architecture": { text: "gpt2" },
    "gpt2.block_count": { u32: 1 },
    "gpt2.context_length": { u32: 8 },
    "gpt2.embedding_length": { u32: 8 },
    "gpt2.attention.head_count": { u32: 2 },
    "gpt2.attention.layer_norm_epsilon": { f32: 0.5 },
  };
  const config = (more: Record<string, Meta>) =>
    configFromGguf(openGguf(memoryBytes("m.gguf", makeGguf({ ...gpt2, ...more }, tensors)))).raw;
  assertEquals(config({ "gpt2.attention.layer_norm_epsilon": { f32: 0.25 } }).layer_norm_epsilon, 0.25);
  assertThrows(() => config({ "gpt2.attention.head_count_kv": { u32: 1 } }), FileError, "where only 2 can be built");
  assertThrows(() => config({ "gpt2.attention.key_length": { u32: 2 } }), FileError, "where only 2 can be built");
});
