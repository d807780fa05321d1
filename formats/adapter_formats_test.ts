import { assert, assertEquals, assertThrows } from "@std/assert";
import { FileError } from "../core/errors.ts";
import { memoryBytes } from "../models/load/files/byte_source.ts";
import { parseConfig } from "../models/load/config.ts";
import { readGguf } from "../models/load/gguf/gguf.ts";
import { openGguf } from "../models/load/gguf/source.ts";
import { openSafetensors } from "../models/load/safetensors/safetensors.ts";
import { f32Tensor, makeGguf } from "../testing/make_gguf.ts";
import { type AdapterFiles, readAdapter } from "./peft/files.ts";
import { readGgufAdapter, writeGgufAdapter } from "./gguf.ts";
import { isMlxAdapter, readMlxAdapter, writeMlxAdapter } from "./mlx.ts";
import { scaledPairs } from "./adapter_pairs.ts";
import { inFolder } from "../tests/folder.ts";

const goldens = `${import.meta.dirname}/../tests/goldens/cases`;
const golden = (id: string) => readAdapter(`${goldens}/${id}/adapter`);
const configOf = (base: string, changes: Record<string, unknown> = {}) => {
  const path = `${goldens}/${base}/model/config.json`;
  return parseConfig({ ...JSON.parse(Deno.readTextFileSync(path)), ...changes }, path);
};
const [gpt2, llama] = [configOf("gpt2-base"), configOf("llama-base")];

/** Each module's change s·B·A as one flat list, by module. */
function changes(adapter: AdapterFiles): Map<string, number[]> {
  return new Map(
    scaledPairs(adapter, { format: "a test", magnitudes: true }).map(({ module, A, B, r, scaling }) => [
      module,
      Array.from({ length: B.shape[0] * A.shape[1] }, (_, at) => {
        const [o, i] = [Math.floor(at / A.shape[1]), at % A.shape[1]];
        let sum = 0;
        for (let k = 0; k < r; k++) sum += B.data[o * r + k] * A.data[k * A.shape[1] + i];
        return scaling * sum;
      }),
    ]),
  );
}

/** The same change of every module, up to the rounding of a factor that went into B and of an alpha that became f32. */
function assertSameChange(found: AdapterFiles, expected: AdapterFiles): void {
  const [a, b] = [changes(found), changes(expected)];
  assertEquals([...a.keys()].sort(), [...b.keys()].sort());
  for (const [module, values] of b) {
    const size = Math.max(...values.map(Math.abs));
    values.forEach((x, i) => assert(Math.abs(x - a.get(module)![i]) <= 4 * 2 ** -24 * size, `${module} ${i}`));
  }
}

const plain = [
  ["gpt2-lora-basic", gpt2],
  ["gpt2-lora-rslora", gpt2],
  ["gpt2-lora-patterns", gpt2],
  ["gpt2-lora-all-linear", gpt2],
  ["llama-lora-qv", llama],
  ["llama-lora-all7", llama],
  ["llama-lora-rslora-patterns", llama],
] as const;

for (const [id, config] of plain) {
  Deno.test(`${id} goes to llama.cpp's format and to mlx-lm's and back as the same change`, () =>
    inFolder((folder) => {
      const adapter = golden(id);
      writeGgufAdapter(`${folder}/a.gguf`, adapter, config);
      assertSameChange(readGgufAdapter(`${folder}/a.gguf`, config), adapter);
      writeMlxAdapter(`${folder}/mlx`, adapter, config);
      assert(isMlxAdapter(`${folder}/mlx`));
      assertSameChange(readMlxAdapter(`${folder}/mlx`, config), adapter);
    }));
}

Deno.test("a GGUF adapter has llama.cpp's keys, one alpha, and rows of q and k in the order of its weights", () =>
  inFolder((folder) => {
    const adapter = golden("llama-lora-rslora-patterns");
    writeGgufAdapter(`${folder}/a.gguf`, adapter, llama);
    const bytes = Deno.readFileSync(`${folder}/a.gguf`);
    const { metadata, tensors } = readGguf(memoryBytes("a.gguf", bytes));
    assertEquals(
      ["general.type", "general.architecture", "adapter.type", "adapter.lora.alpha"].map((key) => metadata.get(key)),
      ["adapter", "llama", "lora", Math.fround(16 * Math.sqrt(8))], // alpha·√r of most modules
    );
    assertEquals(tensors.get("blk.0.attn_q.weight.lora_a")!.shape, [2, 64]);
    assertEquals(tensors.get("blk.0.attn_q.weight.lora_b")!.shape, [64, 2]);
    // The order is the one that the same model's GGUF has for the weights themselves.
    using model = openGguf(`${goldens}/llama-gguf/llama-F32.gguf`);
    using base = openSafetensors(`${goldens}/llama-base/model/model.safetensors`);
    const name = "model.layers.0.self_attn.q_proj.weight";
    const [own, hub] = [model.readOwn("blk.0.attn_q.weight"), base.read(name, "f32").data];
    const rowOf = (row: number) => {
      const at = (k: number) => Array.from(own.subarray(row * 64, row * 64 + 3)).every((x, i) => x === hub[k * 64 + i]);
      return Array.from({ length: 64 }, (_, k) => k).find(at)!;
    };
    const written = new Float32Array(bytes.slice(tensors.get("blk.0.attn_q.weight.lora_b")!.begin).buffer, 0, 128);
    const B = adapter.tensors.find(({ key }) => key.endsWith("layers.0.self_attn.q_proj.lora_B.weight"))!.tensor.data;
    const ratio = written[0] / B[rowOf(0) * 2];
    for (let i = 0; i < 128; i++) {
      const expected = ratio * B[rowOf(i >> 1) * 2 + i % 2];
      assert(Math.abs(written[i] - expected) <= 2 ** -22 * Math.abs(expected));
    }
  }));

Deno.test("Qwen's rows of q and k stay as they are, Mistral's go as Llama's", () =>
  inFolder((folder) => {
    const adapter = golden("llama-lora-qv");
    const rows = (modelType: string) => {
      writeGgufAdapter(`${folder}/a.gguf`, adapter, configOf("llama-base", { model_type: modelType }));
      const bytes = Deno.readFileSync(`${folder}/a.gguf`);
      const { metadata, tensors } = readGguf(memoryBytes("a.gguf", bytes));
      const { begin } = tensors.get("blk.0.attn_q.weight.lora_b")!;
      return { architecture: metadata.get("general.architecture"), row: bytes.slice(begin + 32, begin + 64) };
    };
    const [llama, mistral, qwen2] = ["llama", "mistral", "qwen2"].map(rows);
    assertEquals(mistral, llama);
    assertEquals(qwen2.architecture, "qwen2");
    const B = adapter.tensors.find(({ key }) => key.endsWith("layers.0.self_attn.q_proj.lora_B.weight"))!.tensor.data;
    const second = (data: ArrayLike<number>, row: number) => Array.from({ length: 8 }, (_, i) => data[row * 8 + i]);
    assertEquals([...new Float32Array(qwen2.row.buffer)], second(B, 1));
    assertEquals([...new Float32Array(llama.row.buffer)], second(B, 8)); // half of a head's 16 further on
  }));

Deno.test("DoRA goes to mlx-lm with its magnitudes and not to llama.cpp", () =>
  inFolder((folder) => {
    const adapter = golden("llama-lora-dora");
    writeMlxAdapter(`${folder}/mlx`, adapter, llama);
    const back = readMlxAdapter(`${folder}/mlx`, llama);
    assertEquals(back.config.use_dora, true);
    const keys = (a: AdapterFiles) => a.tensors.map(({ key }) => key).sort();
    assertEquals(keys(back), keys(adapter));
    assertThrows(
      () => writeGgufAdapter(`${folder}/a.gguf`, adapter, llama),
      FileError,
      "what llama.cpp's adapter format can't express. Without a place there (6): base_model.model.model.layers.0.mlp.down_",
    );
  }));

Deno.test("what a format would change silently is refused", () =>
  inFolder((folder) => {
    const at = `${folder}/a.gguf`;
    const refused = (id: string, config: typeof gpt2, sentence: string) =>
      assertThrows(() => writeGgufAdapter(at, golden(id), config), FileError, sentence);
    refused("llama-lora-embed", llama, "adapts model.embed_tokens, which is the head of");
    const adapting = (module: string): AdapterFiles => {
      const { tensors, ...files } = golden("llama-lora-qv");
      return { ...files, tensors: tensors.map((tensor) => ({ ...tensor, module })) };
    };
    for (const write of [writeGgufAdapter, writeMlxAdapter]) {
      assertThrows(
        () => write(at, adapting("lm_head"), llama),
        FileError,
        "adapts lm_head, which is tied to the embedding",
      );
      assertThrows(
        () => write(at, adapting("model.embed_tokens"), llama),
        FileError,
        "adapts model.embed_tokens, which is",
      );
    }
    assertThrows(
      () => writeGgufAdapter(at, adapting("transformer.wpe"), gpt2),
      FileError,
      "adapts transformer.wpe, and llama",
    );
    refused("gpt2-lora-bias", gpt2, "base_model.model.transformer.h.0.attn.c_attn.base_layer.bias");
    refused("gpt2-lora-modules-to-save", gpt2, "Without a place there (1): base_model.model.lm_head.weight");
    refused("gpt2-lora-basic", llama, "Modules that llama.cpp has no name for there (2): transformer.h.0.attn.c_attn");
    const pissa = readAdapter(`${goldens}/gpt2-lora-pissa/pissa_trained`);
    assertThrows(() => writeGgufAdapter(at, pissa, gpt2), FileError, "was initialised by PiSSA");
    writeGgufAdapter(at, golden("llama-lora-embed"), configOf("llama-base", { tie_word_embeddings: false }));
    const { tensors } = readGguf(memoryBytes(at, Deno.readFileSync(at)));
    assertEquals(tensors.get("token_embd.weight.lora_a")!.shape, [300, 8]); // rows are looked up
  }));

Deno.test("mlx-lm's one rank is the highest: lower ones are filled with zeros, and the change is the same", () =>
  inFolder((folder) => {
    const adapter = golden("llama-lora-rslora-patterns");
    writeMlxAdapter(folder, adapter, llama);
    const ranks = readMlxAdapter(folder, llama).tensors.map(({ part, tensor }) =>
      tensor.shape[part.leaf === "A" ? 0 : 1]
    );
    const highest = Math.max(...adapter.tensors.map(({ part, tensor }) => tensor.shape[part.leaf === "A" ? 0 : 1]));
    assertEquals([...new Set(ranks)], [highest]);
    const { rank } = JSON.parse(Deno.readTextFileSync(`${folder}/adapter_config.json`)).lora_parameters;
    assertEquals(rank, highest);
  }));

Deno.test("a GGUF file that is no adapter, or another model's, is refused with the reason", () =>
  inFolder((folder) => {
    const make = (metadata: Parameters<typeof makeGguf>[0], names: string[]) => {
      Deno.writeFileSync(
        `${folder}/a.gguf`,
        makeGguf(metadata, Object.fromEntries(names.map((name) => [name, f32Tensor([2, 64], new Float32Array(128))]))),
      );
      return () => readGgufAdapter(`${folder}/a.gguf`, llama);
    };
    const header = {
      "general.type": { text: "adapter" },
      "general.architecture": { text: "llama" },
      "adapter.type": { text: "lora" },
    };
    const refused = (read: () => unknown, sentence: string) => assertThrows(read, FileError, sentence);
    refused(make({}, []), "is of the general.type (none)");
    refused(make({ ...header, "general.architecture": { text: "gpt2" } }, []), "is for the architecture gpt2");
    refused(
      make(header, ["blk.0.attn_q.weight.lora_a", "blk.9.attn_q.weight.lora_a", "blk.9.attn_q.weight.lora_b", "x"]),
      "Missing (1): blk.0.attn_q.weight.lora_b. Unexpected (3): blk.9.attn_q.weight.lora_a, blk.9.attn_q.weight.lora_b, x.",
    );
    refused(make(header, ["blk.0.attn_v.weight.lora_a", "blk.0.attn_v.weight.lora_b"]), "[2,64]: no pair");
  }));
