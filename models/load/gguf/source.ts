import { sizeOf } from "../../../core/aval.ts";
import { type DType, type HostArray, hostArray, isFloat } from "../../../core/dtype.ts";
import type { HostTensor } from "../../../core/tensor.ts";
import { FileError } from "../../../core/errors.ts";
import { isPacked, type PackedType } from "../../../core/packed/blocks.ts";
import { PackedWriter } from "../../../core/packed/writer.ts";
import { type ByteSource, openBytes } from "../files/byte_source.ts";
import { narrowInto } from "../convert.ts";
import { type GgufHeader, type GgufTensor, type GgufValue, oneForAllLayers, readGguf } from "./gguf.ts";
import { checkGgufKeys } from "./keys.ts";
import { packedGgufTypes, writeBlocks } from "./packed.ts";
import type { GgufLayout } from "../../families/family.ts";
import { ggufArchitectures, ggufFamily, huggingFaceName } from "./names.ts";
import { destination, type WeightEntry, type WeightSource } from "../weights.ts";

/** A GGUF file as a source of weights under Hugging Face names, shapes and row order; metadata beside it. */
export interface GgufSource extends WeightSource {
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** The tensors under the file's own names. */
  readonly tensors: ReadonlyMap<string, GgufTensor>;
  /** What a person should know of the file's keys. */
  readonly notes: readonly string[];
  /** A tensor by the file's own name, as f32 in the file's own order. */
  readOwn(ownName: string): Float32Array;
}

/** Values dequantised at a time, at least one row. */
const pieceValues = 1 << 18;

/**
 * Opens a GGUF model. What `read` returns is what the Hugging Face checkpoint of that model holds: rows of q and k are put
 * back from llama.cpp's order (row `h·d + 2i + j` of the file is row `h·d + j·d/2 + i`), GPT-2's matrices are transposed from
 * (out, in) to Conv1D's (in, out). Quantised types are read as f32 unless another float dtype is asked for.
 */
export function openGguf(file: string | ByteSource): GgufSource {
  const source = typeof file === "string" ? openBytes(file) : file;
  try {
    return ggufSource(source, readGguf(source));
  } catch (error) {
    source[Symbol.dispose]();
    throw error;
  }
}

interface Located {
  readonly tensor: GgufTensor;
  readonly shape: readonly number[];
  readonly layout: GgufLayout;
}

function ggufSource(source: ByteSource, header: GgufHeader): GgufSource {
  const architecture = header.metadata.get("general.architecture");
  const family = typeof architecture === "string" ? ggufFamily(architecture) : undefined;
  if (typeof architecture !== "string" || family === undefined) {
    throw new FileError(
      `${source.name} is of the architecture ${architecture ?? "(none named)"}, and GGUF files are read of ` +
        `${ggufArchitectures.join(", ")}.`,
    );
  }
  const notes = checkGgufKeys({ path: source.name, metadata: header.metadata }, architecture);
  const located = new Map<string, Located>();
  for (const [ownName, tensor] of header.tensors) {
    if (family.gguf.ignore?.includes(ownName)) continue;
    const { name, layout } = huggingFaceName(family, ownName);
    // A bias is a row: nothing to transpose.
    const turned = layout === "transposed" && tensor.shape.length === 2;
    const shape = turned ? [tensor.shape[1], tensor.shape[0]] : tensor.shape;
    located.set(name, { tensor, shape, layout: layout === "transposed" && !turned ? "same" : layout });
  }
  const find = (name: string): Located => {
    const found = located.get(name);
    if (found === undefined) throw new FileError(`There is no tensor for ${name} in ${source.name}.`);
    return found;
  };
  return {
    path: source.name,
    names: [...located.keys()],
    metadata: header.metadata,
    tensors: header.tensors,
    notes,
    readOwn(ownName) {
      const tensor = header.tensors.get(ownName);
      if (tensor === undefined) throw new FileError(`There is no tensor ${ownName} in ${source.name}.`);
      const out = new Float32Array(sizeOf(tensor.shape));
      readRows(source, tensor, "f32", out, null);
      return out;
    },
    entry(name): WeightEntry {
      const { tensor, shape, layout } = find(name);
      // Blocks run along rows: what has to be transposed can't stay packed.
      const packed = layout === "transposed" ? undefined : packedGgufTypes[tensor.type.name];
      const entry = { shape, dtype: defaultDType(tensor), stored: tensor.type.name, bytes: tensor.bytes };
      return packed === undefined ? entry : { ...entry, packed };
    },
    read(name, dtype, into): HostTensor {
      const { tensor, shape, layout } = find(name);
      const aval = { shape, dtype: dtype ?? defaultDType(tensor) };
      const rowOf = layout === "heads" || layout === "kvHeads"
        ? rotateHalfRows(tensor.shape[0], headsOf(header, architecture, layout, source.name), name)
        : null;
      if (isPacked(aval.dtype) && aval.dtype === this.entry(name).packed) {
        return { ...aval, data: readPacked(source, tensor, aval.dtype, name, rowOf) };
      }
      if (!isFloat(aval.dtype)) {
        throw new FileError(`${name} in ${source.name} is ${tensor.type.name}, no ${aval.dtype}.`);
      }
      const data = destination(source.name, name, aval, into);
      if (layout === "transposed") readTransposed(source, tensor, aval.dtype, data);
      else if (layout === "fromOne") narrowInto(fromOne(source, tensor), aval.dtype, data, 0);
      else readRows(source, tensor, aval.dtype, data, rowOf);
      return { ...aval, data };
    },
    [Symbol.dispose]: () => source[Symbol.dispose](),
  };
}

/** A norm's scale without the 1 that it is added to. */
function fromOne(source: ByteSource, tensor: GgufTensor): Float32Array {
  const values = new Float32Array(sizeOf(tensor.shape));
  readRows(source, tensor, "f32", values, null);
  return values.map((x) => x - 1);
}

function defaultDType(tensor: GgufTensor): DType {
  return tensor.type.name === "F16" ? "f16" : tensor.type.name === "BF16" ? "bf16" : "f32";
}

function headsOf(header: GgufHeader, architecture: string, layout: GgufLayout, path: string): number {
  const count = (name: string) => oneForAllLayers(path, `${architecture}.attention.${name}`, header.metadata);
  const heads = (layout === "kvHeads" ? count("head_count_kv") : undefined) ?? count("head_count");
  if (typeof heads === "number" && Number.isInteger(heads) && heads > 0) return heads;
  throw new FileError(`${path} does not say how many heads its attention has: download it again; it is damaged.`);
}

/** Where each row of a q or k matrix in the file belongs for rotate-half attention. */
export function rotateHalfRows(rows: number, heads: number, name: string): (row: number) => number {
  const d = rows / heads;
  if (!Number.isInteger(d) || d % 2 !== 0) {
    throw new FileError(`${name} has ${rows} rows, which ${heads} heads can't share in pairs: the file is damaged.`);
  }
  return (row) => row - row % d + (row % 2) * (d / 2) + (row % d >> 1);
}

/** Calls `visit(values, first value's index, count)` for pieces of whole rows, in order, through one scratch array. */
function eachPiece(
  source: ByteSource,
  tensor: GgufTensor,
  visit: (values: Float32Array, row: number, rows: number) => void,
): void {
  const size = sizeOf(tensor.shape);
  if (size === 0) return;
  const width = tensor.shape.at(-1) ?? 1;
  const rows = size / width;
  const step = Math.min(rows, Math.max(1, Math.floor(pieceValues / width)));
  const rowBytes = width / tensor.type.values * tensor.type.bytes;
  const bytes = new Uint8Array(step * rowBytes);
  const values = new Float32Array(step * width);
  for (let row = 0; row < rows; row += step) {
    const count = Math.min(step, rows - row);
    source.read(tensor.begin + row * rowBytes, bytes.subarray(0, count * rowBytes));
    tensor.type.dequantize(bytes.subarray(0, count * rowBytes), values);
    visit(values, row, count);
  }
}

function readRows(
  source: ByteSource,
  tensor: GgufTensor,
  dtype: DType,
  out: HostArray,
  rowOf: ((row: number) => number) | null,
): void {
  // A vector that is permuted (a bias of q or k) moves value by value.
  const width = rowOf !== null && tensor.shape.length === 1 ? 1 : tensor.shape.at(-1) ?? 1;
  eachPiece(source, tensor, (values, first, rows) => {
    const begin = first * (tensor.shape.at(-1) ?? 1), count = rows * (tensor.shape.at(-1) ?? 1);
    if (rowOf === null) return narrowInto(values.subarray(0, count), dtype, out, begin);
    for (let i = 0; i < count; i += width) {
      narrowInto(values.subarray(i, i + width), dtype, out, rowOf((begin + i) / width) * width);
    }
  });
}

/** The blocks of a matrix as packed words, its rows in their new order. */
function readPacked(
  source: ByteSource,
  tensor: GgufTensor,
  type: PackedType,
  name: string,
  rowOf: ((row: number) => number) | null,
): Uint32Array<ArrayBuffer> {
  const size = sizeOf(tensor.shape), width = tensor.shape.at(-1)!;
  const writer = new PackedWriter(type, size);
  const rowBytes = width / tensor.type.values * tensor.type.bytes;
  const rows = size / width, most = Math.max(1, Math.floor(pieceValues / width));
  const bytes = new Uint8Array(Math.min(rows, most) * rowBytes);
  for (let first = 0; first < rows; first += most) {
    const piece = bytes.subarray(0, Math.min(most, rows - first) * rowBytes);
    source.read(tensor.begin + first * rowBytes, piece);
    for (let at = 0, row = first; at < piece.length; at += rowBytes, row++) {
      writeBlocks(
        writer,
        piece.subarray(at, at + rowBytes),
        (rowOf?.(row) ?? row) * width,
        `${name} in ${source.name}`,
      );
    }
  }
  return writer.words;
}

function readTransposed(source: ByteSource, tensor: GgufTensor, dtype: DType, out: HostArray): void {
  const [rows, columns] = tensor.shape;
  const rounded = hostArray(dtype, Math.min(rows * columns, Math.max(pieceValues, columns)));
  eachPiece(source, tensor, (values, first, count) => {
    narrowInto(values.subarray(0, count * columns), dtype, rounded, 0);
    // Column by column, so that writes are runs.
    for (let c = 0; c < columns; c++) {
      for (let r = 0; r < count; r++) out[c * rows + first + r] = rounded[r * columns + c];
    }
  });
}
