import { bind, type Graph, newInput, type Primitive, rebuild, type Value } from "../ir/graph.ts";
import { barrier } from "../ops/control.ts";
import { leafValues } from "../trace.ts";
import { asValue } from "../ops/constant.ts";
import { flatten } from "../tree.ts";
import type { Arguments, Values } from "../tree_types.ts";
import { closeOver, inferBody } from "./body.ts";
import { vjp } from "./grad.ts";
import { batchGraph } from "./vmap.ts";

/**
 * A traced body as one node. Forward it is its body; backward it saves its inputs only and computes the rest again from a
 * barrier over (inputs, cotangents), so that the second computation is neither merged with the first nor started early.
 */
export const checkpointPrim: Primitive<{ body: Graph }> = {
  name: "checkpoint",
  define: (inputs, { body }) => rebuild(body, inputs),
  infer: (avals, { body }) => inferBody("checkpoint", body, avals),
  vjp: ({ cts, needs, inputs, params: { body } }) => {
    const asked = body.outputs.map((_, i) => i).filter((i) => cts[i] !== null);
    const ctInputs = asked.map((i) => newInput(body.outputs[i].aval));
    const wrt = body.inputs.filter((_, i) => needs[i]);
    const { grads } = vjp(body, wrt, (outs) => outs.map((_, i) => ctInputs[asked.indexOf(i)] ?? null));
    const found = wrt.filter((_, i) => grads[i] !== null);
    const backward = { inputs: [...body.inputs, ...ctInputs], outputs: grads.filter((g) => g !== null) };
    const given = asked.map((i) => cts[i]!);
    const results = rebuild(backward, [...barrier(inputs, given), ...given]);
    return body.inputs.map((v) => results[found.indexOf(v)] ?? null);
  },
  batch: ({ inputs, batched, params: { body }, size }) => [
    ...checkpointBody((args) => {
      const { outputs } = batchGraph(body, args, batched, size);
      return outputs;
    }, inputs),
  ],
  rebody: (inputs, { body }, rewrite) => checkpointBody((args) => rewrite(body, args), inputs),
  lowering: { kind: "expand" },
};

/** {@link checkpoint} of a function of values. */
function checkpointBody(f: (args: readonly Value[]) => readonly Value[], inputs: readonly Value[]): readonly Value[] {
  const { graph, captures } = closeOver(f, inputs.map((v) => v.aval));
  return bind(checkpointPrim, [...inputs, ...captures], { body: graph });
}

/**
 * The same function, which keeps only its inputs for the backward pass and computes everything else again there: less
 * memory for one more forward pass. Values and gradients are the same bit for bit. What `f` mentions from outside counts
 * as an input.
 *
 * Source: Chen et al. 2016, "Training deep nets with sublinear memory cost".
 *
 * @example
 * ```ts
 * import { checkpoint, evaluate, grad, matmul, openDevice, type Operand, reduceSum, tanh, tensor } from "@lowrank/lowrank";
 *
 * using device = await openDevice("cpu");
 * const layer = checkpoint((w: Operand, x: Operand) => tanh(matmul(x, w)));
 * const loss = (w: Operand, x: Operand) => reduceSum(layer(w, layer(w, x)));
 * const [w, x] = [tensor(device, [[1, 2], [3, 4]]), tensor(device, [[0.5, -0.25]])];
 * console.log(await evaluate(grad(loss)(w, x))); // f32[2,2]; each layer is computed a second time on the way back
 * ```
 */
export function checkpoint<A extends readonly unknown[], R>(
  f: (...args: A) => R,
): (...args: Arguments<A>) => Values<R> {
  return (...args) => {
    const flat = flatten(args);
    let unflatten!: (outputs: readonly unknown[]) => unknown;
    const outputs = checkpointBody((inputs) => {
      const out = flatten<Value>(f(...flat.unflatten(inputs) as unknown as A));
      unflatten = (o) => out.unflatten(o);
      return out.leaves.map((x) => asValue(x));
    }, leafValues(args));
    return unflatten(outputs) as Values<R>;
  };
}
