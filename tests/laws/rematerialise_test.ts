/** Rematerialisation: results keep their bits, memory falls, and only cheap work is done twice. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { newInput, type Value } from "../../core/ir/graph.ts";
import { geluTanh, silu } from "../../core/nn/activation.ts";
import { layerNorm, rmsNorm } from "../../core/nn/norm.ts";
import { softmax } from "../../core/nn/softmax.ts";
import { broadcastTo, reduceSum } from "../../core/ops/broadcast.ts";
import { constant } from "../../core/ops/constant.ts";
import { matmul } from "../../core/ops/contract.ts";
import { add, exp, mul, sin, sub, tanh } from "../../core/ops/elementwise.ts";
import { dropout } from "../../core/ops/random.ts";
import { transpose } from "../../core/ops/structure.ts";
import { upload } from "../../core/tensor.ts";
import { trace } from "../../core/trace.ts";
import { checkpoint } from "../../core/transforms/checkpoint.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { build } from "../../kernels/runtime/compile.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { read } from "../../kernels/runtime/read.ts";
import { devices } from "../devices.ts";

const [rows, width] = [12, 16];
const f32 = (...shape: number[]) => newInput({ shape, dtype: "f32" });

type Layer = (x: Value, w: Value, seed: number) => Value;

/** Layers of which something is saved for the way back: [rows,width] to [rows,width], by weights [width,width]. */
const layers: Record<string, Layer> = {
  gelu: (x, w) => matmul(geluTanh(matmul(x, w)), w),
  silu: (x, w) => mul(silu(matmul(x, w)), x),
  tanh: (x, w) => tanh(matmul(tanh(x), w)),
  waves: (x, w) => add(matmul(mul(sin(x), exp(sin(x))), w), x),
  layerNorm: (x, w) => add(x, matmul(layerNorm(x, reduceSum(w, 0), reduceSum(w, 1), 1e-5), w)),
  rmsNorm: (x, w) => add(x, matmul(tanh(rmsNorm(x, reduceSum(w, 0), 1e-5)), w)),
  turned: (x, w) =>
    add(x, transpose(layerNorm(sin(transpose(matmul(x, w), [1, 0])), gammaOf(x), gammaOf(x), 1e-5), [1, 0])),
  softmax: (x, w) => matmul(softmax(matmul(x, w)), w),
  own: (x, w) => {
    const centred = sub(x, mul(reduceSum(x, -1, { keep: true }), 1 / width));
    return matmul(mul(centred, tanh(centred)), w);
  },
  dropout: (x, w, seed) => matmul(dropout(tanh(x), keyOf(seed), 0.25), w),
};

/** A key u32[2] of random bits. */
const keyOf = (seed: number) => broadcastTo(constant(seed, "u32"), [2]);

/** f32[rows] of ones and a bit. */
const gammaOf = (x: Value) => add(mul(reduceSum(x, -1), 0.1), 1);

/** The loss of some layers in a row, some of them in a checkpoint. */
function lossOf(names: readonly string[], checkpointed: number) {
  return (ws: Value[], x: Value) => {
    const y = names.reduce((y, name, i) => {
      const layer = (x: Value, w: Value) => layers[name](x, w, i);
      return i === checkpointed ? checkpoint(layer)(y, ws[i]) : layer(y, ws[i]);
    }, x);
    return reduceSum(mul(y, y));
  };
}

const programs = fc.tuple(
  fc.array(fc.constantFrom(...Object.keys(layers)), { minLength: 2, maxLength: 6 }),
  fc.integer({ min: -3, max: 5 }),
);

for (const device of devices) {
  const exact = !device.name.startsWith("webgpu");
  Deno.test(`rematerialised values equal the ones that would have been kept, on ${device.name}`, async () => {
    using home = await device.open();
    let leaner = 0, runs = 0;
    await fc.assert(
      fc.asyncProperty(programs, async ([names, checkpointed]) => {
        const f = valueAndGrad(lossOf(names, checkpointed), { argnums: [0, 1] });
        let state = names.length;
        const random = (size: number) =>
          Float32Array.from({ length: size }, () => ((state = state * 48271 % 2147483647) / 2147483647 - 0.5) * 0.6);
        const ws = names.map(() => upload(home, { shape: [width, width], dtype: "f32", data: random(width * width) }));
        const x = upload(home, { shape: [rows, width], dtype: "f32", data: random(rows * width) });
        const [held, again] = await Promise.all(
          [0, Infinity].map((rematerialise) => read(jit(f, { rematerialise })(ws, x), { release: true })),
        );
        [...ws, x].forEach((t) => t.dispose());
        const flat = ([loss, [dws, dx]]: any) =>
          [loss, ...dws.flatMap((g: any) => [...g.data]), ...dx.data] as number[];
        if (exact) assertEquals(flat(again), flat(held), names.join());
        else {flat(again).forEach((a, i) =>
            assert(Math.abs(a - flat(held)[i]) <= 1e-4 * (1 + Math.abs(a)), names.join())
          );}
        const { graph } = trace(f, [ws.map(() => f32(width, width)), f32(rows, width)]);
        runs++;
        if (build(graph, new Set(), true, home, Infinity).memory.rematerialised.length > 0) leaner++;
      }),
      { numRuns: exact ? 40 : 4, seed: 11 },
    );
    assert(leaner > runs / 3, `only ${leaner} of ${runs} programs made anything again`);
  });
}

/** The program of `count` blocks of a norm, two products and an activation, with gradients of the weights. */
function blocks(count: number, rematerialise: number) {
  const block = (x: Value, [up, down, gamma]: Value[]) =>
    add(x, matmul(geluTanh(matmul(rmsNorm(x, gamma, 1e-5), up)), down));
  const loss = (ws: Value[][], x: Value) => reduceSum(tanh(ws.reduce(block, x)));
  const weights = Array.from({ length: count }, () => [f32(64, 256), f32(256, 64), f32(64)]);
  return build(trace(valueAndGrad(loss), [weights, f32(512, 64)]).graph, new Set(), true, {}, rematerialise);
}

Deno.test("norms and activations are rematerialised, products are not", () => {
  const [held, again] = [blocks(4, 0), blocks(4, 8)];
  assert(again.program.arenaBytes < 0.8 * held.program.arenaBytes, `${again.program.arenaBytes} bytes`);
  const products = ({ program }: typeof held) => program.steps.filter((s) => s.kernel.kind === "contract").length;
  assertEquals(products(again), products(held));
  const names = new Set(again.memory.rematerialised.map(({ value }) => value.node.prim.name));
  assert(names.has("rmsNorm"), [...names].join());
  assertEquals(held.memory.rematerialised, []);
});

Deno.test("what is dear to make is held: a dropped-out value, unless memory is worth more", () => {
  const loss = (w: Value, x: Value, key: Value) => reduceSum(tanh(matmul(dropout(x, key, 0.5), w)));
  const args = [f32(256, 64), f32(4096, 256), newInput({ shape: [2], dtype: "u32" })];
  const of = (trips: number) =>
    build(trace(valueAndGrad(loss), args).graph, new Set(), true, {}, trips).memory.rematerialised;
  assertEquals(of(8).length, 0);
  assertEquals(of(40).length, 1);
});
