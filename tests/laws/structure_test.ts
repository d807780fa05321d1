/** What a transform builds, counted: products with frozen weights, dispatches, memory. */
import { assert, assertEquals } from "@std/assert";
import { sizeOf } from "../../core/aval.ts";
import { type Graph, newInput, type Node, nodesOf, type Value } from "../../core/ir/graph.ts";
import type { Model } from "../../core/model.ts";
import { causalLoss } from "../../core/nn/loss.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { dotPrim, matmul } from "../../core/ops/contract.ts";
import { mul, tanh } from "../../core/ops/elementwise.ts";
import { trace } from "../../core/trace.ts";
import { checkpoint } from "../../core/transforms/checkpoint.ts";
import { grad, valueAndGrad } from "../../core/transforms/grad.ts";
import { sumOver } from "../../core/transforms/sum_over.ts";
import { vmap } from "../../core/transforms/vmap.ts";
import { flatten } from "../../core/tree.ts";
import { build, optimise } from "../../kernels/runtime/compile.ts";
import type { Kernel } from "../../kernels/ir/kernel.ts";
import { lora } from "../../lora/lora.ts";

const place = (...shape: number[]) => newInput({ shape, dtype: "f32" });
const [rows, width] = [32, 64];

/** A chain of linears under names l0, l1, …, with tanh between them. */
function chain(layers: number): Model<Record<string, { weight: Value }>, Value, Value> {
  const params = Object.fromEntries(
    Array.from({ length: layers }, (_, i) => [`l${i}`, { weight: place(width, width) }]),
  );
  return {
    architecture: "chain",
    params,
    sample: place(1, width),
    apply: (p, x) => Object.values(p).reduce((x, l) => tanh(matmul(x, l.weight)), x),
  };
}

/** Multiply-adds of the products of a graph that have one of `weights` as an operand, itself or as it is stored. */
function frozenFlops(graph: Graph, weights: readonly Value[]): number {
  const derived = new Set(weights);
  let flops = 0;
  for (const node of nodesOf(graph.outputs)) {
    const uses = node.inputs.some((v) => derived.has(v));
    if (node.prim === dotPrim) {
      if (uses) flops += flopsOf(node);
    } else if (uses && ["view", "alias"].includes(node.prim.lowering.kind)) node.outs.forEach((v) => derived.add(v));
  }
  return flops;
}

const flopsOf = ({ inputs: [a], outs: [out], params }: Node) =>
  sizeOf(out.shape) * sizeOf(params.contract[0].map((axis: number) => a.shape[axis]));

/** Forward and backward of a loss on a chain adapted at some layers, by the trainable leaves. */
function trainingGraph(layers: number, targets: string[]): { forward: number; both: number } {
  const model = chain(layers);
  const tuned = lora(model, { r: 4, alpha: 8, targets });
  const args = [tuned.trainable, tuned.frozen, place(rows, width)];
  const loss = (t: any, f: any, x: any) => reduceSum(tuned.apply(t, f, x));
  const frozenInputs = (graph: Graph) => {
    const first = flatten(tuned.trainable).leaves.length;
    return graph.inputs.slice(first, first + layers);
  };
  const [forward, both] = [loss, valueAndGrad(loss)].map((f) => {
    const graph = optimise(trace(f, args).graph);
    return frozenFlops(graph, frozenInputs(graph));
  });
  return { forward, both };
}

const one = rows * width * width;

Deno.test("backward multiplies by a frozen weight only above the lowest adapter, once each", () => {
  for (
    const [layers, targets, above] of [[3, ["l0"], 2], [3, ["l2"], 0], [4, ["l1", "l3"], 2], [5, ["l1"], 3]] as const
  ) {
    const { forward, both } = trainingGraph(layers, [...targets]);
    assertEquals(forward, layers * one);
    assertEquals(both - forward, above * one);
  }
});

Deno.test("a layer that is added below every adapter costs the backward pass nothing", () => {
  const backward = (layers: number, target: string) => {
    const { forward, both } = trainingGraph(layers, [target]);
    return both - forward;
  };
  assertEquals(backward(3, "l1"), backward(4, "l2"));
});

Deno.test("a LoRA linear is 2 dispatches forward and 4 backward, and makes nothing of the size of its output", () => {
  const model: Model<{ w: { weight: Value } }, Value, Value> = {
    architecture: "linear",
    params: { w: { weight: place(width, 96) } },
    sample: place(1, width),
    apply: (p, x) => matmul(x, p.w.weight),
  };
  const tuned = lora(model, { r: 8, alpha: 16, targets: ["w"] });
  const [x, dy] = [place(rows, width), place(rows, 96)];
  const forward = build(trace(tuned.apply, [tuned.trainable, tuned.frozen, x]).graph).program;
  assertEquals(forward.steps.length, 2);
  const both = (t: any, f: any, x: any, dy: any) => {
    const pulled = ({ t, x }: any) => {
      const y = tuned.apply(t, f, x);
      return [reduceSum(mul(y, dy)), y] as const;
    };
    const [[, y], grads] = valueAndGrad(pulled, { hasAux: true })({ t, x });
    return [y, grads];
  };
  const { program } = build(trace(both, [tuned.trainable, tuned.frozen, x, dy]).graph);
  assertEquals(program.steps.length, 2 + 4);
  // The arena holds the two r-wide products and no M x N array.
  assert(program.arenaBytes < 4 * rows * 96, `${program.arenaBytes} bytes`);
});

const isContract = (kernel: Kernel) => kernel.kind === "contract";

Deno.test("vmap over adapters with a shared base keeps one product with the base", () => {
  const tuned = lora(chain(1), { r: 4, alpha: 8, targets: ["l0"] });
  const stacked = { l0: { A: place(5, 4, width), B: place(5, width, 4) } };
  const many = vmap((t: any, f: any, x: any) => tuned.apply(t, f, x), { inAxes: [0, null, null] });
  const { graph } = trace(many, [stacked, tuned.frozen, place(rows, width)]);
  const base = graph.inputs[2];
  const dots = nodesOf(graph.outputs).filter((n) => n.prim === dotPrim && n.inputs.includes(base));
  assertEquals(dots.map((n) => n.outs[0].shape), [[rows, width]]);
});

const deep = (wrap: (f: (w: Value, x: Value) => Value) => (w: Value, x: Value) => Value) => (ws: Value[], x: Value) =>
  reduceSum(ws.reduce((x, w) => wrap((w, x) => tanh(tanh(matmul(tanh(x), w))))(w, x), x));

Deno.test("checkpoint: recomputation is not merged away, and the planned peak of memory falls", () => {
  const args = [Array.from({ length: 8 }, () => place(width, width)), place(256, width)];
  const [plain, kept] = [deep((f) => f), deep(checkpoint)].map((f) => build(trace(grad(f), args).graph));
  const tanhs = ({ graph }: { graph: Graph }) => nodesOf(graph.outputs).filter((n) => n.prim.name === "tanh").length;
  assert(tanhs(kept) > tanhs(plain), "what a checkpoint computes again is there twice");
  assert(kept.program.arenaBytes < plain.program.arenaBytes, `${kept.program.arenaBytes}, ${plain.program.arenaBytes}`);
});

Deno.test("sumOver computes each chunk once, forward and back together", () => {
  const loss = (x: any, w: any) => sumOver((x: any, w: any) => reduceSum(tanh(matmul(x, w))), x, w, { chunk: 64 })[0];
  const { graph } = build(trace(valueAndGrad(loss), [place(256, width), place(width, 512)]).graph);
  const dots = nodesOf(graph.outputs).filter((n) => n.prim === dotPrim);
  // Four chunks, each with its logits and what they pull back to x.
  assertEquals(dots.length, 4 * 2);
});

Deno.test("head and loss in chunks never hold the logits of all rows", () => {
  const vocabulary = 1000;
  const loss = (x: any, head: any, labels: any) =>
    causalLoss(matmul(x, head, { transposeB: true }), labels, { chunk: 32 });
  const labels = newInput({ shape: [2, 128], dtype: "i32" });
  const args = [place(2, 128, width), place(vocabulary, width), labels];
  const { program } = build(trace(grad(loss), args).graph);
  assert(program.arenaBytes < 4 * 256 * vocabulary / 2, `${program.arenaBytes} bytes`);
  assertEquals(program.steps.filter((s) => isContract(s.kernel)).length, 2 * 8);
});

Deno.test("two adapters on one base are one program: the adapter is an argument", () => {
  const tuned = lora(chain(2), { r: 4, alpha: 8, targets: "all-linear" });
  const program = () => {
    const other = Object.fromEntries(
      Object.keys(tuned.trainable).map((path) => [path, { A: place(4, width), B: place(width, 4) }]),
    );
    const { graph } = trace(tuned.apply, [other, tuned.frozen, place(rows, width)]);
    return JSON.stringify(build(graph).program);
  };
  assertEquals(program(), program());
});
