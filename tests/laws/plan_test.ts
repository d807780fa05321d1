/** What a plan is made of, by counting: no time is measured here. */
import { assert, assertEquals } from "@std/assert";
import { newInput, type Value } from "../../core/ir/graph.ts";
import type { Model } from "../../core/model.ts";
import { reduceSum, reshape } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { matmul } from "../../core/ops/contract.ts";
import { geluTanh } from "../../core/nn/activation.ts";
import { causalLoss } from "../../core/nn/loss.ts";
import { rmsNorm } from "../../core/nn/norm.ts";
import { softmax } from "../../core/nn/softmax.ts";
import { add, mul, tanh } from "../../core/ops/elementwise.ts";
import type { Operand, Tensor } from "../../core/tensor.ts";
import { trace } from "../../core/trace.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { mapTree } from "../../core/tree.ts";
import { build } from "../../kernels/runtime/compile.ts";
import { bytesOf, describeKernel, flopsOf } from "../../kernels/explain/describe.ts";
import { explain } from "../../kernels/explain/explain.ts";
import type { Program } from "../../kernels/ir/kernel.ts";
import { softwareTile } from "../../kernels/wgsl/tile.ts";
import { lora } from "../../lora/lora.ts";
import { oracleTensor } from "../../testing/oracle.ts";

const f32 = (...shape: number[]) => newInput({ shape, dtype: "f32" });
const zeros = (...shape: number[]) => oracleTensor(shape, new Array(shape.reduce((a, b) => a * b, 1)).fill(0));

/** y = x·W for each weight in turn, with a tanh between. */
function chain(width: number, layers: number): Model<any, { x: Operand }, any> {
  const entries = Array.from({ length: layers }, (_, i) => [`layer${i}`, { weight: zeros(width, width) }]);
  const apply = (p: any, { x }: { x: Operand }) =>
    Object.values(p).reduce((y: any, l: any, i) => matmul(i === 0 ? y : tanh(y), l.weight), x);
  return { params: Object.fromEntries(entries), apply, sample: { x: f32(1, width) } };
}

const [rows, width, r] = [128, 64, 8];
const avals = (tree: unknown) => mapTree(tree, (x: Tensor) => newInput(x.aval));

/** The plan of the loss of an adapted chain, with gradients by the adapter alone or by it and the input. */
function planOf(layers: number, targets: string[] | "all-linear", argnums: number[] | null): Program {
  const tuned = lora(chain(width, layers), { r, alpha: 16, targets });
  const loss = (t: any, x: any, w: any, ct: any) => reduceSum(mul(tuned.apply(t, w, { x }), ct));
  const args = [avals(tuned.trainable), f32(rows, width), avals(tuned.frozen), f32(rows, width)];
  const f = argnums ? valueAndGrad(loss, { argnums }) : (t: any, x: any, w: any) => tuned.apply(t, w, { x });
  return build(trace(f, args).graph).program;
}

const products = (program: Program) => program.steps.filter((s) => s.kernel.kind === "contract").map((s) => s.kernel);

Deno.test("a LoRA linear is two kernels forward", () => {
  const { steps, arenaBytes } = planOf(1, "all-linear", null);
  assertEquals(steps.map((s) => describeKernel(s.kernel)), ["contract 128 x 8, k 64", "contract 128 x 64, k 64 + 8"]);
  assertEquals(arenaBytes, rows * r * 4, "nothing is kept but x·A");
});

Deno.test("a LoRA linear is two products forward and four back, with no wide buffer but y and its cotangent", () => {
  const program = planOf(1, "all-linear", [0, 1]);
  assertEquals(products(program).map(describeKernel), [
    "contract 128 x 8, k 64", // u = s·x·A
    "contract 128 x 64, k 64 + 8", // y = [x | u]·[W ; B]
    "contract 128 x 8, k 64", // s·dY·Bᵀ
    "contract 64 x 8, k 128", // dB
    "contract 8 x 64, k 128", // dA
    "contract 128 x 64, k 64 + 8", // dX
  ]);
  assertEquals(program.arenaBytes, rows * (width + r) * 4, "y and u; u's cotangent takes the place of y");
});

Deno.test("the backward pass costs the frozen products of the layers above the lowest adapter, and no more", () => {
  // Products with a frozen weight are those whose K is the width; low-rank ones have r in their sizes.
  const frozenFlops = (program: Program) => {
    let sum = 0;
    for (const k of products(program)) {
      if (k.kind === "contract" && k.m === rows && k.n === width) sum += 2 * k.m * k.n * k.segments[0].k;
    }
    return sum;
  };
  const layer = 2 * rows * width * width;
  for (const layers of [1, 2, 4]) {
    assertEquals(
      frozenFlops(planOf(layers, [`layer${layers - 1}`], [0])),
      layers * layer,
      `only the last of ${layers}`,
    );
    assertEquals(frozenFlops(planOf(layers, ["layer0"], [0])), (2 * layers - 1) * layer, `the first of ${layers}`);
  }
});

Deno.test("what lies below the lowest adapter costs a training step no more than the forward pass, in kernels and memory", () => {
  // Blocks of a norm, a product and an activation, of which the last two alone are adapted.
  const programOf = (below: number, gradients: boolean) => {
    const names = Array.from({ length: below + 2 }, (_, i) => `block${i}`);
    const params = Object.fromEntries(
      names.map((name) => [name, { weight: zeros(width, width), gamma: zeros(width) }]),
    );
    const apply = (p: any, { x }: { x: Operand }) =>
      names.reduce(
        (y: any, name) => add(y, geluTanh(matmul(rmsNorm(y, p[name].gamma, 1e-5), p[name].weight))),
        asValue(x),
      );
    const model: Model<any, { x: Operand }, any> = { params, apply, sample: { x: f32(1, width) } };
    const tuned = lora(model, { r, alpha: 16, targets: names.slice(-2) });
    const loss = (t: any, x: any, w: any) => reduceSum(tanh(tuned.apply(t, w, { x })));
    const args = [avals(tuned.trainable), f32(rows, width), avals(tuned.frozen)];
    return build(trace(gradients ? valueAndGrad(loss) : loss, args).graph).program;
  };
  const added = (gradients: boolean) => {
    const [few, many] = [1, 4].map((below) => programOf(below, gradients));
    return { steps: many.steps.length - few.steps.length, bytes: many.arenaBytes - few.arenaBytes };
  };
  assertEquals(added(true), added(false));
  assertEquals(added(true).bytes, 0, "nothing of the blocks below is held");
});

Deno.test("FLOPs of a product are two a multiply-add", () => {
  const [u, y] = products(planOf(1, "all-linear", null));
  assertEquals(flopsOf(y), 2 * rows * width * (width + r));
  assertEquals(flopsOf(u), 2 * rows * r * width + rows * r);
});

Deno.test("a fused LoRA linear has fewer dispatches and moves fewer bytes than one kernel a node, of every shape", () => {
  const linear = (x: Value, w: Value, a: Value, b: Value) => add(matmul(x, w), matmul(mul(matmul(x, a), 2), b));
  const both = (x: Value, w: Value, a: Value, b: Value, ct: Value) =>
    valueAndGrad((x: Value, a: Value, b: Value) => reduceSum(mul(linear(x, w, a, b), ct)), { argnums: [0, 1, 2] })(
      x,
      a,
      b,
    );
  for (const [m, k, n, r] of [[1, 768, 2304, 8], [128, 576, 1536, 8], [512, 2048, 2048, 16]]) {
    const args = [f32(m, k), f32(k, n), f32(k, r), f32(r, n), f32(m, n)];
    for (const f of [linear, both]) {
      const [fused, apart] = [true, false].map((fuse) => {
        const { program } = build(trace(f as never, args.slice(0, f.length)).graph, new Set(), fuse);
        return { steps: program.steps.length, bytes: program.steps.reduce((sum, s) => sum + bytesOf(s.kernel), 0) };
      });
      assert(fused.steps < apart.steps, `${f.name} ${m} x ${k} x ${n}: ${fused.steps} of ${apart.steps} steps`);
      assert(fused.bytes < apart.bytes, `${f.name} ${m} x ${k} x ${n}: ${fused.bytes} of ${apart.bytes} bytes`);
    }
  }
});

Deno.test("a row kernel takes the place of a dying operand that it reads only where it writes", () => {
  const wide = (f: (x: Value) => Value) =>
    build(trace((x: Value, w: Value) => f(matmul(x, w)), [f32(rows, width), f32(width, width)]).graph).program;
  const [once, twice] = [wide((x) => mul(softmax(x), 2)), wide((x) => mul(softmax(x), x))];
  assertEquals(once.arenaBytes, rows * width * 4, "logits and probabilities");
  assertEquals(twice.arenaBytes, 2 * rows * width * 4, "logits that are needed again");
});

Deno.test("of a head and its loss in chunks, the logits of one chunk are held at a time", () => {
  const [tokens, vocabulary, chunk] = [64, 4096, 16];
  const loss = (x: Value, w: Value, labels: Value) =>
    causalLoss(reshape(matmul(x, w), [1, tokens, vocabulary]), labels, { chunk });
  const args = [f32(tokens, 8), f32(8, vocabulary), newInput({ shape: [1, tokens], dtype: "i32" })];
  const { arenaBytes } = build(trace(valueAndGrad(loss), args).graph).program;
  const logits = chunk * vocabulary * 4;
  assert(arenaBytes < 1.1 * logits, `${arenaBytes} bytes, where one chunk's logits are ${logits}`);
});

Deno.test("one long row is reduced in two stages, many rows in one", () => {
  const stepsOf = (...shape: number[]) =>
    build(trace((x: Value) => reduceSum(x), [f32(...shape)]).graph).program.steps.map((s) => describeKernel(s.kernel));
  assertEquals(stepsOf(512, 768), ["row 256 of 1536: sum, once", "row 1 of 256: sum, once"]);
  assertEquals(stepsOf(512), ["row 1 of 512: sum, once"]);
});

Deno.test("explain shows a LoRA linear, forward and backward, within 80 columns", async () => {
  const tuned = lora(chain(768, 1), { r, alpha: 16, targets: "all-linear" });
  const loss = (t: any, x: any, w: any, ct: any) => reduceSum(mul(tuned.apply(t, w, { x }), ct));
  const page = explain(valueAndGrad(loss, { argnums: [0, 1] }), { tile: softwareTile })(
    avals(tuned.trainable),
    f32(512, 768),
    avals(tuned.frozen),
    f32(512, 768),
  );
  assertEquals(page.split("\n").filter((line) => line.length > 80), []);
  const file = new URL("../snapshots/explain_lora_linear.txt", import.meta.url);
  if (Deno.env.get("UPDATE_SNAPSHOTS")) await Deno.writeTextFile(file, page);
  assertEquals(page, await Deno.readTextFile(file));
});
