/** Packed weights in whole programs: never stored as f32, followed by adapters, merged into what belongs to them. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { sizeOf } from "../../core/aval.ts";
import { OptionError, ShapeError } from "../../core/errors.ts";
import { newInput } from "../../core/ir/graph.ts";
import type { Model } from "../../core/model.ts";
import { matmul } from "../../core/ops/contract.ts";
import { convert, mul, tanh } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { dequantize } from "../../core/ops/quantize.ts";
import { isPacked } from "../../core/packed/blocks.ts";
import { encodedTypes, encodePacked } from "../../core/packed/encode.ts";
import { type HostTensor, type Operand, type Tensor, upload } from "../../core/tensor.ts";
import { trace } from "../../core/trace.ts";
import { grad, valueAndGrad } from "../../core/transforms/grad.ts";
import { build } from "../../kernels/runtime/compile.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import type { Device } from "../../kernels/device/device.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { evaluate, read } from "../../kernels/runtime/read.ts";
import { describeQuantization, quantize } from "../../kernels/runtime/quantize.ts";
import { gamma } from "../../lora/bound.ts";
import { lora } from "../../lora/lora.ts";
import { devices } from "../devices.ts";
import { randomPacked } from "../../testing/packed_reference.ts";
import { noise } from "../../testing/toy_models.ts";

const [out, into, tokens] = [96, 64, 5];

/** Two linear layers and a tied lookup, in any dtypes. */
const model = (params: Record<"table" | "up" | "down", { weight: Tensor }>): Model<typeof params, Operand, any> => ({
  params,
  sample: newInput({ shape: [tokens], dtype: "i32" }),
  apply: (p, ids) => {
    const x = convert(gather(p.table.weight, ids), "f32");
    const h = tanh(matmul(matmul(x, p.up.weight, { transposeB: true }), p.down.weight, { transposeB: true }));
    return matmul(h, p.table.weight, { transposeB: true });
  },
  tied: { head: "table" },
});

const host = (shape: number[], seed: number) => ({
  shape,
  dtype: "f32" as const,
  data: Float32Array.from({ length: sizeOf(shape) }, noise(seed)),
});

/** An adapter away from zero, so that every factor has a gradient. */
const randomly = (device: Device, trainable: Record<string, { A: Tensor; B: Tensor }>) =>
  Object.fromEntries(
    Object.entries(trainable).map(([path, { A, B }], i) => [path, {
      A: upload(device, host([...A.shape], 20 + i)),
      B: upload(device, host([...B.shape], 30 + i)),
    }]),
  ) as any;

/** The same weights as f32 and packed: the packed ones' own values. */
async function both(device: Device) {
  const weights = { table: host([40, into], 1), up: host([out, into], 2), down: host([into, out], 3) };
  const packed = Object.fromEntries(
    Object.entries(weights).map(([name, { shape, data }]) => [
      name,
      { weight: upload(device, { shape, dtype: "q8_0", data: encodePacked("q8_0", data) }) },
    ]),
  ) as any;
  const plain = jit((p: any) => ({
    table: { weight: dequantize(p.table.weight) },
    up: { weight: dequantize(p.up.weight) },
    down: { weight: dequantize(p.down.weight) },
  }))(packed);
  return { packed, plain: await Promise.resolve(plain) };
}

const ids = (device: Device) => upload(device, { shape: [tokens], dtype: "i32", data: Int32Array.of(3, 1, 39, 7, 3) });
const options = { r: 4, alpha: 8, targets: ["up", "down", "head"] } as const;

for (const { name, open } of devices) {
  Deno.test(`an adapter on packed weights computes what it does on their values, gradients too, on ${name}`, async () => {
    using device = await open();
    const { packed, plain } = await both(device);
    const results = [];
    for (const params of [packed, plain]) {
      const tuned = lora(model(params), options as any);
      const trainable = randomly(device, tuned.trainable as any);
      const loss = (t: any, f: any, x: any) => reduceSum(mul(tuned.apply(t, f, x), tuned.apply(t, f, x)));
      results.push(await read(jit(valueAndGrad(loss))(trainable, tuned.frozen, ids(device))));
    }
    const [[a, da], [b, db]] = results;
    assert(Math.abs(a - b) <= gamma(out * into) * Math.abs(b));
    for (const path of Object.keys(da)) {
      for (const leaf of ["A", "B"]) {
        const terms = Math.abs(b) + Math.max(...db[path][leaf].data.map(Math.abs));
        da[path][leaf].data.forEach((x: number, i: number) => {
          assert(Math.abs(x - db[path][leaf].data[i]) <= gamma(out * into * tokens) * terms, path);
        });
      }
    }
  });
}

Deno.test("no step of a training program holds a packed weight's values: kernels read the words", async () => {
  using device = await openCpu({ threads: 1, blas: false });
  const { packed } = await both(device);
  const tuned = lora(model(packed), options as any);
  const loss = (t: any, f: any, x: any) => reduceSum(mul(tuned.apply(t, f, x), tuned.apply(t, f, x)));
  const { graph } = trace(valueAndGrad(loss), [tuned.trainable, tuned.frozen, ids(device)]);
  const { program } = build(graph);
  const sizes = new Set([packed.table, packed.up, packed.down].map(({ weight }) => sizeOf(weight.shape)));
  let loads = 0;
  for (const { kernel } of program.steps) {
    for (const { dtype, size, access } of kernel.operands) {
      if (isPacked(dtype)) {
        loads++;
        assertEquals(access, "read");
      } else assert(!sizes.has(size), `${kernel.kind} has ${dtype}[${size}]`);
    }
  }
  assert(loads >= 6, "forward and backward read the words");
});

Deno.test("codes have no gradient: asking for one is an error or nothing", async () => {
  using device = await openCpu({ threads: 1 });
  const { packed } = await both(device);
  const slope = () => evaluate(grad((w: any) => reduceSum(dequantize(w)))(packed.up.weight));
  await assertRejects(slope);
  assertThrows(() => dequantize(newInput({ shape: [4], dtype: "f32" })), ShapeError, "it is not packed");
});

Deno.test("merging into packed weights gives f32 values that compute the same, and leaves the others packed", async () => {
  using device = await openCpu({ threads: 1 });
  const { packed } = await both(device);
  const base = model(packed);
  const tuned = lora(base, { ...options, targets: ["up"] } as any);
  const trainable = randomly(device, tuned.trainable as any);
  const merged = jit(() => tuned.merge(trainable, tuned.frozen))() as any;
  assertEquals([merged.up.weight.dtype, packed.down.weight.dtype], ["f32", "q8_0"]);
});

Deno.test("quantize packs matrices, skips what is named, and gives values back near what they were", async () => {
  using device = await openCpu({ threads: 2 });
  const params = {
    embed: { weight: upload(device, host([8, 64], 1)) },
    layer: { weight: upload(device, host([32, 64], 2)), bias: upload(device, host([32], 3)) },
  };
  const worst = { nf4: 0.16, q8_0: 1 / 250, q4_0: 1 / 15, q4_1: 1 / 29 };
  for (const type of encodedTypes) {
    const packed = await quantize(params, { type, skip: ["embed"] });
    assertEquals(packed.layer.weight.dtype, type);
    assert(packed.embed.weight === params.embed.weight && packed.layer.bias === params.layer.bias);
    assertEquals(describeQuantization(packed), { [type]: 32 * 64 });
    const { data } = await evaluate(dequantize(packed.layer.weight)) as HostTensor;
    const { data: want } = await read(params.layer.weight) as HostTensor;
    const most = Math.max(...want.map(Math.abs));
    // Half a step of the widest block, of 2·most at most, and the rounding of f16 scales.
    data.forEach((x: number, i: number) => assert(Math.abs(x - want[i]) <= 2 * worst[type] * most + 2 ** -10 * most));
    // What is packed already can be packed otherwise.
    assertEquals((await quantize(packed, { type: "nf4" })).layer.weight.dtype, "nf4");
  }
  assertEquals(describeQuantization(params), null);
  const once = await quantize(params, { type: "q4_1", release: true });
  assert(!params.layer.weight.alive && once.layer.weight.alive && params.layer.bias.alive);
});

Deno.test("quantize says what it can't do", async () => {
  using device = await openCpu({ threads: 1 });
  const params = { layer: { weight: upload(device, host([4, 10], 2)) } };
  await assertRejects(() => quantize(params, { type: "q4_2" as never }), OptionError, "did you mean q4_0?");
  await assertRejects(() => quantize(params, { type: "nf4", skip: ["laier"] }), OptionError, 'did you mean "layer"?');
  await assertRejects(() => quantize(params, { type: "q8_0" }), OptionError, "rows of 10 are no whole blocks of 32");
  const { layer } = await quantize(params, { type: "nf4" });
  assertEquals((await evaluate(dequantize(layer.weight)) as HostTensor).shape, [4, 10]);
});

Deno.test("random words of every type survive the trip to a device and back", async () => {
  using device = await openCpu({ threads: 1 });
  const data = randomPacked("q6_k", 512, 4);
  const tensor = upload(device, { shape: [2, 256], dtype: "q6_k", data });
  assertEquals((await read(tensor) as HostTensor).data, data);
});
