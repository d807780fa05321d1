/** Which base an adapter was trained on: written into its file, so that another base is noticed. */
import { createHash } from "node:crypto";
import { sizeOf } from "../core/aval.ts";
import { FileError } from "../core/errors.ts";
import type { Leaf } from "../core/model.ts";
import { isPacked } from "../core/packed/blocks.ts";
import { flatten } from "../core/tree.ts";
import { pathKind, readJsonObject } from "../models/load/files/byte_source.ts";
import { sha256OfFile } from "../models/load/files/file_hash.ts";
import { openModelFiles } from "../models/load/model_files.ts";
import type { FromFiles } from "../models/load/loader.ts";
import { checkMembers } from "../core/options.ts";

/** What is recorded about a base model. */
export interface BaseRecord {
  /** What it was called: a folder, a file or a hub name. */
  readonly name: string;
  /** SHA-256 of its weights' file, as `sha256sum` and the hub print it; of several shards, that of their lines in order. */
  readonly sha256: string;
  /** The type that most of its weights are stored in, as the file spells it: `F32`, `BF16`, `Q4_1`. */
  readonly stored: string;
  /** How most of its weights were held: `f32`, `bf16`, `q4_1`. */
  readonly dtype: string;
  /** The type that weights were quantised to when they were loaded, or `none`. */
  readonly quantization: string;
}

/** What is known about a model that was read from files. */
type Described = Pick<FromFiles, "path" | "config"> & { readonly params: unknown };

/** Whether a model came from files that are still there; one that was fetched into memory has none. */
export function isFromFiles(model: object): model is Described {
  return "config" in model && "path" in model && typeof model.path === "string" && pathKind(model.path) !== null;
}

/**
 * Describes the base model of an adapter. Its files are read once, a gigabyte a second.
 *
 * @throws {FileError} when they are gone
 */
export function recordBase(
  model: Pick<FromFiles, "path" | "config"> & { readonly params: unknown },
  name?: string,
): BaseRecord {
  checkMembers("recordBase", "a model that was loaded from files", model, ["path", "config", "params"]);
  return { name: name ?? lastPart(model.path), sha256: hashOf(model.path), ...storageOf(model) };
}

/** How a model's weights are stored and held. */
function storageOf({ path, config, params }: Described): Pick<BaseRecord, "stored" | "dtype" | "quantization"> {
  // By the number of weights, not by bytes: an embedding that stays wide weighs more than layers of 4 bits.
  const held = new Map<string, number>();
  for (const { aval } of flatten<Leaf>(params).leaves) count(held, aval.dtype, sizeOf(aval.shape));
  const stored = new Map<string, number>();
  using files = openModelFiles(path, [config.modelType]);
  for (const weight of files.source.names) {
    const entry = files.source.entry(weight);
    count(stored, entry.stored, sizeOf(entry.shape));
  }
  const [dtype, type] = [most(held), most(stored)];
  const quantized = isPacked(dtype as never) && dtype !== type.toLowerCase();
  return { stored: type, dtype, quantization: quantized ? dtype : "none" };
}

/** A note for whoever merges an adapter into a quantised base; null if the base is not quantised. */
export function describeDequantized(model: Described): string | null {
  const { stored, quantization } = storageOf(model);
  if (quantization === "none" && /^B?F\d+$/.test(stored)) return null;
  return `the base is quantised (${
    quantization === "none" ? stored : quantization
  }): the adapter belongs to the values ` +
    "that its codes stand for, and is merged into these; it does not belong to the model before it was quantised";
}

/** The file's or folder's own name: where it lies on this machine is nobody else's business. */
function lastPart(path: string): string {
  return path.replace(/[/\\]+$/, "").split(/[/\\]/).at(-1)!;
}

function count(table: Map<string, number>, key: string, more: number): void {
  table.set(key, (table.get(key) ?? 0) + more);
}

function most(table: ReadonlyMap<string, number>): string {
  return [...table].reduce((a, b) => b[1] > a[1] ? b : a)[0];
}

function hashOf(path: string): string {
  if (pathKind(path) === "file") return sha256OfFile(path);
  const whole = `${path}/model.safetensors`;
  if (pathKind(whole) === "file") return sha256OfFile(whole);
  const { weight_map: map } = readJsonObject(`${path}/model.safetensors.index.json`);
  const shards = [...new Set(Object.values(map as Record<string, string>))].sort();
  const lines = shards.map((shard) => `${sha256OfFile(`${path}/${shard}`)}  ${shard}\n`);
  return createHash("sha256").update(lines.join("")).digest("hex");
}

const prefix = "base.";
const keys = ["name", "sha256", "stored", "dtype", "quantization"] as const;

/** A record as metadata of a safetensors file: `base.name`, `base.sha256`, … beside PEFT's `format`. */
export function toMetadata(record: BaseRecord): Record<string, string> {
  return Object.fromEntries(keys.map((key) => [prefix + key, record[key]]));
}

/** The record in a file's metadata, or null where it has none. */
export function fromMetadata(metadata: Readonly<Record<string, string>>): BaseRecord | null {
  if (metadata[`${prefix}sha256`] === undefined) return null;
  return Object.fromEntries(keys.map((key) => [key, metadata[prefix + key] ?? "unknown"])) as unknown as BaseRecord;
}

/** `SmolLM2.gguf (Q4_1, sha256 b179c9523d0e…)`. */
export function describeBase({ name, stored, quantization, sha256 }: BaseRecord): string {
  const quantized = quantization === "none" ? "" : ` quantised to ${quantization}`;
  return `${name} (${stored}${quantized}, sha256 ${sha256.slice(0, 12)}…)`;
}

/**
 * Compares the base that an adapter was trained on with another. Returns what a person should know where the numbers are
 * nearly the same: the same file, held in another dtype.
 *
 * @throws {FileError} when it is another model, or the same quantised otherwise: an adapter belongs to the numbers that it
 * was trained with
 */
export function compareBases(adapter: string, recorded: BaseRecord, given: BaseRecord): string[] {
  if (recorded.sha256 !== given.sha256 || recorded.quantization !== given.quantization) {
    throw new FileError(
      `${adapter} was trained on ${describeBase(recorded)}, and this base is ${
        describeBase(given)
      }: use the first, or ` +
        `allow any base (anyBase: true, --any-base) if the two are meant to be the same.`,
    );
  }
  if (recorded.dtype === given.dtype || isPacked(recorded.dtype as never) || isPacked(given.dtype as never)) return [];
  return [`it was trained on the base held as ${recorded.dtype}, and here it is held as ${given.dtype}`];
}
