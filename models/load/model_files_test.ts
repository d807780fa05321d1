import { assertEquals, assertThrows } from "@std/assert";
import type { HostTensor } from "../../core/tensor.ts";
import { FileError } from "../../core/errors.ts";
import { f32Tensor, makeGguf } from "../../testing/make_gguf.ts";
import { byteTokenizerConfig, byteTokenizerFile } from "../../data/byte_tokenizer.ts";
import { openModelFiles } from "./model_files.ts";
import { writeSafetensors } from "./safetensors/safetensors.ts";
import { inFolder } from "../../tests/folder.ts";

const known = ["gpt2", "llama"];

function withFiles(use: (folder: string, write: (name: string, content: unknown) => void) => void): void {
  inFolder((folder) =>
    use(folder, (name, content) => {
      if (content instanceof Uint8Array) Deno.writeFileSync(`${folder}/${name}`, content);
      else Deno.writeTextFileSync(`${folder}/${name}`, typeof content === "string" ? content : JSON.stringify(content));
    })
  );
}

const tensor = (...values: number[]): HostTensor => ({
  shape: [values.length],
  dtype: "f32",
  data: Float32Array.from(values),
});

Deno.test("a folder is opened, its tokenizer on demand", () =>
  withFiles((folder, write) => {
    write("config.json", { model_type: "gpt2", n_embd: 3 });
    writeSafetensors(`${folder}/model.safetensors`, new Map([["wte", tensor(1, 2, 3)]]));
    using files = openModelFiles(`${folder}/`, known);
    assertEquals(files.config.integer("n_embd"), 3);
    assertEquals(files.source.read("wte").data, Float32Array.of(1, 2, 3));
    assertThrows(() => files.tokenizer(), FileError, "has no tokenizer.json");
    write("tokenizer.json", byteTokenizerFile());
    write("tokenizer_config.json", byteTokenizerConfig());
    assertEquals(files.tokenizer().encode("hi<|endoftext|>"), [104, 105, 256]);
  }));

Deno.test("shards are one source, and what they disagree on is listed", () =>
  withFiles((folder, write) => {
    write("config.json", { model_type: "llama" });
    writeSafetensors(`${folder}/model-1.safetensors`, new Map([["a", tensor(1)]]));
    writeSafetensors(`${folder}/model-2.safetensors`, new Map([["b", tensor(2)], ["c", tensor(3)]]));
    const index = (weight_map: unknown) => write("model.safetensors.index.json", { weight_map });
    const both = { a: "model-1.safetensors", b: "model-2.safetensors" };
    index({ ...both, c: "model-2.safetensors" });
    {
      using files = openModelFiles(folder, known);
      assertEquals(files.source.names, ["a", "b", "c"]);
      assertEquals(files.source.read("c").data, Float32Array.of(3));
    }
    const refused = (map: unknown, sentence: string) => {
      index(map);
      assertThrows(() => openModelFiles(folder, known), FileError, sentence);
    };
    refused({ ...both, d: "model-2.safetensors" }, "Missing (1): d in model-2.safetensors. Not in the index (1): c in");
    refused({ ...both, c: "model-3.safetensors" }, "names files that are not there. Missing (1): model-3.safetensors");
    refused({ ...both, c: "../model-2.safetensors" }, "which is not a safetensors file beside it");
    refused([], "has no weight_map");
  }));

Deno.test("a path that is no model is refused with the remedy", () =>
  withFiles((folder, write) => {
    const refused = (path: string, sentence: string) =>
      assertThrows(() => openModelFiles(path, known), FileError, sentence);
    refused(`${folder}/none`, "There is no model at");
    refused(folder, "has no config.json");
    write("adapter_config.json", {});
    refused(folder, "it is an adapter; give the folder of its base model");
    write("config.json", "{");
    refused(folder, "config.json is not JSON");
    write("config.json", "[]");
    refused(folder, "holds a list where a JSON object was expected");
    write("config.json", { model_type: "gpt2" });
    refused(folder, "has neither model.safetensors nor");
    write("pytorch_model.bin", "");
    refused(folder, "is a pickle");
    write("notes.txt", "");
    refused(`${folder}/notes.txt`, "is a file but no .gguf");
    write("model.safetensors", "");
    refused(folder, "it has 0 bytes");
    write("config.json", { model_type: "gpt3" });
    writeSafetensors(`${folder}/model.safetensors`, new Map());
    refused(folder, "is of the architecture gpt3; supported: gpt2, llama (did you mean gpt2?)");
  }));

/** A GGUF with bytes for tokens, two merges, and the given rule of splitting texts. */
function ggufWithTokenizer(pre: string): Uint8Array<ArrayBuffer> {
  const { vocab } = byteTokenizerFile().model as { vocab: Record<string, number> };
  const letters = Object.keys(vocab).sort((a, b) => vocab[a] - vocab[b]).slice(0, 256);
  return makeGguf({
    "general.architecture": { text: "gpt2" },
    "gpt2.embedding_length": { u32: 2 },
    "gpt2.block_count": { u32: 1 },
    "gpt2.attention.head_count": { u32: 1 },
    "gpt2.context_length": { u32: 8 },
    "gpt2.attention.layer_norm_epsilon": { f32: 0.5 },
    "tokenizer.ggml.model": { text: "gpt2" },
    "tokenizer.ggml.pre": { text: pre },
    "tokenizer.ggml.tokens": { texts: [...letters, "12", "he", "<|end|>"] },
    "tokenizer.ggml.token_type": { i32s: [...letters.map(() => 1), 1, 1, 3] },
    "tokenizer.ggml.merges": { texts: ["1 2", "h e"] },
    "tokenizer.ggml.eos_token_id": { u32: 258 },
    "tokenizer.ggml.bos_token_id": { u32: 258 },
    "tokenizer.ggml.add_bos_token": { bool: true },
  }, { "token_embd.weight": f32Tensor([259, 2], new Float32Array(518)) });
}

Deno.test("a GGUF file brings its own tokenizer, unless one lies beside it", () =>
  withFiles((folder, write) => {
    write("m.gguf", ggufWithTokenizer("smollm"));
    using files = openModelFiles(`${folder}/m.gguf`, known);
    assertEquals(files.config.integer("vocab_size"), 259);
    const tokenizer = files.tokenizer();
    assertEquals(tokenizer.eosId, 258);
    // Digits are split off first, so that their merge never applies.
    assertEquals(tokenizer.encode("12he<|end|>"), [258, 49, 50, 257, 258]);
    assertEquals(tokenizer.encode("he", { addSpecialTokens: false }), [257]);
    write("tokenizer.json", byteTokenizerFile());
    assertEquals(files.tokenizer().encode("12he"), [49, 50, 104, 101]);
  }));

Deno.test("a GGUF's rule of splitting decides what merges, and which characters are composed first", () =>
  withFiles((folder, write) => {
    const encode = (pre: string, text: string) => {
      write(`${pre}.gguf`, ggufWithTokenizer(pre));
      using files = openModelFiles(`${folder}/${pre}.gguf`, known);
      return files.tokenizer().encode(text).slice(1);
    };
    const [composed, apart] = ["\u00e9", "e\u0301"].map((text) => [...new TextEncoder().encode(text)]);
    assertEquals(encode("llama-bpe", "he12"), [257, 256]);
    assertEquals(encode("qwen2", "he12"), [257, 49, 50]);
    assertEquals(encode("llama-bpe", "e\u0301"), apart);
    assertEquals(encode("qwen2", "e\u0301"), composed);
    assertThrows(
      () => encode("kimi-k2", "x"),
      FileError,
      "splits texts by the rule kimi-k2; supported: default, gpt-2",
    );
  }));
