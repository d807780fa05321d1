/** Activations rounded to bytes: what a product of them is, on every device, and that integers give it exactly. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { storageBytes } from "../../core/dtype.ts";
import { OptionError } from "../../core/errors.ts";
import { matmul } from "../../core/ops/contract.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { packedLayout, type PackedType, packedTypes } from "../../core/packed/blocks.ts";
import { type HostTensor, type Operand, type Tensor, upload } from "../../core/tensor.ts";
import { trace } from "../../core/trace.ts";
import { grad } from "../../core/transforms/grad.ts";
import { roundActivations } from "../../core/transforms/round_activations.ts";
import { vmap } from "../../core/transforms/vmap.ts";
import { build } from "../../kernels/runtime/compile.ts";
import { describeKernel } from "../../kernels/explain/describe.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import type { Device } from "../../kernels/device/device.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { evaluate, read } from "../../kernels/runtime/read.ts";
import type { Kernel } from "../../kernels/ir/kernel.ts";
import { gamma } from "../../lora/bound.ts";
import { generator } from "../../models/generate/generate.ts";
import { loadModel } from "../../models/load/load_model.ts";
import type { LoadedModel } from "../../models/load/loader.ts";
import { devices } from "../devices.ts";
import { decodePacked, randomPacked } from "../../testing/packed_reference.ts";
import { roundToBytes } from "../../testing/rounded_reference.ts";
import { noise } from "../../testing/toy_models.ts";

/** Types whose products take bytes. */
const whole: readonly PackedType[] = ["q4_0", "q4_1", "q8_0", "q4_k", "q6_k"];
const sizes = [[1, 256, 41], [1, 1536, 64], [2, 256, 203], [3, 256, 9], [4, 512, 70], [40, 256, 12]] as const;

/** Rows of ordinary values, but for a block of zeros, one of tiny values and one with a single great one. */
function rowsOf(m: number, k: number): Float32Array<ArrayBuffer> {
  const data = Float32Array.from({ length: m * k }, noise(m + k));
  data.fill(0, 32, 64);
  for (let i = 64; i < 96; i++) data[i] *= 1e-33;
  data[100] = 1e6;
  return data;
}

const product = (x: Operand, w: Operand) => matmul(x, w, { transposeB: true });

/** The product by plain loops, and what its terms add up to. */
function expected(type: PackedType, [m, k, n]: readonly number[], x: Float32Array, words: Uint32Array) {
  const { values, terms } = decodePacked(type, n * k, words);
  const row = (r: number) => roundToBytes(Float64Array.from(x.subarray(r * k, (r + 1) * k)));
  const rounded = Array.from({ length: m }, (_, r) => row(r));
  const sum = (of: Float64Array, size: (x: number) => number) =>
    rounded.flatMap((x) => Array.from({ length: n }, (_, c) => x.reduce((s, v, i) => s + size(v) * of[c * k + i], 0)));
  return { want: sum(values, (v) => v), bound: sum(terms, Math.abs).map((t) => gamma(k + 4) * t) };
}

const upload2 = (device: Device, dtype: "f32" | PackedType, shape: number[], data: any) =>
  upload(device, { shape, dtype, data });

for (const { name, open } of devices) {
  Deno.test(`rounded activations meet packed weights as plain loops say, on ${name}`, async () => {
    using device = await open();
    const check = async (
      type: PackedType,
      size: readonly [number, number, number],
      x: Float32Array<ArrayBuffer>,
      words: Uint32Array<ArrayBuffer>,
    ) => {
      const [m, k, n] = size;
      const run = jit(roundActivations(product));
      const out = run(upload2(device, "f32", [m, k], x), upload2(device, type, [n, k], words));
      const { data } = await read(out) as HostTensor;
      const { want, bound } = expected(type, size, x, words);
      want.forEach((y, i) => {
        const apart = Math.abs(data[i] - y);
        assert(apart <= bound[i], `${type} ${size}: ${data[i]} for ${y} at ${i}, ${apart} over ${bound[i]}`);
      });
    };
    for (const type of whole) {
      for (const size of sizes) {
        const [m, k, n] = size;
        await check(type, size, rowsOf(m, k), randomPacked(type, n * k, k + n));
      }
      // The greatest bytes of both signs with the greatest and the least codes: no sum on the way may overflow.
      for (const sign of [1, -1]) {
        for (const code of [0xffffffff, type === "q8_0" ? 0x80808080 : 0]) {
          const words = randomPacked(type, 256 * 8, 5);
          words.fill(code, 0, packedLayout(type, 256 * 8).scales);
          await check(type, [1, 256, 8], new Float32Array(256).fill(sign), words);
        }
      }
    }
  });
}

/** A single product as a kernel that rounds its rows. */
const roundedKernel = (type: PackedType, [m, k, n]: readonly number[]): Kernel => ({
  kind: "contract",
  operands: [
    { dtype: "f32", size: m * k, access: "read" },
    { dtype: type, size: n * k, access: "read" },
    { dtype: "f32", size: m * n, access: "write" },
  ],
  batch: [],
  m,
  n,
  segments: [{
    k,
    a: { operand: 0, index: { offset: 0, strides: [k, 1] } },
    b: { operand: 1, index: { offset: 0, strides: [1, k] } },
    rounded: true,
  }],
  stores: [{
    operand: 2,
    index: { offset: 0, strides: [n, 1] },
    value: { kind: "result", type: "f32", phase: 0 },
  }],
});

Deno.test("integer products are the same bits with relaxed SIMD and without, on any number of threads", async () => {
  const kinds = [{ threads: 1 }, { threads: 2 }, { threads: 1, relaxed: false }, { threads: 2, relaxed: false }];
  for (const type of whole) {
    for (const size of [sizes[1], sizes[2]]) {
      const [m, k, n] = size;
      const words = randomPacked(type, n * k, 7), x = rowsOf(m, k);
      const results: Float32Array[] = [];
      for (const kind of kinds) {
        using device = await openCpu({ ...kind, blas: false });
        const kernel = roundedKernel(type, size);
        const buffers = kernel.operands.map((o) => device.allocate(storageBytes(o.dtype, o.size)));
        device.write(buffers[0], x);
        device.write(buffers[1], words);
        const program = { arguments: kernel.operands, outputs: [], arenaBytes: 0 };
        const at = [0, 1, 2].map((index) => ({ kind: "argument" as const, index }));
        device.compile({ ...program, steps: [{ kernel, buffers: at }] }).run(buffers, []);
        const [data] = await device.read([{ buffer: buffers[2], dtype: "f32", size: m * n }]);
        results.push(data as Float32Array);
      }
      for (const result of results) assertEquals(result, results[0], `${type} ${size}`);
    }
  }
});

Deno.test("few rows are rounded by the product itself, on a device that does so; others beforehand", async () => {
  using device = await openCpu({ threads: 1 });
  const kernels = (m: number, target: object) => {
    const args = [upload2(device, "f32", [m, 64], new Float32Array(m * 64)), null as any];
    args[1] = upload2(device, "q4_1", [8, 64], randomPacked("q4_1", 512, 1));
    const { graph } = trace(roundActivations(product), args);
    return build(graph, new Set(), true, target).program.steps.map(({ kernel }) => describeKernel(kernel));
  };
  assertEquals(kernels(1, device), ["contract 1 x 8, k 64 in bytes"]);
  for (const steps of [kernels(5, device), kernels(1, {})]) {
    assert(steps.length > 1 && steps.at(-1)!.endsWith("k 64"), steps.join());
  }
});

Deno.test("only products with packed rows of whole codes are rounded; gradients and vmap pass over it", async () => {
  using device = await openCpu({ threads: 1 });
  const x = upload2(device, "f32", [1, 256], rowsOf(1, 256));
  const apart = async (f: (x: Operand, w: Operand) => any, w: Tensor) => {
    const [{ data: a }, { data: b }] = await evaluate([f(x, w), roundActivations(f)(x, w)]);
    return a.reduce((most: number, v: number, i: number) => Math.max(most, Math.abs(v - b[i])), 0);
  };
  for (const type of packedTypes) {
    const w = upload2(device, type, [8, 256], randomPacked(type, 2048, 2));
    assertEquals(await apart(product, w) > 0, whole.includes(type), type);
  }
  const w = upload2(device, "q8_0", [8, 256], randomPacked("q8_0", 2048, 2));
  const slope = (f: typeof product) => evaluate(grad((x: Operand) => reduceSum(f(x, w)))(x));
  assertEquals(await slope(roundActivations(product)), await slope(product));
  const rows = upload2(device, "f32", [3, 1, 256], rowsOf(3, 256));
  const each = vmap(roundActivations((x: Operand) => product(x, w)));
  const { data } = await evaluate(each(rows)) as HostTensor;
  const { data: whole3 } = await evaluate(roundActivations(product)(rows, w)) as HostTensor;
  assertEquals(data, whole3);
});

Deno.test("a text of rounded activations is that of the whole rounded graph without a cache", async () => {
  const prompt = Array.from({ length: 9 }, (_, i) => (i * 7) % 90);
  for (const { name, open } of devices.filter(({ name }) => name.startsWith("cpu"))) {
    using device = await open();
    for (const type of ["Q4_1", "Q8_0"]) {
      const file = `tests/goldens/cases/llama-gguf/llama-${type}.gguf`;
      using model = await loadModel(file, { device, dtype: "packed" }) as LoadedModel;
      const generate = generator(model);
      const [made] = await generate(model.params, [prompt], { maxNewTokens: 6, activations: "int8" });
      const ids = [...prompt];
      for (const token of made.ids) {
        const inputIds = upload(device, { shape: [1, ids.length], dtype: "i32", data: Int32Array.from(ids) });
        const { data, shape: [, t, v] } = await evaluate(
          roundActivations(model.apply)(model.params, { inputIds }),
        ) as HostTensor;
        const last = data.subarray((t - 1) * v);
        assertEquals(token, last.indexOf(Math.max(...last)), `${name} ${type}`);
        ids.push(token);
      }
    }
  }
});

Deno.test("activations of an unknown type are refused", async () => {
  using device = await openCpu({ threads: 1 });
  using model = await loadModel("tests/goldens/cases/llama-gguf/llama-Q8_0.gguf", { device }) as LoadedModel;
  const generate = generator(model);
  const options = { maxNewTokens: 1, activations: "int4" as never };
  await assertRejects(() => generate(model.params, [[1]], options), OptionError, "choose f32 or int8");
});

Deno.test("what is not finite makes the products of its row not a number", async () => {
  using device = await openCpu({ threads: 1 });
  for (const type of whole) {
    for (const bad of [NaN, Infinity]) {
      const x = rowsOf(2, 256);
      x[70] = bad;
      const w = upload2(device, type, [8, 256], randomPacked(type, 2048, 2));
      const { data } = await evaluate(roundActivations(product)(upload2(device, "f32", [2, 256], x), w)) as HostTensor;
      assertEquals([...data].map(Number.isNaN), Array.from({ length: 16 }, (_, i) => i < 8), `${type} ${bad}`);
      const block = upload2(device, "f32", [1, 256], new Float32Array(256).fill(bad, 64, 96));
      const { data: none } = await evaluate(roundActivations(product)(block, w)) as HostTensor;
      assertEquals([...none].map(Number.isNaN), new Array(8).fill(true), `${type} a block of ${bad}`);
    }
  }
});
