/** How many buffers kernels bind: what every WebGPU device allows, so that one with the least limits can train. */
import { assert, assertEquals } from "@std/assert";
import { newInput, type Value } from "../../core/ir/graph.ts";
import { attention } from "../../core/nn/attention.ts";
import { causalLoss } from "../../core/nn/loss.ts";
import { concat } from "../../core/ops/structure.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { add, tanh } from "../../core/ops/elementwise.ts";
import { upload } from "../../core/tensor.ts";
import { trace } from "../../core/trace.ts";
import { grad } from "../../core/transforms/grad.ts";
import { mapTree } from "../../core/tree.ts";
import { build } from "../../kernels/runtime/compile.ts";
import { openAdapter } from "../../kernels/device/webgpu/webgpu.ts";
import { findAdapter } from "../../kernels/device/webgpu/adapter.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { read } from "../../kernels/runtime/read.ts";
import { describeKernel } from "../../kernels/explain/describe.ts";
import { maxOperands, type Program } from "../../kernels/ir/kernel.ts";
import { emitWgsl } from "../../kernels/wgsl/emit.ts";
import { gpuTile } from "../../kernels/wgsl/tile.ts";
import { lora } from "../../lora/lora.ts";
import { loadModel } from "../../models/load/load_model.ts";
import { adamw } from "../../train/optimiser.ts";
import { makeStep } from "../../train/step.ts";
import { withoutWebGpu } from "../devices.ts";
import { type OpenRuntime, oracleRuntime, runtimes } from "../runtimes.ts";

const cases = `${import.meta.dirname}/../goldens/cases`;

/** Every kernel binds as many as each device has; the most that one of them binds. */
function maxBindings(name: string, program: Program): number {
  const counts = program.steps.map(({ kernel, buffers }) => {
    const places = buffers.map((ref) => JSON.stringify(ref));
    const { bindings } = emitWgsl(kernel, gpuTile, places.map((place) => places.indexOf(place)));
    assert(bindings.length <= maxOperands, `${name}: ${describeKernel(kernel)} binds ${bindings.length} buffers`);
    return bindings.length;
  });
  return Math.max(...counts);
}

const i32 = (...shape: number[]) => newInput({ shape, dtype: "i32" });
const avals = (tree: unknown) =>
  mapTree(tree, (x) => newInput((x as Value).aval), (x) => (x as Value | null)?.aval !== undefined);

Deno.test("no kernel of a training step binds more buffers than every WebGPU device allows", async (t) => {
  assertEquals(maxOperands, 8);
  for (const id of ["gpt2-base", "llama-base", "mistral-base", "qwen2-base", "qwen3-base"]) {
    await t.step(id, async () => {
      const model = await loadModel(`${cases}/${id}/model`, { device: oracleRuntime.home });
      for (const options of [null, { r: 4 }, { r: 4, dora: true, dropout: 0.1 }]) {
        const tuned = options && lora(model as never, { alpha: 8, targets: "all-linear", ...options });
        const shape = [2, 24];
        const inputs = { inputIds: i32(...shape), attentionMask: i32(...shape), documentStart: i32(...shape) };
        const loss = (params: any, frozen: any, inputs: any, labels: any) =>
          causalLoss((tuned ?? model as any).apply(...(tuned ? [params, frozen] : [params]), inputs), labels);
        const optimiser = adamw();
        const params = avals(tuned ? tuned.trainable : model.params);
        const state = { params, optimiser: optimiser.init(params as never) };
        const step = makeStep(loss, { optimiser, clip: 1 });
        const args = [
          state,
          newInput({ shape: [], dtype: "f32" }),
          avals(tuned?.frozen ?? null),
          inputs,
          i32(...shape),
        ];
        maxBindings(`${id} ${JSON.stringify(options)}`, build(trace(step, args as never).graph).program);
      }
    });
  }
});

/** Attention with every optional argument: a mask, a first key for each query, and an offset. */
const attend = (q: Value, k: Value, v: Value, mask: Value, offset: Value, first: Value) =>
  attention(q, k, v, { mask, offset, first, causal: true });
const [batch, queries, keys, heads, width] = [2, 5, 9, 2, 4];
const avalsOfAttention = [
  { shape: [batch, queries, heads, width], dtype: "f32" },
  { shape: [batch, keys, heads, width], dtype: "f32" },
  { shape: [batch, keys, heads, width], dtype: "f32" },
  { shape: [batch, keys], dtype: "bool" },
  { shape: [], dtype: "i32" },
  { shape: [batch, queries], dtype: "i32" },
] as const;
const gradients = (...args: Value[]) => {
  const [q, k, v, ...masks] = args;
  const loss = (q: Value, k: Value, v: Value) =>
    reduceSum(tanh((attend as (...args: Value[]) => Value)(q, k, v, ...masks)));
  return grad(loss, { argnums: [0, 1, 2] })(q, k, v);
};

Deno.test("attention with a mask, bounds and an offset binds eight, two layers share what says who sees whom", () => {
  const args = avalsOfAttention.map((aval) => newInput(aval));
  assertEquals(maxBindings("attention", build(trace(gradients, args).graph).program), 8);
  const twice = (...[q, k, v, ...masks]: Value[]) => gradients(gradients(q, k, v, ...masks)[0], k, v, ...masks);
  const joins = ({ steps }: Program) =>
    steps.filter(({ kernel }) =>
      kernel.kind === "map" && kernel.operands.some((o) => o.dtype === "i32" && o.access === "write")
    )
      .length;
  const [once, again] = [gradients, twice].map((f) => joins(build(trace(f, args).graph).program));
  assertEquals([once, again], [3, 3]);
});

Deno.test("what joins a sum or a concatenation from many sources stays within the bindings", () => {
  const many = Array.from({ length: 14 }, () => newInput({ shape: [6, 8], dtype: "f32" }));
  const sum = (...xs: Value[]) => xs.reduce((a, x) => add(tanh(a), x));
  const all = (...xs: Value[]) => [reduceSum(sum(...xs), 1), concat([sum(...xs.toReversed()), xs[0]], 1)];
  maxBindings("a sum of many", build(trace(all, many).graph).program);
});

/** The machine's adapter as it would be with the least bindings that WebGPU allows. */
async function openLeast(): Promise<OpenRuntime> {
  const found = await findAdapter();
  assert(!("missing" in found));
  const { adapter } = found;
  const least = new Proxy(adapter, {
    get: (_, key) => {
      if (key === "limits") {
        return new Proxy(adapter.limits, {
          get: (limits, limit) =>
            limit === "maxStorageBuffersPerShaderStage" ? maxOperands : Reflect.get(limits, limit, limits),
        });
      }
      const value = Reflect.get(adapter, key, adapter);
      return typeof value === "function" ? value.bind(adapter) : value;
    },
  });
  const device = await openAdapter({ ...found, adapter: least });
  assertEquals(device.gpu.limits.maxStorageBuffersPerShaderStage, maxOperands);
  return { home: device, jit, read, [Symbol.dispose]: () => device[Symbol.dispose]() };
}

const least = withoutWebGpu === null ? [{ name: "webgpu with eight bindings", open: openLeast }] : [];

for (const { name, open } of [...runtimes.slice(1), ...least]) {
  Deno.test(`${name}: gradients of attention with every optional argument are the oracle's`, async () => {
    const host = avalsOfAttention.map(({ shape, dtype }, n) => {
      const size = shape.reduce((product, d) => product * d, 1);
      if (dtype === "f32") {
        return {
          shape,
          dtype,
          data: Float32Array.from({ length: size }, (_, i) => Math.sin(i * i + n)),
        };
      }
      if (dtype === "bool") {
        return {
          shape,
          dtype,
          data: Uint32Array.from({ length: size }, (_, i) => i % 4 === 1 ? 0 : 1),
        };
      }
      return { shape, dtype, data: Int32Array.from({ length: size }, (_, i) => size === 1 ? keys - queries : i % 4) };
    });
    using runtime = await open();
    const on = async (runtime: typeof oracleRuntime) =>
      await runtime.read(runtime.jit(gradients as never)(...host.map((x) => upload(runtime.home, x)))) as any[];
    const [got, want] = [await on(runtime as typeof oracleRuntime), await on(oracleRuntime)];
    want.forEach(({ data }, i) =>
      data.forEach((x: number, at: number) =>
        assert(Math.abs(x - got[i].data[at]) < 1e-5, `gradient ${i} at ${at}: ${got[i].data[at]}, not ${x}`)
      )
    );
  });
}
