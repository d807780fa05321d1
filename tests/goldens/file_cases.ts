/** Golden cases of file formats: values bit for bit. No device has a part in them. */
import { assertEquals, assertThrows } from "@std/assert";
import { PackedWriter } from "../../core/packed/writer.ts";
import { FileError } from "../../core/errors.ts";
import { openBytes } from "../../models/load/files/byte_source.ts";
import { readGguf } from "../../models/load/gguf/gguf.ts";
import { packedGgufTypes, writeBlocks } from "../../models/load/gguf/packed.ts";
import { openGguf } from "../../models/load/gguf/source.ts";
import { openSafetensors } from "../../models/load/safetensors/safetensors.ts";
import { decodePacked } from "../../testing/packed_reference.ts";
import type { GoldenCase } from "./golden_case.ts";
import { ggufFiles } from "./model_cases.ts";

/** Every dtype as bytes and as values, and files that are to be refused. */
export function runDtypesCase(golden: GoldenCase): void {
  using source = openSafetensors(`${golden.folder}/all.safetensors`);
  const values = golden.json("values.json");
  assertEquals([...source.names].sort(), Object.keys(values).sort());
  for (const [name, { shape, bytes_hex: hex, dtype, as_strings: strings }] of Object.entries<any>(values)) {
    assertEquals(source.entry(name).shape, shape);
    assertEquals(source.bytes(name).toHex(), hex);
    const expected = strings.map(numberOf);
    if (expected.some((n: number) => Number.isInteger(n) && Math.abs(n) >= 2 ** 32)) {
      assertThrows(() => source.read(name), FileError, "which is no i32");
    } else {
      const { data } = source.read(name, dtype.includes("float") ? "f32" : undefined);
      assertEquals([...data], dtype === "float64" ? expected.map(Math.fround) : expected);
    }
  }
  for (const file of Object.keys(golden.info.malformed_verdicts)) {
    assertThrows(
      () => openSafetensors(`${golden.folder}/malformed/${file}`),
      FileError,
      "is not a complete safetensors file",
    );
  }
}

/** A number as Python prints it. */
function numberOf(text: string): number {
  const words: Record<string, number> = { True: 1, False: 0, inf: Infinity, "-inf": -Infinity, nan: NaN };
  return words[text] ?? Number(text);
}

/** Metadata of every type, and every tensor type dequantised. */
export function runQuantsCase(golden: GoldenCase): void {
  using source = openBytes(`${golden.folder}/quants.gguf`);
  const { metadata, tensors } = readGguf(source);
  for (const [key, value] of Object.entries<any>(golden.json("metadata.json"))) {
    const found = metadata.get(key);
    assertEquals(typeof found === "bigint" ? String(found) : found, value); // 64-bit integers are texts there
  }
  const expected = golden.tensors("expected.safetensors");
  assertEquals([...tensors.keys()].sort(), [...expected.keys()].sort());
  for (const [name, { type, bytes, begin, shape }] of tensors) {
    const packed = new Uint8Array(bytes);
    source.read(begin, packed);
    const want = expected.get(name)!;
    const values = new Float32Array(want.data.length);
    type.dequantize(packed, values);
    assertEquals({ name, shape, values }, { name, shape: want.shape, values: want.data as Float32Array });
    const kept = packedGgufTypes[type.name];
    if (kept === undefined) continue;
    const writer = new PackedWriter(kept, values.length);
    writeBlocks(writer, packed, 0, name);
    assertEquals(Float32Array.from(decodePacked(kept, values.length, writer.words).values), values, `${name} packed`);
  }
}

/** A GGUF model's weights in Hugging Face's order. */
export function checkGgufWeights(golden: GoldenCase): void {
  for (const [key, expected] of golden.tensors("weights_sample.safetensors")) {
    const [, type, name] = /^([^.]+)\.(.*)$/.exec(key)!;
    using source = openGguf(ggufFiles(golden).get(type)!);
    assertEquals(source.read(name, "f32"), expected);
  }
}
