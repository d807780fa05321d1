import { type Aval, formatAval } from "../aval.ts";
import { LowrankError, OptionError, ShapeError } from "../errors.ts";
import { isFloat } from "../dtype.ts";
import { bind, type Graph, newInput, type Primitive, rebuild, type Value } from "../ir/graph.ts";
import { showArgument } from "../ops/arguments.ts";
import { broadcastTo, full } from "../ops/broadcast.ts";
import { asValue, constant } from "../ops/constant.ts";
import { add, convert, mul } from "../ops/elementwise.ts";
import { concat, slice } from "../ops/structure.ts";
import type { Operand } from "../tensor.ts";
import { leafValues } from "../trace.ts";
import { flatten } from "../tree.ts";
import type { Values } from "../tree_types.ts";
import { closeOver, inferBody } from "./body.ts";
import { vjp } from "./grad.ts";
import { checkFunction, checkOptions } from "../options.ts";

/** The chunks of a sum: `rows` are the first inputs, cut along axis 0; the others go whole to every chunk. */
interface SumParams {
  readonly rows: number;
  readonly chunk: number;
  readonly body: Graph;
  /** The body for the last chunk, where it is shorter than the others. */
  readonly rest: Graph | null;
}

/** Each chunk's inputs and body, in order. */
function chunksOf(inputs: readonly Value[], { rows, chunk, body, rest }: SumParams) {
  const n = inputs[0].shape[0];
  return Array.from({ length: Math.ceil(n / chunk) }, (_, i) => {
    const [start, end] = [i * chunk, Math.min(n, (i + 1) * chunk)];
    return {
      graph: end - start === chunk ? body : rest!,
      args: inputs.map((v, j) => j < rows ? slice(v, 0, start, end) : v),
    };
  });
}

/** Adds lists of values place by place. f16 and bf16 are added in f32. */
function addUp(lists: readonly (readonly Value[])[]): Value[] {
  return lists.reduce<Value[] | null>(
    (sums, list) =>
      sums === null
        ? [...list]
        : sums.map((s, i) =>
          isFloat(s.dtype) ? convert(add(convert(s, "f32"), convert(list[i], "f32")), s.dtype) : add(s, list[i])
        ),
    null,
  )!;
}

/**
 * Σ over chunks of rows. With a gradient, one pass over the chunks gives the loss and every gradient at once, chunk by
 * chunk, so that what a chunk makes on its way (the logits of a vocabulary) is never kept; the cotangent scales them later.
 */
export const sumOverPrim: Primitive<SumParams> = {
  name: "sumOver",
  define: (inputs, params) => addUp(chunksOf(inputs, params).map(({ graph, args }) => rebuild(graph, args))),
  infer: (avals, params) => {
    const { rows, chunk, body } = params;
    const part = ({ shape, dtype }: Aval): Aval => ({ shape: [chunk, ...shape.slice(1)], dtype });
    return inferBody("sumOver", body, avals.map((a, i) => i < rows ? part(a) : a));
  },
  vjp: "expand",
  linearize: (inputs, params, needs) => {
    const passes = chunksOf(inputs, params).map(({ graph, args }) => {
      const wrt = graph.inputs.filter((_, i) => needs[i]);
      const pass = vjp(graph, wrt, (outs) => outs.map((_, i) => i === 0 ? constant(1) : null));
      const present = pass.grads.filter((g) => g !== null);
      const results = rebuild({ inputs: graph.inputs, outputs: [...pass.outputs, ...present] }, args);
      let at = pass.outputs.length;
      const grads = pass.grads.map((g) => g === null ? null : results[at++]);
      return { outs: results.slice(0, pass.outputs.length), grads };
    });
    const outs = addUp(passes.map((p) => p.outs));
    const wrt = inputs.map((_, i) => i).filter((i) => needs[i]);
    const grads = wrt.map((index, at) => {
      const parts = passes.map((p) => p.grads[at]);
      if (parts.includes(null)) return null;
      const values = parts as Value[];
      return index < params.rows ? concat(values, 0) : addUp(values.map((v) => [v]))[0];
    });
    return {
      outs,
      pullback: ([ct, ...further]) => {
        if (further.some((c) => c !== null)) {
          throw new LowrankError(
            "only the first output of sumOver's body has a gradient, but one was asked for a further output: " +
              "return the sum of both as the first one, or stopGradient the further one",
          );
        }
        return inputs.map((_, i) => {
          const g = grads[wrt.indexOf(i)] ?? null;
          return ct && g && convert(mul(broadcastTo(ct, g.shape), convert(g, "f32")), g.dtype);
        });
      },
    };
  },
  batch: "expand",
  rebody: (inputs, { rows, chunk, body, rest }, rewrite) =>
    sumChunks((args) => rewrite(args[0].shape[0] === chunk ? body : rest!, args), inputs, rows, chunk),
  lowering: { kind: "expand" },
};

/** Traces the body once for whole chunks and once for a shorter last one, and binds the sum. */
function sumChunks(
  f: (args: readonly Value[]) => readonly Value[],
  inputs: readonly Value[],
  rows: number,
  chunk: number,
): readonly Value[] {
  const n = inputs[0].shape[0];
  const avals = (length: number) =>
    inputs.map((v, i): Aval => i < rows ? { shape: [length, ...v.shape.slice(1)], dtype: v.dtype } : v.aval);
  // Of no rows the sum is 0, of the avals that one row's would have.
  if (n === 0) return closeOver(f, avals(1)).graph.outputs.map(({ shape, dtype }) => full(shape, 0, dtype));
  const whole = closeOver(f, avals(chunk));
  const last = n % chunk === 0 ? null : closeOver(f, avals(n % chunk), whole.captures);
  const captures = last?.captures ?? whole.captures;
  // What only the last trace mentions is an unused input of the other.
  const unused = captures.slice(whole.captures.length).map((v) => newInput(v.aval));
  const body = { inputs: [...whole.graph.inputs, ...unused], outputs: whole.graph.outputs };
  return bind(sumOverPrim, [...inputs, ...captures], { rows, chunk, body, rest: last?.graph ?? null });
}

/**
 * Σ body(rows, consts) over chunks of `chunk` rows of axis 0 of every leaf of `xs`; the last chunk may be shorter. The body
 * returns a scalar f32, or a list that begins with one; further outputs are added up too but have no gradient. With a
 * gradient each chunk is computed once, forward and back together: this is how a loss over a large vocabulary runs without
 * its logits ever being stored.
 *
 * @throws {OptionError} when `chunk` is not a positive integer
 * @throws {ShapeError} when the leaves of `xs` differ in length, or the body's first output is not f32[]
 *
 * @example
 * ```ts
 * import { evaluate, grad, matmul, openDevice, reduceSum, sumOver, tanh, tensor, type Value } from "@lowrank/lowrank";
 *
 * using device = await openDevice("cpu");
 * const [x, w] = [tensor(device, [[1, 2], [3, 4], [5, 6]]), tensor(device, [[0.1], [0.2]])];
 * const loss = (w: Value, x: Value) =>
 *   sumOver((rows, w) => reduceSum(tanh(matmul(rows, w))), x, w, { chunk: 2 })[0];
 * console.log(await evaluate(grad(loss)(w, x))); // f32[2,1], from the rows 0 and 1, then row 2
 * ```
 */
export function sumOver<X, C>(
  body: (xs: Values<X>, consts: Values<C>) => Operand | readonly Operand[],
  xs: X,
  consts: C,
  options: { readonly chunk: number },
): Value[] {
  checkOptions("sumOver", options, { chunk: true });
  checkFunction("sumOver", body);
  const [rows, rest] = [flatten(xs), flatten(consts)];
  const inputs = leafValues([xs, consts]);
  const lengths = inputs.slice(0, rows.leaves.length).map((v) => v.shape[0]);
  const { chunk } = options;
  if (!Number.isInteger(chunk) || chunk < 1) {
    throw new OptionError(`sumOver takes chunks of a whole number of rows, at least 1, not ${showArgument(chunk)}`);
  }
  if (lengths.length === 0 || lengths.some((n) => n === undefined || n !== lengths[0])) {
    throw new ShapeError(`sumOver takes rows of one length: axis 0 of xs is ${lengths.join(", ") || "absent"}`);
  }
  const f = (args: readonly Value[]) => {
    const x = rows.unflatten(args.slice(0, rows.leaves.length)) as Values<X>;
    const c = rest.unflatten(args.slice(rows.leaves.length)) as Values<C>;
    const returned = body(x, c);
    const outputs = (Array.isArray(returned) ? returned as Operand[] : [returned as Operand]).map((v) => asValue(v));
    const first = outputs[0] && formatAval(outputs[0].aval);
    if (first !== "f32[]") {
      throw new ShapeError(`the body of sumOver returns ${first ?? "nothing"} first, where it takes f32[]`);
    }
    return outputs;
  };
  return [...sumChunks(f, inputs, rows.leaves.length, Math.min(chunk, lengths[0]))];
}
