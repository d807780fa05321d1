import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { FileError } from "../../../core/errors.ts";
import { f32Tensor, makeGguf, type Meta, type RawTensor } from "../../../testing/make_gguf.ts";
import { memoryBytes } from "../files/byte_source.ts";
import { configFromGguf } from "./config.ts";
import { readGguf } from "./gguf.ts";
import { ggufTypes } from "./quants.ts";
import { openGguf } from "./source.ts";

const counting = (n: number) => Float32Array.from({ length: n }, (_, i) => i);

const llama: Record<string, Meta> = {
  "general.architecture": { text: "llama" },
  "llama.block_count": { u32: 1 },
  "llama.context_length": { u32: 64 },
  "llama.embedding_length": { u32: 4 },
  "llama.feed_forward_length": { u32: 8 },
  "llama.attention.head_count": { u32: 2 },
  "llama.attention.head_count_kv": { u32: 1 },
  "llama.attention.layer_norm_rms_epsilon": { f32: 0.5 },
  "llama.rope.freq_base": { f32: 500 },
};

const llamaTensors: Record<string, RawTensor> = {
  "token_embd.weight": f32Tensor([6, 4], counting(24)),
  "blk.0.attn_q.weight": f32Tensor([8, 4], counting(32)),
  "blk.0.attn_q.bias": f32Tensor([8], counting(8)),
  "blk.0.attn_k.weight": f32Tensor([4, 4], counting(16)),
  "output_norm.weight": f32Tensor([4], counting(4)),
};

const open = (bytes: Uint8Array) => openGguf(memoryBytes("m.gguf", bytes));

Deno.test("metadata and tensors of versions 2 and 3, at any alignment", () => {
  for (const version of [2, 3]) {
    for (const alignment of [8, 32, 64]) {
      const metadata = { ...llama, "general.alignment": { u32: alignment }, list: { i32s: [1, -2] } };
      const header = readGguf(memoryBytes("m.gguf", makeGguf(metadata, llamaTensors, { alignment, version })));
      assertEquals(header.version, version);
      assertEquals(header.metadata.get("list"), [1, -2]);
      assertEquals(header.tensors.get("blk.0.attn_q.weight")!.shape, [8, 4]);
    }
  }
});

Deno.test("rows of q and k are put back to halves, and names are Hugging Face's", () => {
  const source = open(makeGguf(llama, llamaTensors));
  const first = (name: string) => {
    const { data, shape } = source.read(name);
    const width = shape[1] ?? 1;
    return Array.from({ length: shape[0] }, (_, row) => data[row * width] / width);
  };
  // Two query heads of 4 rows: pairs (0,1), (2,3) of the file are row i of the two halves.
  assertEquals(first("model.layers.0.self_attn.q_proj.weight"), [0, 2, 1, 3, 4, 6, 5, 7]);
  assertEquals(first("model.layers.0.self_attn.q_proj.bias"), [0, 2, 1, 3, 4, 6, 5, 7]);
  assertEquals(first("model.layers.0.self_attn.k_proj.weight"), [0, 2, 1, 3]);
  assertEquals(source.read("model.norm.weight").data, counting(4));
});

Deno.test("the configuration is Hugging Face's, tied where there is no output matrix", () => {
  const config = configFromGguf(open(makeGguf(llama, llamaTensors)));
  assertEquals(config.modelType, "llama");
  assertEquals(config.integer("vocab_size"), 6);
  assertEquals(config.integer("num_key_value_heads"), 1);
  assertEquals(config.flag("tie_word_embeddings"), true);
  assertEquals(config.flag("attention_bias"), true);
  assertEquals(config.raw.rope_parameters, { rope_theta: 500, rope_type: "default" });
  const more = {
    ...llamaTensors,
    "output.weight": llamaTensors["token_embd.weight"],
    "rope_freqs.weight": f32Tensor([1], [8]),
  };
  const untied = configFromGguf(open(makeGguf(llama, more)));
  assertEquals(untied.flag("tie_word_embeddings"), false);
  assertEquals(untied.raw.rope_parameters, { rope_theta: 500, rope_type: "factors", factors: [8] });
});

Deno.test("GPT-2's matrices come as Conv1D has them, (in, out)", () => {
  const source = open(makeGguf({ "general.architecture": { text: "gpt2" } }, {
    "blk.0.attn_qkv.weight": f32Tensor([6, 2], counting(12)),
    "blk.0.attn_qkv.bias": f32Tensor([6], counting(6)),
    "position_embd.weight": f32Tensor([3, 2], counting(6)),
  }));
  assertEquals(source.read("transformer.h.0.attn.c_attn.weight"), {
    shape: [2, 6],
    dtype: "f32",
    data: Float32Array.of(0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11),
  });
  assertEquals(source.read("transformer.h.0.attn.c_attn.bias").data, counting(6));
  assertEquals(source.read("transformer.wpe.weight").data, counting(6));
});

Deno.test("a large tensor read in pieces is the same as one piece's values", () => {
  const rows = 700, columns = 512; // more than one piece, and a last one that is not full
  const source = open(makeGguf({ "general.architecture": { text: "gpt2" } }, {
    "blk.0.ffn_up.weight": f32Tensor([rows, columns], counting(rows * columns)),
  }));
  const { data, shape } = source.read("transformer.h.0.mlp.c_fc.weight");
  assertEquals(shape, [columns, rows]);
  for (const [c, r] of [[0, 0], [0, 699], [511, 0], [511, 511], [511, 512], [300, 699]]) {
    assertEquals(data[c * rows + r], r * columns + c);
  }
});

Deno.test("a block of each simple type by hand", () => {
  const one = (type: number, bytes: number[]) => {
    const out = new Float32Array(32);
    ggufTypes.get(type)!.dequantize(Uint8Array.from(bytes), out);
    return [...out];
  };
  const nibbles = Array.from({ length: 16 }, (_, i) => i | (15 - i) << 4); // low: 0…15, high: 15…0
  const half = [0x00, 0x38], two = [0x00, 0x40]; // 0.5 and 2 as f16
  const up = Array.from({ length: 16 }, (_, i) => i), down = up.toReversed();
  assertEquals(one(2, [...half, ...nibbles]), [...up, ...down].map((q) => (q - 8) * 0.5));
  assertEquals(one(3, [...half, ...two, ...nibbles]), [...up, ...down].map((q) => q * 0.5 + 2));
  const fifth = [0xff, 0xff, 0, 0]; // set for the low half only
  assertEquals(one(6, [...half, ...fifth, ...nibbles]), [
    ...up.map((q) => q * 0.5),
    ...down.map((q) => (q - 16) * 0.5),
  ]);
  assertEquals(one(7, [...half, ...two, ...fifth, ...nibbles]), [
    ...up.map((q) => (q + 16) * 0.5 + 2),
    ...down.map((q) => q * 0.5 + 2),
  ]);
  const bytes = Array.from({ length: 32 }, (_, i) => i * 8 & 255);
  assertEquals(one(8, [...half, ...bytes]), bytes.map((b) => (b << 24 >> 24) * 0.5));
});

Deno.test("a damaged file is refused with what is wrong", () => {
  const whole = makeGguf(llama, llamaTensors);
  const changed = (change: (view: DataView) => void) => {
    const bytes = whole.slice();
    change(new DataView(bytes.buffer));
    return bytes;
  };
  const cases: [Uint8Array, string][] = [
    [whole.slice(0, 10), "it has 10 bytes"],
    [changed((view) => view.setUint8(0, 0)), "does not begin with the letters GGUF"],
    [changed((view) => view.setUint32(4, 1, true)), "of version 1"],
    [changed((view) => view.setUint32(4, 3, false)), "big-endian"],
    [changed((view) => view.setBigUint64(8, 1n << 40n, true)), "claims 1099511627776 tensors"],
    [changed((view) => view.setBigUint64(24, 1n << 60n, true)), "bytes of text"],
    [whole.slice(0, 200), "damaged or truncated"],
    [whole.slice(0, whole.length - 40), "it is truncated"],
    [makeGguf({ ...llama, "general.alignment": { u32: 12 } }, {}), "general.alignment is 12"],
    [
      makeGguf(llama, { a: { type: 2, shape: [4], bytes: new Uint8Array(18) } }),
      "rows of 4 values and Q4_0 blocks hold 32",
    ],
    [makeGguf(llama, { a: { type: 16, shape: [256], bytes: new Uint8Array(66) } }), "the tensor type IQ2_XXS"],
    [makeGguf({ "general.architecture": { text: "mamba" } }, {}), "of the architecture mamba"],
    [makeGguf({ ...llama, "llama.attention.head_count": { u32: 3 } }, llamaTensors), "3 heads can't share"],
  ];
  for (const [bytes, sentence] of cases) {
    assertThrows(() => open(bytes).read("model.layers.0.self_attn.q_proj.weight"), FileError, sentence);
  }
});

Deno.test("a file with any bytes changed or cut is read or refused with a sentence", () => {
  const whole = makeGguf({ ...llama, texts: { texts: ["a", "", "ç"] }, ids: { i32s: [1, 2, 3] } }, llamaTensors);
  let refused = 0;
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 3 }), fc.nat(), (edits, cut) => {
      const bytes = cut % 4 === 0 ? whole.slice(0, cut % whole.length) : whole.slice();
      for (const [at, byte] of edits) if (at < bytes.length) bytes[at] = byte;
      try {
        const source = open(bytes);
        for (const name of source.names) source.read(name);
        configFromGguf(source);
      } catch (error) {
        if (!(error instanceof FileError)) throw error;
        refused++;
      }
    }),
    { numRuns: 1500 },
  );
  assert(refused > 100);
});
