import { assertEquals, assertThrows } from "@std/assert";
import { FileError } from "../../core/errors.ts";
import { dyingAfter } from "../../tests/attack/dying.ts";
import type { HostTensor } from "../../core/tensor.ts";
import { pairConfig } from "../../lora/methods/lora.ts";
import { adapterScaling, makeAdapterConfig, parseAdapterConfig, selects } from "./config.ts";
import { type AdapterContents, adapterNames, readAdapter, writeAdapter } from "./files.ts";
import { inFolder } from "../../tests/folder.ts";

function tensor(rows: number, columns: number, first = 1): HostTensor {
  return {
    shape: [rows, columns],
    dtype: "f32",
    data: Float32Array.from({ length: rows * columns }, (_, i) => first + i),
  };
}

const keys = (module: string) => ["A", "B"].map((side) => `base_model.model.transformer.${module}.lora_${side}.weight`);

function contents(first = 1, alpha = 16): AdapterContents {
  const [a, b] = keys("h.0.attn.c_attn");
  const own = pairConfig([{ name: "h.0.attn.c_attn", r: 2, alpha }]);
  const config = makeAdapterConfig(own, { peftType: "LORA", targets: ["c_attn"], baseModel: "gpt2" });
  return { config, tensors: new Map([[a, tensor(2, 4, first)], [b, tensor(12, 2)]]) };
}

const inAdapter = <T>(use: (folder: string) => T) => inFolder((folder) => use(`${folder}/adapter`));

const names = (folder: string) => [...Deno.readDirSync(folder)].map((entry) => entry.name).sort();

Deno.test("an adapter is read back as it was written, in the dtypes that it had, with the same bytes each time", () =>
  inAdapter((folder) => {
    const { config, tensors } = contents();
    const half: HostTensor = { shape: [2], dtype: "bf16", data: new Uint16Array([0x3f80, 0x4000]) };
    tensors instanceof Map && tensors.set("base_model.model.transformer.ln_f.weight", half);
    writeAdapter(folder, { config: { ...config, auto_mapping: { a: 1 }, later: null }, tensors });
    assertEquals(names(folder), ["adapter_config.json", "adapter_model.safetensors"]);
    const first = Deno.readFileSync(`${folder}/adapter_model.safetensors`);
    const adapter = readAdapter(folder);
    assertEquals(adapter.raw, { ...config, auto_mapping: { a: 1 }, later: null });
    assertEquals(adapter.metadata, { format: "pt" });
    const read = new Map(adapter.tensors.map(({ key, tensor }) => [key, tensor]));
    assertEquals(read, new Map([...tensors].sort(([a], [b]) => a < b ? -1 : 1)));
    writeAdapter(folder, { config: adapter.raw, tensors: read });
    assertEquals(Deno.readFileSync(`${folder}/adapter_model.safetensors`), first);
  }));

Deno.test("scaling follows alpha_pattern's first match and the tensor's own rank", () => {
  const config = (changes: Record<string, unknown>) =>
    parseAdapterConfig({ peft_type: "LORA", r: 2, lora_alpha: 16, ...changes }, "c");
  const patterns = config({ alpha_pattern: { "h.1.attn": 5, "^transformer.wte": 7 } });
  assertEquals(adapterScaling(patterns, "transformer.h.0.attn.c_attn", 2), 8);
  assertEquals(adapterScaling(patterns, "transformer.wte", 2), 3.5);
  assertEquals(adapterScaling(config({ use_rslora: true }), "x", 4), 8);
  const two = config({ alpha_pattern: { "c_attn": 3, "h.1.attn.c_attn": 4 } });
  assertEquals(adapterScaling(two, "transformer.h.1.attn.c_attn", 1), 3);
  assertEquals(adapterScaling(config({ alpha_pattern: { "attn": 3 } }), "transformer.h.1.attn.c_attn", 1), 16);
  assertThrows(
    () => config({ alpha_pattern: { "(": 3 } }),
    FileError,
    'the alpha_pattern "(", which is not a valid regular',
  );
});

Deno.test("the modules that a configuration names are those of PEFT's rules", () => {
  const modules = [0, 1].flatMap((i) =>
    ["attn.c_attn", "attn.c_proj", "mlp.c_proj"].map((m) => `transformer.h.${i}.${m}`)
  );
  const chosen = (changes: Record<string, unknown>) => {
    const chooses = selects(parseAdapterConfig({ peft_type: "LORA", ...changes }, "c"));
    return chooses && modules.filter(chooses).map((m) => m.slice("transformer.h.".length));
  };
  assertEquals(chosen({ target_modules: ["c_attn"] }), ["0.attn.c_attn", "1.attn.c_attn"]);
  assertEquals(chosen({ target_modules: ["attn.c_proj", "_attn"] }), ["0.attn.c_proj", "1.attn.c_proj"]);
  assertEquals(chosen({ target_modules: ".*1.*proj" }), ["1.attn.c_proj", "1.mlp.c_proj"]);
  assertEquals(chosen({ target_modules: ["c_proj"], exclude_modules: ["mlp.c_proj"], layers_to_transform: 1 }), [
    "1.attn.c_proj",
  ]);
  assertEquals(chosen({ target_modules: ["c_attn"], layers_to_transform: [0], layers_pattern: "h" }), [
    "0.attn.c_attn",
  ]);
  assertEquals(chosen({ target_modules: ["c_attn"], layers_to_transform: [0], layers_pattern: "blocks" }), []);
  assertEquals(chosen({ target_modules: ["c_proj"], modules_to_save: ["mlp.c_proj"], layers_to_transform: [1] }), [
    "1.attn.c_proj",
  ]);
  assertEquals(chosen({ target_modules: "all-linear" }), null);
  assertEquals(chosen({ target_modules: "(?!what looks ahead).*" }), null);
});

Deno.test("a configuration keeps keys that are not used, has PEFT's defaults, and is checked", () => {
  const read = parseAdapterConfig(
    { peft_type: "LORA", target_modules: ["q"], auto_mapping: { a: 1 }, later: null, rank_pattern: null },
    "c",
  );
  assertEquals([read.r, read.lora_alpha, read.use_rslora, read.auto_mapping], [8, 8, false, { a: 1 }]);
  assertEquals(read.rank_pattern, {});
  const wrong = (changes: Record<string, unknown>, sentence: string) =>
    assertThrows(() => parseAdapterConfig({ peft_type: "LORA", ...changes }, "c"), FileError, sentence);
  wrong({ peft_type: "BOFT" }, 'peft_type "BOFT", and only "LORA", ');
  wrong({ r: 0 }, "c says r is 0");
  wrong({ alpha_pattern: { a: "b" } }, "c says alpha_pattern is");
  wrong({ bias: "some" }, 'c says bias is "some", where one of none, all, lora_only is expected');
  wrong({ modules_to_save: "lm_head" }, "c says modules_to_save is");
  wrong({ trainable_token_indices: { wte: [-1] } }, "c says trainable_token_indices is");
});

Deno.test("a folder without an adapter, keys of something else, and a pickle are refused", () =>
  inAdapter((folder) => {
    assertThrows(() => readAdapter(folder), FileError, "There is no adapter at");
    Deno.mkdirSync(folder);
    assertThrows(() => readAdapter(folder), FileError, "has no adapter_config.json");
    Deno.writeTextFileSync(`${folder}/adapter_config.json`, '{"peft_type":"LORA"}');
    assertThrows(() => readAdapter(folder), FileError, "has no adapter_model.safetensors");
    Deno.writeTextFileSync(`${folder}/adapter_model.bin`, "");
    assertThrows(() => readAdapter(folder), FileError, "adapter_model.bin, a pickle");
    writeAdapter(folder, { config: contents().config, tensors: new Map([["h.0.lora_A.weight", tensor(1, 1)]]) });
    assertThrows(() => readAdapter(folder), FileError, "Unknown keys (1): h.0.lora_A.weight.");
    const [a] = keys("h.0.attn.c_attn");
    const whole: HostTensor = { shape: [1], dtype: "i32", data: new Int32Array(1) };
    writeAdapter(folder, { config: contents().config, tensors: new Map([[a, whole]]) });
    assertThrows(() => readAdapter(folder), FileError, `Not of a float type that is read (1): ${a} is I32.`);
  }));

Deno.test("adapters in folders below are named", () =>
  inAdapter((folder) => {
    writeAdapter(`${folder}/two`, contents());
    writeAdapter(`${folder}/one`, contents());
    assertEquals(adapterNames(folder), ["one", "two"]);
    assertThrows(() => readAdapter(folder), FileError, `Adapters (2): one, two. Give one: ${folder}/one.`);
  }));

Deno.test("values that are not finite are refused and the good adapter stays", () =>
  inAdapter((folder) => {
    writeAdapter(folder, contents());
    const [a] = keys("h.0.attn.c_attn");
    const nan = { ...tensor(2, 4), data: new Float32Array(8).fill(NaN) };
    const halves: HostTensor[] = (["f16", "bf16"] as const).map((dtype) => ({
      ...{ shape: [1], dtype },
      data: new Uint16Array([dtype === "f16" ? 0x7c00 : 0xff80]), // ±∞
    }));
    for (const bad of [nan, ...halves]) {
      const tensors = new Map(contents().tensors).set(a, bad);
      assertThrows(() => writeAdapter(folder, { ...contents(), tensors }), FileError, `${a} holds values that are not`);
    }
    assertEquals(readAdapter(folder).tensors[0].tensor, tensor(2, 4));
  }));

Deno.test("cut short at any point, a save leaves one whole adapter, the old or the new", () =>
  inAdapter((folder) => {
    const [older, newer] = [contents(), contents(100, 32)];
    for (let calls = 0, done = false; !done; calls++) {
      writeAdapter(folder, older);
      done = dyingAfter(calls, () => writeAdapter(folder, newer));
      const { tensors: [{ tensor }], config } = readAdapter(folder);
      assertEquals(config.lora_alpha === 32, tensor.data[0] === 100, "configuration and weights are of one save");
      writeAdapter(folder, newer); // and the next save is a whole one, too
      assertEquals(readAdapter(folder).config.lora_alpha, 32);
    }
  }));
