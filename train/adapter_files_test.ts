import { assert, assertEquals, assertThrows } from "@std/assert";
import { FileError } from "../core/errors.ts";
import type { HostTensor } from "../core/tensor.ts";
import { adapterScaling, makeAdapterConfig, parseAdapterConfig } from "./adapter_config.ts";
import { adapterOptions, type AdapterPair, pairsFor, readAdapter, writeAdapter } from "./adapter_files.ts";

function tensor(rows: number, columns: number, first = 1): HostTensor {
  return {
    shape: [rows, columns],
    dtype: "f32",
    data: Float32Array.from({ length: rows * columns }, (_, i) => first + i),
  };
}

const pairs: Record<string, AdapterPair> = {
  "h.0.attn.c_attn": { A: tensor(2, 4), B: tensor(12, 2) },
  "h.1.attn.c_attn": { A: tensor(3, 4), B: tensor(12, 3) },
  "wte": { A: tensor(2, 10), B: tensor(4, 2), embedding: true },
};
const shapes = new Map(Object.entries(pairs).map(([path, { A, B }]) => [path, { A: A.shape, B: B.shape }]));
const hubName = (path: string) => `transformer.${path}`;
const config = makeAdapterConfig({
  r: 2,
  alpha: 16,
  targets: ["c_attn", "wte"],
  rankPattern: { "h.1.attn.c_attn": 3 },
  alphaPattern: { "h.1.attn": 5, "^transformer.wte": 7 },
  baseModel: "gpt2",
  fanInFanOut: true,
});

function inFolder(body: (folder: string) => void): void {
  const folder = Deno.makeTempDirSync();
  try {
    body(`${folder}/adapter`);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

const names = (folder: string) => [...Deno.readDirSync(folder)].map((entry) => entry.name).sort();

Deno.test("an adapter is read back as it was written, with the same bytes each time", () =>
  inFolder((folder) => {
    writeAdapter(folder, config, pairs, hubName);
    assertEquals(names(folder), ["adapter_config.json", "adapter_model.safetensors"]);
    const first = Deno.readFileSync(`${folder}/adapter_model.safetensors`);
    const adapter = readAdapter(folder);
    assertEquals(adapter.config, config);
    assertEquals(adapter.tensors.map(({ key }) => key).slice(-2), [
      "base_model.model.transformer.wte.lora_embedding_A",
      "base_model.model.transformer.wte.lora_embedding_B",
    ]);
    const read = pairsFor(adapter, shapes);
    assertEquals(read["wte"], pairs["wte"]);
    assertEquals(read["h.1.attn.c_attn"].A, pairs["h.1.attn.c_attn"].A);
    writeAdapter(folder, adapter.config, read, hubName);
    assertEquals(Deno.readFileSync(`${folder}/adapter_model.safetensors`), first);
  }));

Deno.test("options are those of the file's tensors, under the model's paths", () =>
  inFolder((folder) => {
    writeAdapter(folder, { ...config, alpha_pattern: { "h.1.attn.c_attn": 5 } }, pairs, hubName);
    assertEquals(adapterOptions(readAdapter(folder), shapes), {
      r: 2,
      alpha: 16,
      dropout: 0,
      targets: ["h.0.attn.c_attn", "h.1.attn.c_attn", "wte"],
      rslora: false,
      rankPattern: { "h.1.attn.c_attn": 3 },
      alphaPattern: { "h.1.attn.c_attn": 5 },
    });
  }));

Deno.test("scaling follows alpha_pattern's first match and the tensor's own rank", () => {
  assertEquals(adapterScaling(config, "transformer.h.0.attn.c_attn", 2), 8);
  assertEquals(adapterScaling(config, "transformer.wte", 2), 3.5);
  assertEquals(adapterScaling({ ...config, use_rslora: true }, "x", 4), 8);
  const pattern = { ...config, alpha_pattern: { "c_attn": 3, "h.1.attn.c_attn": 4 } };
  assertEquals(adapterScaling(pattern, "transformer.h.1.attn.c_attn", 1), 3);
  assertEquals(adapterScaling({ ...config, alpha_pattern: { "attn": 3 } }, "transformer.h.1.attn.c_attn", 1), 16);
  assertThrows(
    () => adapterScaling({ ...config, alpha_pattern: { "(": 3 } }, "x", 1),
    FileError,
    "no regular expression",
  );
});

Deno.test("a configuration keeps unknown keys, has PEFT's defaults, and is checked", () => {
  const read = parseAdapterConfig(
    { peft_type: "LORA", target_modules: ["q"], later: { a: 1 }, rank_pattern: null },
    "c",
  );
  assertEquals([read.r, read.lora_alpha, read.use_rslora, read.later], [8, 8, false, { a: 1 }]);
  assertEquals(read.rank_pattern, {});
  assertThrows(() => parseAdapterConfig({ peft_type: "IA3" }, "c"), FileError, 'peft_type "IA3", and only "LORA"');
  assertThrows(() => parseAdapterConfig({ peft_type: "LORA", r: 0 }, "c"), FileError, "c says r is 0");
  assertThrows(
    () => parseAdapterConfig({ peft_type: "LORA", alpha_pattern: { a: "b" } }, "c"),
    FileError,
    "alpha_pattern",
  );
});

Deno.test("what does not fit the model is listed together", () =>
  inFolder((folder) => {
    writeAdapter(folder, config, pairs, hubName);
    const adapter = readAdapter(folder);
    const other = new Map(shapes).set("h.0.attn.c_attn", { A: [2, 5], B: [12, 2] }).set("lm_head", {
      A: [2, 4],
      B: [10, 2],
    });
    assertThrows(
      () => pairsFor(adapter, other),
      FileError,
      "Missing (1): lm_head. Of the wrong shape (1): A of h.0.attn.c_attn is [2,4], expected [2,5].",
    );
    other.delete("wte");
    assertThrows(() => pairsFor(adapter, other), FileError, "Modules that the model has not (1): transformer.wte.");
    const half = { ...adapter, tensors: adapter.tensors.slice(1) };
    assertThrows(
      () => pairsFor(half, shapes),
      FileError,
      "Without a matching pair of A [r, in] and B [out, r] (1): h.0.attn",
    );
    const extra = {
      key: "base_model.model.transformer.wte.weight",
      module: "transformer.wte",
      part: "weight" as const,
    };
    const more = { ...adapter, tensors: [...adapter.tensors, { ...extra, tensor: tensor(1, 1) }] };
    assertThrows(() => pairsFor(more, shapes), FileError, "Parts that are not supported");
  }));

Deno.test("the base's embedding is in the file where PEFT has it", () =>
  inFolder((folder) => {
    const base = tensor(10, 4);
    const embed = { "embed_tokens": { ...pairs["wte"], base } };
    writeAdapter(folder, config, embed, (path) => `model.${path}`);
    const adapter = readAdapter(folder);
    assertEquals(adapter.tensors[0].key, "base_model.model.model.embed_tokens.base_layer.weight");
    const read = pairsFor(adapter, new Map([["embed_tokens", shapes.get("wte")!]]));
    assertEquals(read["embed_tokens"].base, base);
    writeAdapter(folder, config, { "wte": { ...pairs["wte"], base } }, hubName);
    assertEquals(readAdapter(folder).tensors.length, 2);
  }));

Deno.test("a folder without an adapter, and a pickle, are refused", () =>
  inFolder((folder) => {
    assertThrows(() => readAdapter(folder), FileError, "There is no adapter at");
    Deno.mkdirSync(folder);
    assertThrows(() => readAdapter(folder), FileError, "has no adapter_config.json");
    Deno.writeTextFileSync(`${folder}/adapter_config.json`, '{"peft_type":"LORA"}');
    assertThrows(() => readAdapter(folder), FileError, "has no adapter_model.safetensors");
    Deno.writeTextFileSync(`${folder}/adapter_model.bin`, "");
    assertThrows(() => readAdapter(folder), FileError, "adapter_model.bin, a pickle");
  }));

Deno.test("values that are not finite are refused and the good adapter stays", () =>
  inFolder((folder) => {
    writeAdapter(folder, config, pairs, hubName);
    const bad = { ...pairs["wte"], A: { ...tensor(2, 10), data: new Float32Array(20).fill(NaN) } };
    assertThrows(() => writeAdapter(folder, config, { ...pairs, wte: bad }, hubName), FileError, "not finite");
    assertEquals(pairsFor(readAdapter(folder), shapes)["wte"], pairs["wte"]);
  }));

Deno.test("cut short at any point, a save leaves one whole adapter, the old or the new", () =>
  inFolder((folder) => {
    const newer = { ...config, lora_alpha: 32 };
    const newerPairs = { ...pairs, wte: { ...pairs["wte"], A: tensor(2, 10, 100) } };
    const state = () => {
      const adapter = readAdapter(folder);
      const first = pairsFor(adapter, shapes)["wte"].A.data[0];
      assertEquals(adapter.config.lora_alpha === 32, first === 100, "configuration and weights are of one save");
      return first;
    };
    writeAdapter(folder, newer, newerPairs, hubName);
    const at = (name: string) => `${folder}/${name}`;
    const config1 = Deno.readFileSync(at("adapter_config.json")),
      weights1 = Deno.readFileSync(at("adapter_model.safetensors"));
    const stages: (() => void)[] = [
      () => Deno.writeFileSync(at("adapter_model.safetensors.new"), weights1.subarray(0, 9)),
      () => Deno.writeFileSync(at("adapter_model.safetensors.new"), weights1),
      () => Deno.writeFileSync(at("adapter_config.json.new"), config1.subarray(0, 9)),
      () => Deno.writeFileSync(at("adapter_config.json.new"), config1),
      () => Deno.renameSync(at("adapter_model.safetensors.new"), at("adapter_model.safetensors")),
      () => Deno.renameSync(at("adapter_config.json.new"), at("adapter_config.json")),
    ];
    for (let stop = 0; stop <= stages.length; stop++) {
      writeAdapter(folder, config, pairs, hubName);
      for (const stage of stages.slice(0, stop)) stage();
      assertEquals(state(), stop < 5 ? 1 : 100);
      writeAdapter(folder, newer, newerPairs, hubName); // and the next save is a whole one, too
      assertEquals(state(), 100);
      assert(names(folder).length === 2);
    }
  }));
