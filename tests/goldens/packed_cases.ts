/** Golden cases of 4-bit weights, as bitsandbytes packs them and as models compute with them. */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { Matrix } from "ml-matrix";
import { sizeOf } from "../../core/aval.ts";
import { dequantize } from "../../core/ops/quantize.ts";
import { nf4Values, packedLayout } from "../../core/packed.ts";
import { encodePacked } from "../../core/packed_encode.ts";
import { type HostTensor, type Tensor, upload } from "../../core/tensor.ts";
import { mapTree } from "../../core/tree.ts";
import { truncatedSvd } from "../../lora/svd.ts";
import type { LoadedModel } from "../../models/loader.ts";
import type { OpenRuntime } from "../runtimes.ts";
import { checkAdapted } from "./adapter_cases.ts";
import { assertNear, type GoldenCase } from "./golden_case.ts";
import { ownModel } from "./model_cases.ts";

/** The codes of an nf4 array as bitsandbytes packs them: two a byte, the earlier in the high nibble. */
function nibblesOf(words: Uint32Array, size: number): number[] {
  const code = (i: number) => words[(i >> 5) * 4 + (i & 3)] >>> 4 * ((i & 31) >> 2) & 15;
  return Array.from({ length: size / 2 }, (_, i) => code(2 * i) << 4 | code(2 * i + 1));
}

/** `nf4`: codes, scales, scales of scales, and what they stand for. */
export async function runNf4Case(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  const { weight, ...rest } = Object.fromEntries(golden.tensors("nf4.safetensors"));
  const size = sizeOf(weight.shape);
  assertEquals(nf4Values, rest.code.data as Float32Array);
  const words = encodePacked("nf4", weight.data as Float32Array);
  assertEquals(nibblesOf(words, size), [...rest["double.packed"].data]);
  const { scales, supers, map } = packedLayout("nf4", size);
  const floats = new Float32Array(words.buffer);
  assertEquals([...new Uint8Array(words.buffer, scales * 4, size / 64)], [...rest["double.absmax_q"].data]);
  const host = (data: Float32Array): HostTensor => ({ shape: [data.length], dtype: "f32", data });
  const near = (what: string, data: Float32Array) =>
    assertNear(what, host(data), host(Float32Array.from(rest[what].data)), 1e-6);
  near("double.state2.code", floats.subarray(map, map + 256));
  near("double.offset", floats.subarray(map + 256, map + 257));
  near("double.state2.absmax", floats.subarray(supers, supers + 2));
  const packed = upload(runtime.home, { shape: weight.shape, dtype: "nf4", data: words });
  const values = await runtime.read(runtime.jit((x) => dequantize(x))(packed));
  assertNear("double.dequantised", values, rest["double.dequantised"], 1e-6);
}

/** The values of nf4 without double quantisation, whose scales are f32. */
function plainNf4(weight: Float32Array): Float32Array {
  const packed = nibblesOf(encodePacked("nf4", weight), weight.length);
  return weight.map((_, i) => {
    const absmax = weight.subarray(i & ~63, (i & ~63) + 64).reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    return Math.fround(nf4Values[packed[i >> 1] >> (i % 2 === 0 ? 4 : 0) & 15] * absmax);
  });
}

/** `loftq`: the base is quantised, the residual's best factors are taken out of the weight, and again. */
export function runLoftqCase(golden: GoldenCase): void {
  const tensors = golden.tensors("loftq.safetensors");
  const weight = tensors.get("weight")!, [rows, columns] = weight.shape;
  const { r, frobenius_error: errors } = golden.info;
  let ba = new Float32Array(rows * columns);
  for (let iteration = 1; iteration <= 5; iteration++) {
    const base = plainNf4(Float32Array.from(weight.data, (x, i) => x - ba[i]));
    const residual = Matrix.from1DArray(rows, columns, Float64Array.from(weight.data, (x, i) => x - base[i]));
    const { U, s, V } = truncatedSvd(residual, r);
    ba = Float32Array.from(U.mmul(Matrix.diag(s)).mmul(V.transpose()).to1DArray());
    const as = (data: Float32Array): HostTensor => ({ shape: weight.shape, dtype: "f32", data });
    if (iteration === 1) {
      assertNear("iter1.dequantised", as(base), tensors.get("iter1.dequantised")!, 1e-6);
      assertNear("iter1.ba", as(ba), tensors.get("iter1.ba")!, 1e-5);
      assertEquals(nibblesOf(encodePacked("nf4", weight.data as Float32Array), rows * columns), [
        ...tensors.get("iter1.packed")!.data,
      ]);
    }
    if (errors[iteration] === undefined) continue;
    const left = Float64Array.from(weight.data, (x, i) => (x - base[i] - ba[i]) ** 2).reduce((a, b) => a + b);
    assertAlmostEquals(Math.sqrt(left), errors[iteration].loftq, 1e-3);
  }
}

/** A model's linear weights as nf4, the rest as they are. */
async function quantized(model: LoadedModel, names: ReadonlySet<string>, runtime: OpenRuntime): Promise<LoadedModel> {
  const contents: HostTensor[] = [];
  const chosen: Tensor[] = [];
  mapTree(model.params, (leaf: Tensor, path) => void (names.has(model.hubName(path)) && chosen.push(leaf)));
  contents.push(...await runtime.read(chosen));
  assertEquals(chosen.length, names.size);
  const packed = new Map(chosen.map((leaf, i) => {
    const words = encodePacked("nf4", contents[i].data as Float32Array);
    return [leaf, upload(runtime.home, { shape: leaf.shape, dtype: "nf4", data: words })] as const;
  }));
  return { ...model, params: mapTree(model.params, (leaf: Tensor) => packed.get(leaf) ?? leaf) };
}

/** `qlora-llama`: logits and gradients of an adapter over a base in NF4. */
export async function runQloraCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  using plain = await ownModel(golden, runtime);
  const expected = golden.tensors("packed.safetensors");
  const names = new Set([...expected.keys()].map((key) => key.replace(/\.packed$/, ".weight")));
  const model = await quantized(plain, names, runtime);
  const { tuned } = await checkAdapted(golden, model, runtime);
  assert(tuned.matched.length > 0);
}
