/** What tells one base model from another, at the price of reading a little of it. */
import { createHash } from "node:crypto";
import { openBytes, pathKind } from "../models/load/byte_source.ts";

const samples = 64, sampleBytes = 2 ** 16;

/**
 * A short hash of a model's files: config.json whole, and of the weights their sizes and 64 pieces of 64 kB, evenly spread.
 * Any two models that were trained apart differ in every piece.
 */
export function fingerprintModel(path: string): string {
  const hash = createHash("sha256");
  for (const file of pathKind(path) === "folder" ? weightFiles(path) : [path]) {
    using source = openBytes(file);
    hash.update(`${file.slice(path.length)} ${source.size}\n`);
    const step = Math.max(sampleBytes, Math.floor(source.size / samples));
    for (let at = 0; at < source.size; at += step) {
      const piece = new Uint8Array(Math.min(sampleBytes, source.size - at));
      source.read(at, piece);
      hash.update(piece);
    }
  }
  return hash.digest("hex").slice(0, 16);
}

function weightFiles(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name)
    .filter((name) => name === "config.json" || name.endsWith(".safetensors")).sort()
    .map((name) => `${folder}/${name}`);
}
