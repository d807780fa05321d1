/**
 * The goldens of file formats: safetensors and GGUF values bit for bit, PEFT's adapter files written again byte for byte. The
 * folder of goldens is the first argument, else this one; a case that is not there is skipped and named.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { FileError } from "../../core/errors.ts";
import { openBytes, pathKind } from "../../models/load/byte_source.ts";
import { readGguf } from "../../models/load/gguf.ts";
import { openGguf } from "../../models/load/gguf_source.ts";
import { openSafetensors } from "../../models/load/safetensors.ts";
import { pairsFor, readAdapter, writeAdapter } from "../../train/adapter_files.ts";

const goldens = Deno.args[0] ?? new URL(".", import.meta.url).pathname.replace(/\/$/, "");

function golden(id: string, body: (folder: string) => void): void {
  const folder = `${goldens}/${id}`;
  const absent = pathKind(folder) !== "folder";
  Deno.test({ name: absent ? `${id}: skipped, it is not in ${goldens}` : id, ignore: absent, fn: () => body(folder) });
}

const json = (path: string) => JSON.parse(Deno.readTextFileSync(path));

golden("safetensors-dtypes", (folder) => {
  using source = openSafetensors(`${folder}/all.safetensors`);
  const values = json(`${folder}/values.json`);
  assertEquals([...source.names].sort(), Object.keys(values).sort());
  for (const [name, { shape, bytes_hex: hex, dtype, as_strings: strings }] of Object.entries<any>(values)) {
    assertEquals(source.entry(name).shape, shape);
    assertEquals(source.bytes(name).toHex(), hex);
    if (dtype === "int64") {
      assertThrows(() => source.read(name), FileError, "which is no i32");
    } else {
      const { data } = source.read(name, dtype.includes("float") ? "f32" : undefined);
      const expected = strings.map((text: string) =>
        text === "True"
          ? 1
          : text === "False"
          ? 0
          : text === "inf"
          ? Infinity
          : text === "-inf"
          ? -Infinity
          : Number(text)
      );
      assertEquals([...data], dtype === "float64" ? expected.map(Math.fround) : expected);
    }
  }
  for (const file of Object.keys(json(`${folder}/case.json`).malformed_verdicts)) {
    assertThrows(
      () => openSafetensors(`${folder}/malformed/${file}`),
      FileError,
      `${file} is no whole safetensors file`,
    );
  }
});

golden("gguf-quants", (folder) => {
  using source = openBytes(`${folder}/quants.gguf`);
  using expected = openSafetensors(`${folder}/expected.safetensors`);
  const { metadata, tensors } = readGguf(source);
  for (const [key, value] of Object.entries<any>(json(`${folder}/metadata.json`))) {
    const wide = key === "golden.u64" || key === "golden.i64"; // 64-bit integers are texts there
    assertEquals(metadata.get(key), wide ? BigInt(value) : value);
  }
  assertEquals([...tensors.keys()].sort(), [...expected.names].sort());
  for (const [name, { type, bytes, begin, shape }] of tensors) {
    const packed = new Uint8Array(bytes);
    source.read(begin, packed);
    const want = expected.read(name);
    const values = new Float32Array(want.data.length);
    type.dequantize(packed, values);
    assertEquals({ name, shape, values }, { name, shape: want.shape, values: want.data as Float32Array });
  }
});

golden("llama-gguf", (folder) => {
  using expected = openSafetensors(`${folder}/weights_sample.safetensors`);
  for (const key of expected.names) {
    const [, type, name] = /^([^.]+)\.(.*)$/.exec(key)!;
    using source = openGguf(`${folder}/llama-${type}.gguf`);
    assertEquals(source.read(name, "f32"), expected.read(key));
  }
});

for (
  const id of [
    ...["gpt2-lora-basic", "gpt2-lora-rslora", "gpt2-lora-patterns", "gpt2-lora-embedding", "gpt2-lora-all-linear"],
    ...["gpt2-lora-regex", "gpt2-lora-layers", "llama-lora-qv", "llama-lora-all7", "llama-lora-embed"],
    "llama-lora-rslora-patterns",
  ]
) {
  golden(id, (folder) => {
    const adapter = readAdapter(`${folder}/adapter`);
    const shapes = new Map<string, { A: readonly number[]; B: readonly number[] }>();
    for (const { module, part, tensor } of adapter.tensors) {
      const entry = shapes.get(module) ?? { A: [], B: [] };
      shapes.set(module, entry);
      if (part.endsWith("A")) entry.A = tensor.shape;
      if (part.endsWith("B")) entry.B = tensor.shape;
    }
    const copy = Deno.makeTempDirSync();
    writeAdapter(copy, adapter.config, pairsFor(adapter, shapes), (module) => module);
    const weights = (place: string) => Deno.readFileSync(`${place}/adapter_model.safetensors`);
    assert(weights(copy).toHex() === weights(`${folder}/adapter`).toHex(), "the weights have PEFT's bytes");
    assertEquals(json(`${copy}/adapter_config.json`), json(`${folder}/adapter/adapter_config.json`));
    Deno.removeSync(copy, { recursive: true });
  });
}
