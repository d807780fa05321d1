/** Inputs for every primitive of the registry: what the laws are generated from. */
import { type Aval, sizeOf } from "../../core/aval.ts";
import { type DType, isFloat } from "../../core/dtype.ts";
import { isPacked, packedTypes } from "../../core/packed/blocks.ts";
import { randomPacked } from "../../testing/packed_reference.ts";
import { binary as oracleBinary, convertTo, unary as oracleUnary } from "../../testing/oracle_scalar.ts";
import { fromHost, type OracleTensor } from "../../testing/oracle.ts";
import { noise } from "../../testing/toy_models.ts";

/** One input: its aval and the range that its contents are drawn from. */
export interface InputSpec extends Aval {
  readonly range: readonly [number, number];
}

/** A primitive applied to inputs. */
export interface PrimitiveCase {
  readonly inputs: readonly InputSpec[];
  readonly params: unknown;
  /** How many terms are added up for one element of the result, where it is a sum. */
  readonly length?: number;
  /** Inputs that can't be mapped over: the rule says so by an error. */
  readonly unmapped?: readonly number[];
}

const of = (dtype: DType, low: number, high: number) => (...shape: number[]): InputSpec => ({
  shape,
  dtype,
  range: [low, high],
});
const f = of("f32", -2, 2), positive = of("f32", 0.5, 2), half = of("f16", -2, 2), i = of("i32", -9, 9);
const u = of("u32", 0, 4e9), natural = of("i32", 1, 9), bool = of("bool", 0, 2), shift = of("i32", 0, 31);
const index = (below: number) => of("i32", 0, below);

type Spec = (...shape: number[]) => InputSpec;
/** Elementwise: of some elements, of one, of none. */
const sizes = [[3, 5], [1], [2, 0]];
const elementwise = (specs: readonly Spec[], params: unknown = null): PrimitiveCase[] =>
  sizes.map((shape) => ({ inputs: specs.map((spec) => spec(...shape)), params }));
const unary = (...specs: Spec[]): PrimitiveCase[] => specs.flatMap((spec) => elementwise([spec]));
const binary = (...pairs: [Spec, Spec][]): PrimitiveCase[] => pairs.flatMap((pair) => elementwise(pair));
const dotCase = (a: number[], b: number[], contract: number[][], batch: number[][] = [[], []]): PrimitiveCase => ({
  inputs: [f(...a), f(...b)],
  params: { contract, batch },
  length: sizeOf(contract[0].map((axis) => a[axis])),
});

/** Scalar operations have numbers around 1, unless they are named below. */
const scalars = {
  ...Object.fromEntries(Object.keys(oracleUnary).map((name) => [name, unary(positive)])),
  ...Object.fromEntries(Object.keys(oracleBinary).map((name) => [name, binary([positive, positive])])),
};

/** By the primitive's name. A primitive of the registry that is missing here fails a test. */
export const primitiveCases: Readonly<Record<string, readonly PrimitiveCase[]>> = {
  ...scalars,
  neg: unary(f, i),
  abs: unary(f, i),
  sign: unary(f, i),
  floor: unary(f),
  exp: unary(f),
  tanh: unary(f),
  erf: unary(f),
  sin: unary(f),
  cos: unary(f),
  isFinite: unary(f),
  not: unary(bool, i, u),
  add: binary([f, f], [i, i], [u, u]),
  sub: binary([f, f], [i, i], [u, u]),
  mul: binary([f, f], [i, i], [u, u]),
  div: binary([f, positive], [i, natural]),
  rem: binary([f, positive], [i, natural]),
  pow: binary([positive, f]),
  max: binary([f, f], [i, i], [u, u]),
  min: binary([f, f], [i, i], [u, u]),
  eq: binary([i, i], [bool, bool]),
  ne: binary([i, i], [bool, bool]),
  lt: binary([f, f], [i, i], [u, u]),
  le: binary([f, f], [i, i], [u, u]),
  gt: binary([f, f], [i, i], [u, u]),
  ge: binary([f, f], [i, i], [u, u]),
  and: binary([i, i], [bool, bool]),
  or: binary([i, i], [bool, bool]),
  xor: binary([i, i], [bool, bool]),
  shl: binary([i, shift]),
  shr: binary([i, shift]),
  select: elementwise([bool, f, f]),
  convert: [
    ...elementwise([f], { dtype: "i32" }),
    ...elementwise([i], { dtype: "f32" }),
    ...elementwise([f], { dtype: "bf16" }),
    ...elementwise([half], { dtype: "f32" }),
    ...elementwise([i], { dtype: "bool" }),
  ],
  bitcast: [
    ...elementwise([f], { dtype: "u32" }),
    ...elementwise([of("u32", 1e9, 1.1e9)], { dtype: "f32" }),
  ],
  broadcast: [
    { inputs: [f(3)], params: { shape: [2, 3, 4], dims: [1] } },
    { inputs: [f(1, 4)], params: { shape: [3, 4], dims: [0, 1] } },
    { inputs: [f()], params: { shape: [2, 2], dims: [] } },
    { inputs: [f(1, 3)], params: { shape: [0, 3], dims: [0, 1] } },
    { inputs: [f(0)], params: { shape: [2, 0], dims: [1] } },
  ],
  reshape: [
    { inputs: [f(3, 4)], params: { shape: [2, 6] } },
    { inputs: [f(2, 3, 2)], params: { shape: [12] } },
    { inputs: [f(1)], params: { shape: [] } },
    { inputs: [f(2, 0, 3)], params: { shape: [0] } },
    { inputs: [f(0)], params: { shape: [4, 0, 5] } },
  ],
  transpose: [
    { inputs: [f(2, 3, 4)], params: { permutation: [2, 0, 1] } },
    { inputs: [f(1, 0)], params: { permutation: [1, 0] } },
  ],
  slice: [
    { inputs: [f(4, 5)], params: { start: [1, 2], size: [2, 3] } },
    { inputs: [f(4, 5)], params: { start: [3, 5], size: [1, 0] } },
    { inputs: [f(0, 5)], params: { start: [0, 1], size: [0, 1] } },
  ],
  pad: [
    { inputs: [f(2, 3)], params: { low: [1, 0], high: [0, 2] } },
    { inputs: [f(0, 3)], params: { low: [1, 0], high: [1, 0] } },
    { inputs: [f(0, 1)], params: { low: [0, 1], high: [0, 0] } },
  ],
  concat: [
    { inputs: [f(2, 3), f(2, 1), f(2, 2)], params: { axis: 1 } },
    { inputs: [f(2, 0), f(2, 1), f(2, 0)], params: { axis: 1 } },
    { inputs: [f(0, 2), f(0, 1)], params: { axis: 1 } },
  ],
  split: [
    { inputs: [f(2, 6)], params: { axis: 1, sizes: [1, 3, 2] } },
    { inputs: [f(2, 3)], params: { axis: 1, sizes: [0, 3, 0] } },
    { inputs: [f(0, 3)], params: { axis: 1, sizes: [1, 2] } },
  ],
  reduceSum: [
    { inputs: [f(3, 4, 5)], params: { axes: [1] }, length: 4 },
    { inputs: [f(3, 4, 5)], params: { axes: [1, 2] }, length: 20 },
    { inputs: [f(7)], params: { axes: [0] }, length: 7 },
    { inputs: [f(1, 1)], params: { axes: [1] }, length: 1 },
    { inputs: [f(3, 0)], params: { axes: [1] }, length: 0 },
    { inputs: [f(0, 3)], params: { axes: [0] }, length: 0 },
    { inputs: [f(0, 3)], params: { axes: [1] }, length: 3 },
    { inputs: [f(0)], params: { axes: [0] }, length: 0 },
    { inputs: [i(2, 0, 3)], params: { axes: [1, 2] }, length: 0 },
  ],
  reduceMax: [
    { inputs: [f(3, 4)], params: { axes: [1] } },
    { inputs: [f(3, 4)], params: { axes: [0] } },
    { inputs: [f(3, 1)], params: { axes: [1] } },
    { inputs: [f(0, 4)], params: { axes: [1] } },
  ],
  argmax: [
    { inputs: [f(3, 4)], params: { axis: 1 } },
    { inputs: [f(3, 4, 2)], params: { axis: 1 } },
    { inputs: [f(3, 1)], params: { axis: 1 } },
    { inputs: [f(0, 4)], params: { axis: 1 } },
  ],
  dot: [
    dotCase([3, 4], [4, 5], [[1], [0]]),
    dotCase([2, 3, 4], [5, 4], [[2], [1]]),
    dotCase([4, 3], [5, 4], [[0], [1]]),
    dotCase([2, 3, 4], [2, 4, 5], [[2], [1]], [[0], [0]]),
    dotCase([2, 3, 4], [4, 3, 5], [[1, 2], [1, 0]]),
    dotCase([4], [4], [[0], [0]]),
    { inputs: [f(3, 4), half(4, 5)], params: { contract: [[1], [0]], batch: [[], []] }, length: 4 },
    dotCase([1, 1], [1, 1], [[1], [0]]),
    dotCase([0, 4], [4, 5], [[1], [0]]),
    dotCase([3, 0], [0, 5], [[1], [0]]),
    dotCase([3, 4], [4, 0], [[1], [0]]),
    dotCase([0], [0], [[0], [0]]),
    dotCase([0, 3, 4], [0, 4, 5], [[2], [1]], [[0], [0]]),
    dotCase([2, 3, 0], [2, 0, 5], [[2], [1]], [[0], [0]]),
  ],
  gather: [
    { inputs: [f(6, 3), index(6)(2, 4)], params: null },
    { inputs: [f(6), of("i32", -3, 9)(5)], params: null },
    { inputs: [half(6, 3), index(6)(4)], params: null },
    { inputs: [f(1, 1), index(1)(1)], params: null },
    { inputs: [f(6, 0), index(6)(4)], params: null },
    { inputs: [f(6, 3), index(6)(0)], params: null },
    { inputs: [f(0, 3), index(1)(2, 0)], params: null },
  ],
  scatterAdd: [
    { inputs: [index(4)(6), f(6, 3)], params: { targets: 4 }, length: 6 },
    { inputs: [of("i32", -2, 6)(2, 3), f(2, 3, 2)], params: { targets: 4 }, length: 6 },
    { inputs: [index(1)(1), f(1, 1)], params: { targets: 1 }, length: 1 },
    { inputs: [index(4)(0), f(0, 3)], params: { targets: 4 }, length: 0 },
    { inputs: [index(4)(6), f(6, 3)], params: { targets: 0 }, length: 6 },
    { inputs: [index(4)(6), f(6, 0)], params: { targets: 4 }, length: 6 },
  ],
  dynamicSlice: [
    { inputs: [f(4, 5), index(4)(), index(5)()], params: { sizes: [2, 3] }, unmapped: [1, 2] },
    { inputs: [f(4, 5), index(4)(), index(5)()], params: { sizes: [0, 1] }, unmapped: [1, 2] },
    { inputs: [f(0), index(4)()], params: { sizes: [0] }, unmapped: [1] },
  ],
  dynamicUpdateSlice: [
    { inputs: [f(4, 5), f(2, 2), index(4)(), index(5)()], params: null, unmapped: [2, 3] },
    { inputs: [f(4, 5), f(2, 0), index(4)(), index(5)()], params: null, unmapped: [2, 3] },
    { inputs: [f(0, 1), f(0, 1), index(4)(), index(5)()], params: null, unmapped: [2, 3] },
  ],
  randomBits: [[3, 5], [1], [0, 5]].map((shape) => ({ inputs: [u(2)], params: { shape } })),
  dequantize: packedTypes.flatMap((dtype) =>
    [[2, 256], [0, 256]].map((shape) => ({ inputs: [of(dtype, 0, 0)(...shape)], params: null, length: 2 }))
  ),
  stopGradient: unary(f),
  barrier: [[2, 2], [1], [0]].map((shape) => ({ inputs: [f(3), f(...shape), f(4)], params: { count: 2 } })),
};

/** Contents for an input, repeatable: whole numbers for integers, numbers that the dtype holds exactly for floats. */
export function drawInput({ shape, dtype, range: [low, high] }: InputSpec, seed: number): OracleTensor {
  if (isPacked(dtype)) return fromHost({ shape, dtype, data: randomPacked(dtype, sizeOf(shape), seed) });
  const next = noise(seed);
  const data = Float64Array.from({ length: sizeOf(shape) }, () => {
    const x = low + (high - low) * (next() + 1) / 2;
    return isFloat(dtype) ? convertTo(Math.fround(x), dtype, "f32") : Math.floor(x);
  });
  return { shape, dtype, data };
}

/** Every case with a name for a test. */
export function eachCase(): { name: string; prim: string; spec: PrimitiveCase; data: OracleTensor[] }[] {
  return Object.entries(primitiveCases).flatMap(([prim, cases]) =>
    cases.map((spec, at) => ({
      name: `${prim} ${spec.inputs.map((x) => `${x.dtype}[${x.shape}]`).join(", ")} ${JSON.stringify(spec.params)}`,
      prim,
      spec,
      data: spec.inputs.map((input, j) => drawInput(input, 1 + at + 31 * j)),
    }))
  );
}
