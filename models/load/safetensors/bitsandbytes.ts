/** Weights that bitsandbytes has packed into 4 bits, as transformers saves them (bitsandbytes, `functional.QuantState`). */
import { sizeOf } from "../../../core/aval.ts";
import type { DType, HostArray } from "../../../core/dtype.ts";
import { FileError } from "../../../core/errors.ts";
import { codeTables, isPacked, type PackedType } from "../../../core/packed/blocks.ts";
import { PackedWriter } from "../../../core/packed/writer.ts";
import type { HostTensor } from "../../../core/tensor.ts";
import { parseJsonObject } from "../files/byte_source.ts";
import { narrowInto } from "../convert.ts";
import { destination, type WeightEntry, type WeightSource } from "../weights.ts";

/** The file's description of one packed weight. */
interface State {
  readonly name: string;
  readonly type: "nf4" | "fp4";
  readonly blocksize: number;
  readonly shape: readonly number[];
  readonly dtype: DType;
  /** Where the scales are quantised too: how many share a scale, and what is added to each. */
  readonly nested: { readonly blocksize: number; readonly offset: number } | null;
}

const dtypes: Readonly<Record<string, DType>> = { float32: "f32", float16: "f16", bfloat16: "bf16" };
const parts = ["absmax", "quant_map", "nested_absmax", "nested_quant_map"];
const stateName = /^(.+)\.quant_state\.bitsandbytes__(?:nf4|fp4)$/;

/**
 * The same weights with those that bitsandbytes packed (NF4 or FP4, any block, scales quantised or not) as matrices of their
 * own shape, which are read dequantised or stay packed. Disposing of it closes the source.
 */
export function unpackBitsandbytes(source: WeightSource): WeightSource {
  const packed = new Map(source.names.flatMap((name) => {
    const weight = stateName.exec(name)?.[1];
    return weight === undefined ? [] : [[weight, readState(source, weight, name)] as const];
  }));
  if (packed.size === 0) return source;
  const isPart = (name: string) =>
    stateName.test(name) ||
    parts.some((part) => name.endsWith(`.${part}`) && packed.has(name.slice(0, -part.length - 1)));
  return {
    path: source.path,
    names: source.names.filter((name) => !isPart(name)),
    entry(name): WeightEntry {
      const state = packed.get(name);
      if (state === undefined) return source.entry(name);
      const bytes = source.names.filter((n) => n === name || n.startsWith(`${name}.`)).reduce(
        (sum, n) => sum + source.entry(n).bytes,
        0,
      );
      const stays = packedAs(source, state);
      return {
        ...{ stored: state.type.toUpperCase(), shape: state.shape, dtype: state.dtype, bytes },
        ...(stays !== null && { packed: stays }),
      };
    },
    read(name, dtype, into): HostTensor {
      const state = packed.get(name);
      return state === undefined
        ? source.read(name, dtype, into)
        : readPacked(source, state, dtype ?? state.dtype, into);
    },
    [Symbol.dispose]: () => source[Symbol.dispose](),
  };
}

function readState(source: WeightSource, name: string, file: string): State {
  const what = `${file} in ${source.path}`;
  const stored = parseJsonObject(new TextDecoder().decode(bytesOf(source, file)), what);
  const { quant_type: type, blocksize, shape, dtype, nested_blocksize: each, nested_offset: offset } = stored;
  const isCount = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) > 0;
  const isWhole = Array.isArray(shape) && shape.every(isCount) && isCount(blocksize) && blocksize % 2 === 0;
  if ((type !== "nf4" && type !== "fp4") || !isWhole || !Object.hasOwn(dtypes, String(dtype))) {
    throw new FileError(
      `${what} says ${JSON.stringify(stored)}, which is not a known state of a 4-bit weight.`,
    );
  }
  const nested = each === undefined ? null : { blocksize: each as number, offset: offset as number };
  const state = { name, type, blocksize, shape, dtype: dtypes[String(dtype)], nested } as State;
  const blocks = Math.ceil(sizeOf(state.shape) / state.blocksize);
  const sizes: [string, number][] = [
    ["", Math.ceil(sizeOf(state.shape) / 2)],
    [".absmax", blocks * (nested ? 1 : 4)],
    [".quant_map", 64],
    ...(nested
      ? [[".nested_absmax", 4 * Math.ceil(blocks / nested.blocksize)], [".nested_quant_map", 1024]] as [
        string,
        number,
      ][]
      : []),
  ];
  for (const [part, bytes] of sizes) {
    const found = source.names.includes(name + part) ? source.entry(name + part).bytes : 0;
    if (found === bytes) continue;
    throw new FileError(
      `${name}${part} in ${source.path} has ${found} bytes, where its quant_state needs ${bytes}: download the weights again.`,
    );
  }
  return state;
}

/** A tensor's bytes, whatever type it was stored as (bitsandbytes keeps codes as any). */
function bytesOf(source: WeightSource, name: string): Uint8Array {
  const { stored } = source.entry(name);
  const { data } = source.read(name);
  return stored === "U8" || stored === "I8"
    ? Uint8Array.from(data)
    : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

const floatsOf = (source: WeightSource, name: string) => source.read(name, "f32").data as Float32Array;

/** The packed type that holds just the same numbers, or null. */
function packedAs(source: WeightSource, { name, type, blocksize, nested }: State): PackedType | null {
  const table = floatsOf(source, `${name}.quant_map`);
  if (blocksize % 64 !== 0 || !codeTables[`${type}_f32`]!.every((x, i) => x === table[i])) return null;
  return type === "nf4" && blocksize === 64 && nested?.blocksize === 256 ? "nf4" : `${type}_f32`;
}

function readPacked(source: WeightSource, state: State, dtype: DType, into: HostArray | undefined): HostTensor {
  const { name, shape, blocksize, nested } = state;
  const size = sizeOf(shape), codes = bytesOf(source, name);
  /** The earlier of two codes is in the upper half of their byte. */
  const code = (i: number) => i < size ? codes[i >> 1] >> (i % 2 === 0 ? 4 : 0) & 15 : 0;
  if (isPacked(dtype)) {
    const writer = new PackedWriter(dtype, size);
    for (let first = 0; first < Math.ceil(size / 64) * 64; first += 16) {
      writer.nibbles(first >> 5, first % 32 === 0 ? 0 : 1, (i) => code(first + i));
    }
    if (dtype === "nf4") {
      bytesOf(source, `${name}.absmax`).forEach((byte, i) => writer.scaleByte(i, byte));
      floatsOf(source, `${name}.nested_absmax`).forEach((value, i) => writer.superscaleFloat(i, value));
      writer.map(floatsOf(source, `${name}.nested_quant_map`), nested!.offset);
    } else {
      const absmax = scalesOf(source, state);
      for (let i = 0; i < Math.ceil(size / 64); i++) writer.scaleFloat(i, absmax[Math.floor(i * 64 / blocksize)]);
    }
    return { shape, dtype, data: writer.words };
  }
  const table = floatsOf(source, `${name}.quant_map`), absmax = scalesOf(source, state);
  const values = Float32Array.from({ length: size }, (_, i) => table[code(i)] * absmax[Math.floor(i / blocksize)]);
  const data = destination(source.path, name, { shape, dtype }, into);
  narrowInto(values, dtype, data, 0);
  return { shape, dtype, data };
}

/** One f32 a block. */
function scalesOf(source: WeightSource, { name, nested }: State): Float32Array {
  if (nested === null) return floatsOf(source, `${name}.absmax`);
  const table = floatsOf(source, `${name}.nested_quant_map`), absmax = floatsOf(source, `${name}.nested_absmax`);
  return Float32Array.from(
    bytesOf(source, `${name}.absmax`),
    (byte, i) => Math.fround(table[byte] * absmax[Math.floor(i / nested.blocksize)]) + nested.offset,
  );
}
