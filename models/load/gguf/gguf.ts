/** GGUF files: typed metadata, then tensor infos, then aligned tensor data. Format: ggml-org/ggml, docs/gguf.md. */
import { sizeOf } from "../../../core/aval.ts";
import { FileError } from "../../../core/errors.ts";
import type { ByteSource } from "../files/byte_source.ts";
import { BinaryReader } from "../files/binary_reader.ts";
import { type GgufType, ggufTypes } from "./quants.ts";

/** A metadata value; a 64-bit integer is a bigint only where a number can't hold it. */
export type GgufValue = number | bigint | boolean | string | readonly GgufValue[];

/** One tensor of a GGUF file. */
export interface GgufTensor {
  readonly type: GgufType;
  /** Outermost first, as everywhere here (the file lists the innermost first). */
  readonly shape: readonly number[];
  /** Byte offset in the file, and length. */
  readonly begin: number;
  readonly bytes: number;
}

/** The header of a GGUF file. */
export interface GgufHeader {
  readonly version: number;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
}

/** Limits that no real model reaches; they bound what a damaged length can make the reader do. */
const limits = { array: 1 << 24, string: 1 << 24, dimensions: 8, nesting: 4 };

/**
 * Reads a GGUF file's metadata and tensor list (versions 2 and 3, little-endian). Throws a {@link FileError} for a file that is
 * truncated, damaged, or of a type or version that is not read.
 */
export function readGguf(source: ByteSource): GgufHeader {
  const reader = new BinaryReader(source, (problem, remedy = "download it again; it is damaged or truncated") => {
    throw new FileError(`${source.name} is not a complete GGUF file: ${problem}; ${remedy}.`);
  });
  if (source.size < 24) reader.refuse(`it has ${source.size} bytes and its first fields take 24`);
  if (reader.u32() !== 0x46554747) {
    reader.refuse("it does not begin with the letters GGUF", "give the path of a GGUF file");
  }
  const version = reader.u32();
  if (version !== 2 && version !== 3) {
    const bigEndian = (version & 0xffff) === 0;
    reader.refuse(
      bigEndian ? "it is big-endian" : `it is of version ${version}, and 2 and 3 are read`,
      "convert the model again with a current converter",
    );
  }
  const tensorCount = reader.count("tensors", 24);
  const valueCount = reader.count("metadata values", 13);
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < valueCount; i++) {
    const key = reader.string(limits.string);
    if (metadata.has(key)) reader.refuse(`its metadata names ${JSON.stringify(key)} twice`);
    metadata.set(key, readValue(reader, reader.u32(), key, 0));
  }
  return { version, metadata, tensors: readTensors(reader, tensorCount, alignmentOf(reader, metadata)) };
}

function readValue(reader: BinaryReader, type: number, key: string, depth: number): GgufValue {
  switch (type) {
    case 0:
      return reader.u8();
    case 1:
      return reader.u8() << 24 >> 24;
    case 2:
      return reader.u16();
    case 3:
      return reader.u16() << 16 >> 16;
    case 4:
      return reader.u32();
    case 5:
      return reader.u32() | 0;
    case 6:
      return reader.f32();
    case 7:
      return readBool(reader, key);
    case 8:
      return reader.string(limits.string);
    case 9:
      return readArray(reader, key, depth);
    case 10:
      return shrink(reader.u64());
    case 11:
      return shrink(BigInt.asIntN(64, reader.u64()));
    case 12:
      return reader.f64();
    default:
      return reader.refuse(`its metadata ${JSON.stringify(key)} has the unknown value type ${type}`);
  }
}

function readBool(reader: BinaryReader, key: string): boolean {
  const value = reader.u8();
  if (value > 1) reader.refuse(`its metadata ${JSON.stringify(key)} is a bool of value ${value}`);
  return value === 1;
}

/** The fewest bytes a value of each metadata type takes; tells whether an array's claimed length can be true. */
const minBytes = [1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8];

function readArray(reader: BinaryReader, key: string, depth: number): GgufValue[] {
  const type = reader.u32();
  if (type >= minBytes.length) {
    reader.refuse(`its metadata ${JSON.stringify(key)} is an array of unknown type ${type}`);
  }
  if (depth >= limits.nesting) reader.refuse(`its metadata ${JSON.stringify(key)} is nested too deeply`);
  const length = reader.count(`elements of ${JSON.stringify(key)}`, minBytes[type]);
  if (length > limits.array) reader.refuse(`its metadata ${JSON.stringify(key)} has ${length} elements`);
  const values: GgufValue[] = [];
  for (let i = 0; i < length; i++) values.push(readValue(reader, type, key, depth + 1));
  return values;
}

function shrink(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/**
 * The value of a key that may be given layer by layer; undefined where it is absent. Throws a {@link FileError} where layers
 * differ, or the list is not as long as there are layers.
 */
export function oneForAllLayers(
  path: string,
  key: string,
  metadata: ReadonlyMap<string, GgufValue>,
): GgufValue | undefined {
  const value = metadata.get(key);
  if (typeof value !== "object") return value;
  const layers = metadata.get(`${metadata.get("general.architecture")}.block_count`);
  if (value.length !== layers) {
    throw new FileError(
      `${path} has ${value.length} values of ${key} for ${layers} layers: download it again; it is damaged.`,
    );
  }
  const other = value.find((one) => one !== value[0]);
  if (other === undefined) return value[0];
  throw new FileError(
    `${path} says ${key} is ${value[0]} in one layer and ${other} in another: only layers that are alike ` +
      `are built, choose another model.`,
  );
}

function alignmentOf(reader: BinaryReader, metadata: ReadonlyMap<string, GgufValue>): number {
  const alignment = metadata.get("general.alignment") ?? 32;
  if (typeof alignment === "number" && alignment >= 8 && alignment % 8 === 0 && alignment <= 1 << 20) return alignment;
  return reader.refuse(`its general.alignment is ${alignment}, which is not a multiple of 8 up to ${1 << 20}`);
}

function readTensors(reader: BinaryReader, count: number, alignment: number): Map<string, GgufTensor> {
  const infos: { name: string; shape: number[]; type: number; offset: number }[] = [];
  for (let i = 0; i < count; i++) {
    const name = reader.string(limits.string);
    const dimensions = reader.u32();
    if (dimensions > limits.dimensions) reader.refuse(`${name} has ${dimensions} dimensions`);
    const shape = Array.from({ length: dimensions }, () => reader.size(`a dimension of ${name}`)).reverse();
    infos.push({ name, shape, type: reader.u32(), offset: reader.size(`the offset of ${name}`) });
  }
  const data = Math.ceil(reader.at / alignment) * alignment;
  const tensors = new Map<string, GgufTensor>();
  for (const info of infos) {
    if (tensors.has(info.name)) reader.refuse(`it names the tensor ${info.name} twice`);
    tensors.set(info.name, checkTensor(reader, info, data, alignment));
  }
  let end = data, before = "the header";
  for (const [name, tensor] of [...tensors].sort(([, a], [, b]) => a.begin - b.begin)) {
    if (tensor.begin < end) reader.refuse(`${name} begins inside ${before}`);
    [end, before] = [tensor.begin + tensor.bytes, name];
  }
  if (end > reader.source.size) {
    reader.refuse(
      `${before} ends at byte ${end} and the file has ${reader.source.size}`,
      "download it again; it is truncated",
    );
  }
  return tensors;
}

function checkTensor(
  reader: BinaryReader,
  { name, shape, type: number, offset }: { name: string; shape: number[]; type: number; offset: number },
  data: number,
  alignment: number,
): GgufTensor {
  const type = ggufTypes.get(number);
  if (type === undefined) {
    const known = [...ggufTypes.values()].map((t) => t.name).join(", ");
    return reader.refuse(
      `${name} has the tensor type ${typeNames.get(number) ?? number}, and those read are ${known}`,
      "use the model in one of these types",
    );
  }
  const size = sizeOf(shape);
  const row = shape.at(-1) ?? 1;
  if (row % type.values !== 0) {
    reader.refuse(`${name} has rows of ${row} values and ${type.name} blocks hold ${type.values}`);
  }
  if (offset % alignment !== 0) {
    reader.refuse(`${name} is at offset ${offset}, which is not a multiple of ${alignment}`);
  }
  const bytes = size / type.values * type.bytes;
  if (!Number.isSafeInteger(bytes)) reader.refuse(`${name} has the shape [${shape}]`);
  return { type, shape, begin: data + offset, bytes };
}

/** Names of types that are not read, for the sentence that says so. */
const typeNames: ReadonlyMap<number, string> = new Map([
  ...([[9, "Q8_1"], [15, "Q8_K"], [16, "IQ2_XXS"], [17, "IQ2_XS"], [18, "IQ3_XXS"], [19, "IQ1_S"]] as const),
  ...([[21, "IQ3_S"], [22, "IQ2_S"], [24, "I8"], [25, "I16"], [26, "I32"], [27, "I64"], [28, "F64"]] as const),
  ...([[29, "IQ1_M"], [34, "TQ1_0"], [35, "TQ2_0"], [39, "MXFP4"]] as const),
]);
