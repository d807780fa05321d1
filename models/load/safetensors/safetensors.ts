import { sizeOf } from "../../../core/aval.ts";
import type { DType, HostArray } from "../../../core/dtype.ts";
import type { HostTensor } from "../../../core/tensor.ts";
import { FileError } from "../../../core/errors.ts";
import { writeFileAtomic } from "../files/atomic_file.ts";
import { type ByteSource, openBytes } from "../files/byte_source.ts";
import { convertInto, storedTypes } from "../convert.ts";
import { elementBits, readHeader, type SafetensorsEntry } from "./header.ts";
import { destination, type WeightEntry, type WeightSource } from "../weights.ts";

/** A safetensors file: a {@link WeightSource} that also has the file's metadata and raw bytes. */
export interface SafetensorsSource extends WeightSource {
  readonly metadata: Readonly<Record<string, string>>;
  /** A tensor's bytes as the file holds them, whatever its dtype. */
  bytes(name: string): Uint8Array;
}

/** Tensors are read in pieces of this many bytes, so that a conversion needs no second copy of a large one. */
const pieceBytes = 1 << 20;

/**
 * Opens a safetensors file: checks its header, reads no tensor yet. F32, F16, BF16, I32, U32 are read as they are; F64 as f32;
 * I64, I16, I8 as i32 and U64, U16, U8 as u32 where the values fit (an error says where not); BOOL as bool. The 4-, 6- and
 * 8-bit floats and C64 can only be had by `bytes`. Format: huggingface/safetensors, README "Format".
 */
export function openSafetensors(file: string | ByteSource): SafetensorsSource {
  const source = typeof file === "string" ? openBytes(file) : file;
  try {
    return safetensorsSource(source);
  } catch (error) {
    source[Symbol.dispose]();
    throw error;
  }
}

function safetensorsSource(source: ByteSource): SafetensorsSource {
  const { metadata, entries } = readHeader(source);
  const find = (name: string): SafetensorsEntry => {
    const entry = entries.get(name);
    if (entry === undefined) throw new FileError(`There is no tensor ${name} in ${source.name}.`);
    return entry;
  };
  return {
    path: source.name,
    names: [...entries.keys()],
    metadata,
    entry(name): WeightEntry {
      const { stored, shape, begin, end } = find(name);
      return { stored, shape, dtype: storedTypes[stored]?.as ?? "u32", bytes: end - begin };
    },
    bytes(name) {
      const { begin, end } = find(name);
      const bytes = new Uint8Array(end - begin);
      source.read(begin, bytes);
      return bytes;
    },
    read(name, dtype, into): HostTensor {
      const entry = find(name);
      const type = storedTypes[entry.stored];
      if (type === undefined) {
        throw new FileError(
          `${name} in ${source.name} is ${entry.stored}, which is not read: convert it to F32, F16 or BF16.`,
        );
      }
      const aval = { shape: entry.shape, dtype: dtype ?? type.as };
      const data = destination(source.name, name, aval, into);
      readPieces(source, entry, type.bytes, aval.dtype, data, `${name} in ${source.name}`);
      return { ...aval, data };
    },
    [Symbol.dispose]: () => source[Symbol.dispose](),
  };
}

function readPieces(
  source: ByteSource,
  entry: SafetensorsEntry,
  elementBytes: number,
  dtype: DType,
  out: HostArray,
  what: string,
): void {
  const piece = new Uint8Array(Math.min(pieceBytes, entry.end - entry.begin));
  for (let at = entry.begin; at < entry.end; at += piece.length) {
    const bytes = piece.subarray(0, Math.min(piece.length, entry.end - at));
    source.read(at, bytes);
    convertInto(entry.stored, bytes, dtype, out, (at - entry.begin) / elementBytes, what);
  }
}

const storedNames: Readonly<Partial<Record<DType, string>>> = {
  f32: "F32",
  f16: "F16",
  bf16: "BF16",
  i32: "I32",
  u32: "U32",
  bool: "BOOL",
};

/**
 * The bytes of a safetensors file, in parts that share memory with the tensors. Deterministic, and laid out as the reference
 * writer does: wider element types first, then by name; the header padded with spaces to 8 bytes.
 */
export function encodeSafetensors(
  tensors: ReadonlyMap<string, HostTensor>,
  metadata: Readonly<Record<string, string>> = { format: "pt" },
): Uint8Array[] {
  const kinds = Object.keys(elementBits);
  const rank = (tensor: HostTensor) => kinds.indexOf(storedNames[tensor.dtype]!);
  const sorted = [...tensors].sort(([a, x], [b, y]) => rank(y) - rank(x) || compareCodePoints(a, b));
  const lines = [`"__metadata__":${JSON.stringify(Object.fromEntries(Object.entries(metadata).sort()))}`];
  const parts: Uint8Array[] = [];
  let at = 0;
  for (const [name, tensor] of sorted) {
    if (name === "__metadata__") throw new FileError("A tensor can't be named __metadata__ in a safetensors file.");
    if (storedNames[tensor.dtype] === undefined) {
      throw new FileError(
        `${name} is packed (${tensor.dtype}), and safetensors files hold no such type: dequantize it.`,
      );
    }
    if (tensor.data.length !== sizeOf(tensor.shape)) {
      throw new FileError(
        `Cannot write ${name}: its shape is [${tensor.shape}] and it has ${tensor.data.length} values.`,
      );
    }
    const data = tensor.dtype === "bool" ? Uint8Array.from(tensor.data, (v) => v === 0 ? 0 : 1) : tensor.data;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const entry = { dtype: storedNames[tensor.dtype], shape: tensor.shape, data_offsets: [at, at += bytes.length] };
    lines.push(`${JSON.stringify(name)}:${JSON.stringify(entry)}`);
    parts.push(bytes);
  }
  const text = new TextEncoder().encode(`{${lines.join(",")}}`);
  const padded = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20);
  new DataView(padded.buffer).setBigUint64(0, BigInt(padded.length - 8), true);
  padded.set(text, 8);
  return [padded, ...parts];
}

/** Writes a safetensors file atomically: the path holds its old bytes or all of the new ones. */
export function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, HostTensor>,
  metadata?: Readonly<Record<string, string>>,
): void {
  writeFileAtomic(path, encodeSafetensors(tensors, metadata));
}

/** Orders strings by Unicode code points, as the reference writer does (UTF-16 units differ beyond the first plane). */
function compareCodePoints(a: string, b: string): number {
  const x = [...a], y = [...b];
  for (let i = 0; i < x.length && i < y.length; i++) {
    if (x[i] !== y[i]) return x[i].codePointAt(0)! - y[i].codePointAt(0)!;
  }
  return x.length - y.length;
}
