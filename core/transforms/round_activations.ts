/** Activations rounded to bytes where they meet packed weights, as llama.cpp does: products of integers, which are faster. */
import { defineComposite } from "../ir/composite.ts";
import { bind1, type Primitive, rebuild, type Value } from "../ir/graph.ts";
import { reshape } from "../ops/broadcast.ts";
import { type DotDims, dotPrim } from "../ops/contract.ts";
import { abs, add, div, floor, max, mul } from "../ops/elementwise.ts";
import { dequantizePrim } from "../ops/quantize.ts";
import { reduceMax } from "../ops/reduce.ts";
import { packedFormats, type PackedType, packedTypes } from "../packed/blocks.ts";
import { expand } from "../passes/expand.ts";
import { leafValues, trace } from "../trace.ts";
import type { Arguments, Values } from "../tree_types.ts";

/** Values that share a step. */
const block = 32;

/**
 * f32[…, K] in blocks of 32 along the last axis, each value to the nearest of 255 multiples of a step: the greatest magnitude
 * of its block / 127. Halves go up; blocks of less than 1e-30 become zeros; what is not finite makes its block NaN.
 */
const roundToBytesPrim: Primitive<null> = defineComposite<null>({
  name: "roundToBytes",
  define: ([x]) => {
    const blocks = reshape(x, [...x.shape.slice(0, -1), x.shape.at(-1)! / block, block]);
    const most = reduceMax(abs(blocks), -1, { keep: true });
    const bytes = floor(add(mul(blocks, div(127, max(most, 1e-30))), 0.5));
    return [reshape(mul(bytes, div(most, 127)), x.shape)];
  },
  // The rounding is passed over, as is usual where weights learn beside it.
  vjp: ({ cts: [ct] }) => [ct],
  batch: ({ inputs: [x] }) => [bind1(roundToBytesPrim, [x], null)],
  lowering: { kind: "rounded" },
});

/** The types whose codes are integers. */
export const roundedTypes: readonly PackedType[] = packedTypes.filter((type) => packedFormats[type].code !== "table");

/**
 * The same function with activations rounded to 8 bits wherever they are multiplied with packed weights of whole codes
 * (Q4_0, Q4_1, Q8_0, Q4_K, Q6_K) along their rows: in blocks of 32, each with its own step. All other products stay as they are.
 * It is for generating text: on the CPU a token then takes integer products, which are twice as fast. Each activation is off
 * by at most half a step, 0.4 % of the greatest in its block. Gradients pass over the rounding.
 *
 * Results are the same bits on every CPU, with relaxed SIMD or without, as far as these products go. On WebGPU, and for more
 * than four rows, activations are rounded just so and multiplied in f32.
 *
 * @example
 * ```ts
 * import { evaluate, matmul, openDevice, type Operand, quantize, roundActivations, tensor } from "@lowrank/lowrank";
 *
 * using device = await openDevice("cpu");
 * const rows = Array.from({ length: 4 }, (_, r) => Array.from({ length: 64 }, (_, c) => Math.sin(r + c)));
 * const { weight } = await quantize({ weight: tensor(device, rows) }, { type: "q4_1" });
 * const product = (x: Operand) => matmul(x, weight, { transposeB: true });
 * const x = tensor(device, rows.slice(0, 1));
 * console.log(await evaluate([product(x), roundActivations(product)(x)])); // apart by less than a hundredth
 * ```
 */
export function roundActivations<A extends readonly unknown[], R>(
  f: (...args: A) => R,
): (...args: Arguments<A>) => Values<R> {
  return (...args) => {
    const { graph, unflatten } = trace(f, args);
    // What stands in bodies is rounded, too.
    const opened = expand(graph, (node) => node.prim.rebody !== undefined);
    const rounded = new Map<Value, Value>();
    const round = (x: Value) => {
      const known = rounded.get(x) ?? bind1(roundToBytesPrim, [x], null);
      rounded.set(x, known);
      return known;
    };
    const outputs = rebuild(
      opened,
      leafValues(args),
      (node, [a, b]) => node.prim === dotPrim && meetsBytes(a, b, node.params) ? [dot(round(a), b, node.params)] : null,
      { all: true },
    );
    return unflatten(outputs) as Values<R>;
  };
}

const dot = (a: Value, b: Value, dims: DotDims) => bind1(dotPrim, [a, b], dims);

/** Whether a dot is one of rows, whole blocks of f32, with the rows of a packed matrix. */
function meetsBytes(a: Value, b: Value, { contract: [ca, cb], batch }: DotDims): boolean {
  const { prim, inputs: [packed] } = b.node;
  return prim === dequantizePrim && roundedTypes.includes(packed.dtype as PackedType) && packed.shape.length === 2 &&
    a.dtype === "f32" && a.shape.at(-1)! % block === 0 && batch[0].length === 0 && ca.length === 1 &&
    ca[0] === a.shape.length - 1 && cb[0] === 1;
}
