import { assertEquals, assertThrows } from "@std/assert";
import { FileError } from "../../core/errors.ts";
import type { BlockSizes } from "./block.ts";
import type { DecoderFamily } from "./language_model.ts";
import { familyOf } from "./mod.ts";
import { parseConfig } from "../load/config.ts";

const sizes = {
  vocab_size: 90,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 3,
  num_attention_heads: 4,
};
const read = (model_type: string, keys: Record<string, unknown> = {}) =>
  (familyOf(model_type) as DecoderFamily<unknown, BlockSizes>).sizes(
    parseConfig({ model_type, ...sizes, ...keys }, "config.json"),
  );

Deno.test("windows: a mistral's in every layer, a qwen's where it is switched on, from a layer on or as listed", () => {
  assertEquals(read("llama", { sliding_window: 8 }).windows, undefined);
  assertEquals(read("mistral", { sliding_window: 8 }).windows, [8, 8, 8]);
  assertEquals(read("mistral").windows, [4096, 4096, 4096]);
  assertEquals(read("mistral", { sliding_window: null }).windows, [null, null, null]);
  for (const type of ["qwen2", "qwen3"]) {
    const on = { use_sliding_window: true, sliding_window: 8 };
    assertEquals(read(type, { ...on, use_sliding_window: false }).windows, [null, null, null]);
    assertEquals(read(type, { ...on, max_window_layers: 1 }).windows, [null, 8, 8]);
    assertEquals(read(type, { ...on, max_window_layers: 0 }).windows, [8, 8, 8]);
    const layer_types = ["sliding_attention", "full_attention", "sliding_attention"];
    assertEquals(read(type, { ...on, layer_types }).windows, [8, null, 8]);
  }
});

Deno.test("what the architectures have by themselves: biases, the width of heads, the context", () => {
  const of = (type: string, keys = {}) => {
    const { biases, headDim, contextLength } = read(type, keys);
    return { biases, headDim, contextLength };
  };
  const none = { qkv: false, out: false, mlp: false };
  assertEquals(of("llama"), { biases: none, headDim: 8, contextLength: 2048 });
  assertEquals(of("llama", { attention_bias: true, mlp_bias: true }).biases, { qkv: true, out: true, mlp: true });
  assertEquals(of("mistral"), { biases: none, headDim: 8, contextLength: 131_072 });
  const qwen2 = { biases: { ...none, qkv: true }, headDim: 8, contextLength: 32_768 };
  assertEquals(of("qwen2"), qwen2);
  assertEquals(of("qwen3"), { biases: none, headDim: 128, contextLength: 32_768 });
  assertEquals(of("qwen3", { head_dim: 16 }).headDim, 16);
});

Deno.test("what is not supported is refused in one sentence that names the file, the key and what is known", () => {
  const refused = (type: string, keys: Record<string, unknown>, sentence: string) =>
    assertThrows(() => read(type, keys), FileError, sentence);
  refused("mistral", { hidden_act: "gelu" }, "config.json says hidden_act is gelu; supported: silu.");
  refused("llama", { num_key_value_heads: 3 }, "num_attention_heads is 4 and num_key_value_heads 3: the second must");
  refused("qwen3", { rope_scaling: { rope_type: "su", factor: 4 } }, 'scaling of type "su"; supported: default');
  refused(
    "mistral",
    { layer_types: ["full_attention", "sliding_attention", "sliding_attention"] },
    "mixes layers with and without a window",
  );
  const chunked = { use_sliding_window: true, layer_types: ["chunked_attention"] };
  refused(
    "qwen2",
    chunked,
    'asks for layer_types of "chunked_attention"; supported: full_attention, sliding_attention',
  );
  refused("qwen2", { use_sliding_window: true, layer_types: ["full_attention"] }, "names 1 layer_types for 3 layers");
});
