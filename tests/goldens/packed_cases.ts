/** Golden cases of 4-bit weights, as bitsandbytes packs them and as models compute with them. */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { Matrix } from "ml-matrix";
import { dequantize } from "../../core/ops/quantize.ts";
import { nf4Values } from "../../core/packed/blocks.ts";
import { encodePacked, nf4Blocks, quantizeScales } from "../../core/packed/encode.ts";
import { PackedWriter } from "../../core/packed/writer.ts";
import { type HostTensor, type Tensor, upload } from "../../core/tensor.ts";
import { mapTree } from "../../core/tree.ts";
import { truncatedSvd } from "../../lora/methods/svd.ts";
import { unpackBitsandbytes } from "../../models/load/safetensors/bitsandbytes.ts";
import type { WeightSource } from "../../models/load/weights.ts";
import type { LoadedModel } from "../../models/load/loader.ts";
import type { OpenRuntime } from "../runtimes.ts";
import { checkAdapted } from "./adapter_cases.ts";
import { assertNear, type GoldenCase } from "./golden_case.ts";
import { ownModel } from "./model_cases.ts";

/** The weights of a case as bitsandbytes stores them in a file, under the name `w`. */
function asStored(
  type: string,
  shape: readonly number[],
  state: object,
  tensors: Record<string, HostTensor>,
): WeightSource {
  const text = new TextEncoder().encode(JSON.stringify({ quant_type: type, dtype: "float32", shape, ...state }));
  const u8 = (data: Uint8Array): HostTensor => ({ shape: [data.length], dtype: "u32", data: Uint32Array.from(data) });
  const all = new Map(Object.entries({ ...tensors, [`w.quant_state.bitsandbytes__${type}`]: u8(text) }));
  return {
    path: "the case",
    names: [...all.keys()],
    entry(name) {
      const { shape, dtype, data } = all.get(name)!;
      return dtype === "u32"
        ? { shape, dtype, stored: "U8", bytes: data.length }
        : { shape, dtype, stored: "F32", bytes: 4 * data.length };
    },
    read: (name) => all.get(name)!,
    [Symbol.dispose]: () => {},
  };
}

/** `nf4`: codes, scales, scales of scales, and what they stand for, as others store them and as they are made here. */
export async function runNf4Case(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  const { weight, ...rest } = Object.fromEntries(golden.tensors("nf4.safetensors"));
  const { blocksize, nested_blocksize: nested } = golden.info;
  const variants = {
    "": ["nf4", { w: rest.packed, "w.absmax": rest.absmax, "w.quant_map": rest.code }, {}],
    "fp4.": ["fp4", { w: rest["fp4.packed"], "w.absmax": rest["fp4.absmax"], "w.quant_map": rest["fp4.code"] }, {}],
    "double.": ["nf4", {
      ...{ w: rest["double.packed"], "w.absmax": rest["double.absmax_q"], "w.quant_map": rest.code },
      ...{ "w.nested_absmax": rest["double.state2.absmax"], "w.nested_quant_map": rest["double.state2.code"] },
    }, { nested_blocksize: nested, nested_offset: rest["double.offset"]?.data[0] }],
  } as const;
  for (const [prefix, [type, tensors, state]] of Object.entries(variants)) {
    const expected = rest[`${prefix}dequantised`];
    if (expected === undefined) continue;
    using source = unpackBitsandbytes(asStored(type, weight.shape, { blocksize, ...state }, tensors));
    assertNear(`${prefix}dequantised`, source.read("w"), expected, 1e-6);
    const { packed } = source.entry("w");
    if (packed === undefined) continue;
    const held = upload(runtime.home, source.read("w", packed));
    const values = await runtime.read(runtime.jit((x) => dequantize(x))(held));
    assertNear(`${prefix}dequantised as ${packed}`, values, expected, 1e-6);
  }

  const { codes, absmax } = nf4Blocks(weight.data as Float32Array, blocksize);
  assertEquals(absmax, rest.absmax.data as Float32Array);
  assertEquals(inBytes(codes), [...rest.packed.data]);
  if (rest["double.packed"] === undefined) return;
  assertEquals(inBytes(codes), [...rest["double.packed"].data]);
  if (nested !== 256) return; // what is quantised here has 256
  const { bytes, supers, map, offset } = quantizeScales(absmax);
  assertEquals([...bytes], [...rest["double.absmax_q"].data]);
  const host = (data: ArrayLike<number>): HostTensor => ({
    shape: [data.length],
    dtype: "f32",
    data: Float32Array.from(data),
  });
  const near = (what: string, data: ArrayLike<number>) => assertNear(what, host(data), host(rest[what].data), 1e-6);
  near("double.state2.code", map);
  near("double.offset", [offset]);
  near("double.state2.absmax", supers);
  if (blocksize !== 64) return; // what is held here in this form has 64
  const packed = upload(runtime.home, {
    shape: weight.shape,
    dtype: "nf4",
    data: encodePacked("nf4", weight.data as Float32Array),
  });
  const values = await runtime.read(runtime.jit((x) => dequantize(x))(packed));
  assertNear("double.dequantised", values, rest["double.dequantised"], 1e-6);
}

/** Two codes a byte, the earlier in the high nibble. */
function inBytes(codes: Uint8Array): number[] {
  return Array.from({ length: Math.ceil(codes.length / 2) }, (_, i) => codes[2 * i] << 4 | (codes[2 * i + 1] ?? 0));
}

/** What codes and scales stand for. */
function valuesOf(codes: Uint8Array, absmax: Float32Array, block: number): Float32Array {
  return Float32Array.from(codes, (code, i) => nf4Values[code] * absmax[Math.floor(i / block)]);
}

/** `loftq`: the base is quantised, the residual's best factors are taken out of the weight, and again. */
export function runLoftqCase(golden: GoldenCase): void {
  const tensors = golden.tensors("loftq.safetensors");
  const weight = tensors.get("weight")!, [rows, columns] = weight.shape;
  const { r, blocksize, frobenius_error: errors } = golden.info;
  const inFile = [...tensors.keys()].map((key) => Number(/^iter(\d+)\./.exec(key)?.[1] ?? 0));
  const last = Math.max(...inFile, ...Object.keys(errors).map(Number));
  let ba = new Float32Array(rows * columns);
  for (let iteration = 1; iteration <= last; iteration++) {
    const { codes, absmax } = nf4Blocks(Float32Array.from(weight.data, (x, i) => x - ba[i]), blocksize);
    const base = valuesOf(codes, absmax, blocksize);
    const residual = Matrix.from1DArray(rows, columns, Float64Array.from(weight.data, (x, i) => x - base[i]));
    const { U, s, V } = truncatedSvd(residual, r);
    ba = Float32Array.from(U.mmul(Matrix.diag(s)).mmul(V.transpose()).to1DArray());
    const as = (data: Float32Array): HostTensor => ({ shape: weight.shape, dtype: "f32", data });
    if (iteration === 1) { // later ones may take another code where a value lies between two
      assertNear("iter1.dequantised", as(base), tensors.get("iter1.dequantised")!, 1e-6);
      assertNear("iter1.ba", as(ba), tensors.get("iter1.ba")!, 1e-5);
      assertEquals(inBytes(codes), [...tensors.get("iter1.packed")!.data]);
    }
    if (errors[iteration] === undefined) continue;
    const left = Float64Array.from(weight.data, (x, i) => (x - base[i] - ba[i]) ** 2).reduce((a, b) => a + b);
    assertAlmostEquals(Math.sqrt(left), errors[iteration].loftq, 1e-3);
  }
}

/** A model's linear weights in NF4 as a case says, the rest as they are. */
async function quantized(golden: GoldenCase, model: LoadedModel, runtime: OpenRuntime): Promise<LoadedModel> {
  const { blocksize, double_quant: double } = golden.info;
  const expected = golden.tensors("packed.safetensors");
  const names = new Map([...expected.keys()].map((key) => [key.replace(/\.packed$/, ".weight"), key]));
  const chosen: [Tensor, string][] = [];
  mapTree(model.params, (leaf: Tensor, path) => {
    const key = names.get(model.hubName(path));
    if (key !== undefined) chosen.push([leaf, key]);
    return null;
  });
  assertEquals(chosen.length, names.size);
  const contents: HostTensor[] = await runtime.read(chosen.map(([leaf]) => leaf));
  const packed = new Map(chosen.map(([leaf, key], i) => {
    const values = contents[i].data as Float32Array, { codes, absmax } = nf4Blocks(values, blocksize);
    assertEquals(inBytes(codes), [...expected.get(key)!.data], key);
    const dtype = double && blocksize === 64 ? "nf4" : "nf4_f32";
    const data = dtype === "nf4"
      ? encodePacked(dtype, values)
      : encodePlain(codes, double ? twice(absmax) : absmax, blocksize);
    return [leaf, upload(runtime.home, { shape: leaf.shape, dtype, data })] as const;
  }));
  return { ...model, params: mapTree(model.params, (leaf: Tensor) => packed.get(leaf) ?? leaf) };
}

/** Scales after they were quantised. */
function twice(absmax: Float32Array): Float32Array {
  const { bytes, supers, map, offset } = quantizeScales(absmax);
  return Float32Array.from(bytes, (byte, i) => Math.fround(map[byte] * supers[i >> 8]) + offset);
}

/** NF4 with f32 scales. */
function encodePlain(codes: Uint8Array, absmax: Float32Array, block: number): Uint32Array<ArrayBuffer> {
  const writer = new PackedWriter("nf4_f32", codes.length);
  for (let first = 0; first < codes.length; first += 16) {
    writer.nibbles(first >> 5, first % 32 === 0 ? 0 : 1, (i) => codes[first + i] ?? 0);
  }
  for (let i = 0; i < Math.ceil(codes.length / 64); i++) writer.scaleFloat(i, absmax[Math.floor(64 * i / block)]);
  return writer.words;
}

/** `qlora-llama`: logits and gradients of an adapter over a base in NF4. */
export async function runQloraCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using plain = await ownModel(golden, runtime);
  const model = await quantized(golden, plain, runtime);
  const { tuned } = await checkAdapted(golden, model, runtime);
  assert(tuned.matched.length > 0);
}
