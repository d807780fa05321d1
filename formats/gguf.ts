/** Adapters as llama.cpp reads them: one GGUF file (ggml-org/llama.cpp, `src/llama-adapter.cpp`). */
import { sizeOf } from "../core/aval.ts";
import { FileError } from "../core/errors.ts";
import type { HostTensor } from "../core/tensor.ts";
import { refuseLink, writeFileAtomic } from "../models/load/files/atomic_file.ts";
import { openBytes } from "../models/load/files/byte_source.ts";
import type { ModelConfig } from "../models/load/config.ts";
import { type GgufHeader, readGguf } from "../models/load/gguf/gguf.ts";
import { type GgufLayout, readSizes } from "../models/families/family.ts";
import { familyOf } from "../models/families/mod.ts";
import { type GgufFamily, ggufModules } from "../models/load/gguf/names.ts";
import { rotateHalfRows } from "../models/load/gguf/source.ts";
import { encodeGguf } from "../models/load/gguf/write.ts";
import { listed, matchName } from "../models/load/weights.ts";
import type { AdapterFiles } from "./peft/files.ts";
import { filesFromPairs, refuseTied, type ScaledPair, scaledPairs, times, transposed } from "./adapter_pairs.ts";
import { mostFrequent } from "../lora/methods/lora.ts";
import { isFinite } from "./host_tensors.ts";
import { checkMembers, checkPath } from "../core/options.ts";

/** A module in a GGUF file: its tensor there, and the order of that tensor's rows. */
interface Place {
  readonly tensor: string;
  readonly layout: GgufLayout;
}

/**
 * Writes an adapter as llama.cpp reads it (`llama-cli --lora FILE`, `Llama(lora_path=FILE)`). The file knows one alpha, and
 * llama.cpp scales by alpha / r: it is chosen for most modules, and what another needs more or less (alpha_pattern, rsLoRA's
 * √r) goes into its B. Rows of q's and k's B are in llama.cpp's order; GPT-2's matrices need no transposing, since A and B
 * are [r, in] and [out, r] in both.
 *
 * @param config the base model's configuration
 * @throws {FileError} for what the format can't express, a module that the base does not have, or values that are not finite
 */
export function writeGgufAdapter(path: string, adapter: AdapterFiles, config: ModelConfig): void {
  checkPath("writeGgufAdapter", path);
  refuseLink(path);
  checkMembers("writeGgufAdapter", "an adapter's files, as readAdapter gives them", adapter, ["config", "tensors"]);
  const pairs = scaledPairs(adapter, { format: "llama.cpp's adapter format", magnitudes: false });
  const { architecture, places } = placesOf(config);
  refuseTied(adapter, pairs, config);
  const positions = pairs.find(({ module }) => {
    const found = matchName(module, places);
    return found !== null && places.get(found)!.tensor === "position_embd.weight";
  });
  if (positions !== undefined) {
    throw new FileError(
      `${adapter.path} adapts ${positions.module}, and llama.cpp applies no adapter to positions. Merge it into its base ` +
        `(lowrank merge) and convert the merged model.`,
    );
  }
  const unknown = pairs.filter(({ module }) => matchName(module, places) === null).map(({ module }) => module);
  if (unknown.length > 0) {
    throw new FileError(
      `${adapter.path} is not for ${config.path}. ${listed("Modules that llama.cpp has no name for there", unknown)}` +
        `Give the model that it was trained on.`,
    );
  }
  // llama.cpp takes an alpha of 0 for "no scaling".
  const alphas = pairs.map(({ r, scaling }) => Math.fround(scaling * r)).filter((alpha) => alpha !== 0);
  const alpha = alphas.length === 0 ? 1 : mostFrequent(alphas);
  const tensors = new Map<string, HostTensor>();
  for (const { module, A, B, r, scaling, embedding } of pairs) {
    const { tensor, layout } = places.get(matchName(module, places)!)!;
    const factor = Math.fround(scaling * r) === alpha ? 1 : scaling * r / alpha;
    // A lookup takes rows of A, so that its tokens are the outer dimension.
    tensors.set(`${tensor}.lora_a`, embedding ? transposed(A) : A);
    tensors.set(`${tensor}.lora_b`, inOrder(times(B, factor), layout, config, "to"));
  }
  for (const [name, tensor] of tensors) {
    if (!isFinite(tensor)) {
      throw new FileError(`${path} is not written: ${name} would hold values that are not finite.`);
    }
  }
  const metadata = new Map<string, string | { f32: number }>([
    ["general.architecture", architecture],
    ["general.type", "adapter"],
    ["adapter.type", "lora"],
    ["adapter.lora.alpha", { f32: alpha }],
    ...Object.entries(adapter.metadata).filter(([key]) => key !== "format"),
  ]);
  writeFileAtomic(path, encodeGguf(metadata, tensors));
}

/**
 * Reads a llama.cpp adapter as what PEFT's files would say. Its base's configuration is needed to put rows of q and k back in
 * Hugging Face's order.
 *
 * @throws {FileError} for a damaged file, one that is no LoRA adapter, or one of another model
 */
export function readGgufAdapter(path: string, config: ModelConfig): AdapterFiles {
  checkPath("readGgufAdapter", path);
  using source = openBytes(path);
  const header = readGguf(source);
  const { architecture, places } = placesOf(config);
  const alpha = checkHeader(path, header, architecture, config);
  const modules = new Map([...places].map(([module, place]) => [place.tensor, { module, ...place }]));
  const read = (name: string): ScaledPair["A"] => {
    const { type, shape, begin, bytes } = header.tensors.get(name)!;
    const packed = new Uint8Array(bytes);
    source.read(begin, packed);
    const data = new Float32Array(sizeOf(shape));
    type.dequantize(packed, data);
    return { shape, dtype: "f32", data };
  };
  const names = [...header.tensors.keys()];
  const stemOf = (name: string) => name.replace(/\.lora_[ab]$/, "");
  const wrong = names.filter((name) => stemOf(name) === name || !modules.has(stemOf(name)));
  const stems = new Set(names.filter((name) => !wrong.includes(name)).map(stemOf));
  const halves = [...stems].flatMap((stem) => [`${stem}.lora_a`, `${stem}.lora_b`]).filter((n) =>
    !header.tensors.has(n)
  );
  if (wrong.length + halves.length > 0) {
    throw new FileError(
      `${path} is not a complete adapter for ${config.path}. ${listed("Missing", halves)}${
        listed("Unexpected", wrong)
      }` +
        `Give the model that it was trained on.`,
    );
  }
  const pairs = [...stems].map((stem): ScaledPair => {
    const { module, layout } = modules.get(stem)!;
    const embedding = stem === "token_embd.weight";
    const [a, b] = [read(`${stem}.lora_a`), read(`${stem}.lora_b`)];
    const A = embedding ? transposed(a) : a;
    if (a.shape.length !== 2 || b.shape.length !== 2 || A.shape[0] !== b.shape[1]) {
      throw new FileError(
        `${path} has a ${stem}.lora_a of [${a.shape}] and a ${stem}.lora_b of [${b.shape}]: no pair.`,
      );
    }
    const r = A.shape[0];
    return {
      ...{ module, embedding, A, r },
      ...{ B: inOrder(b, layout, config, "from"), scaling: alpha === 0 ? 1 : alpha / r },
    };
  });
  const metadata = Object.fromEntries(
    [...header.metadata].filter(([key, value]) => key.startsWith("base.") && typeof value === "string"),
  ) as Record<string, string>;
  const fanInFanOut = [...stems].some((stem) => modules.get(stem)!.layout === "transposed");
  return filesFromPairs(path, pairs, { baseModel: null, fanInFanOut, metadata: { format: "pt", ...metadata } });
}

/** The file's alpha. */
function checkHeader(
  path: string,
  { metadata }: GgufHeader,
  architecture: string,
  { path: base }: ModelConfig,
): number {
  const text = (key: string) => String(metadata.get(key) ?? "(none)");
  if (text("general.type") !== "adapter" || text("adapter.type") !== "lora") {
    throw new FileError(
      `${path} is of the general.type ${text("general.type")} and the adapter.type ${
        text("adapter.type")
      }, where a LoRA ` +
        `adapter has "adapter" and "lora": give an adapter's file.`,
    );
  }
  if (text("general.architecture") !== architecture) {
    throw new FileError(
      `${path} is for the architecture ${
        text("general.architecture")
      }, and ${base} is ${architecture}: give the model ` +
        `that it was trained on.`,
    );
  }
  const alpha = metadata.get("adapter.lora.alpha") ?? 0;
  if (typeof alpha === "number" && Number.isFinite(alpha)) return alpha;
  throw new FileError(`${path} says adapter.lora.alpha is ${alpha}, where a number is expected.`);
}

/** The modules of a model that can be adapted in llama.cpp, by their paths. */
function placesOf(config: ModelConfig): { architecture: string; places: Map<string, Place> } {
  const family = familyOf(config.modelType);
  if (family?.gguf === undefined) {
    throw new FileError(
      `${config.path} is of the architecture ${config.modelType}, whose GGUF names are not known here.`,
    );
  }
  const places = ggufModules(family as GgufFamily, config.integer(family.keys.layers));
  return { architecture: family.gguf.name, places };
}

/** B's rows in llama.cpp's order, or back from it. */
function inOrder(b: ScaledPair["B"], layout: GgufLayout, config: ModelConfig, way: "to" | "from"): ScaledPair["B"] {
  if (layout !== "heads" && layout !== "kvHeads") return b;
  const { heads, kvHeads } = readSizes(familyOf(config.modelType)!, config);
  const own = layout === "heads" ? heads : kvHeads;
  const [rows, r] = b.shape;
  const rowOf = rotateHalfRows(rows, own, `a B of ${config.path}`);
  const data = new Float32Array(b.data.length);
  for (let row = 0; row < rows; row++) {
    const [to, from] = way === "to" ? [row, rowOf(row)] : [rowOf(row), row];
    data.set(b.data.subarray(from * r, (from + 1) * r), to * r);
  }
  return { ...b, data };
}
