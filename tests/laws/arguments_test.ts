/**
 * Every operation of the public surface, called wrongly in every way: an axis, a shape, a size or a dtype that there is not is
 * a ShapeError, and nothing is ever computed but what the oracle computes too. An operation that is missing here fails a test.
 */
import { assert, assertEquals, AssertionError } from "@std/assert";
import type { DType } from "../../core/dtype.ts";
import { LowrankError, ShapeError } from "../../core/errors.ts";
import { Value } from "../../core/ir/graph.ts";
import * as nn from "../../core/nn/mod.ts";
import { randomKey } from "../../core/random.ts";
import { type HostTensor, type Tensor, tensor, upload } from "../../core/tensor.ts";
import { vmap } from "../../core/transforms/vmap.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { read } from "../../kernels/runtime/read.ts";
import * as surface from "../../mod.ts";
import { assertAllClose } from "../../testing/all_close.ts";
import { elementwise, resultFor } from "../../testing/elementwise.ts";
import { fromHost, type OracleTensor, runOracle, toHost } from "../../testing/oracle.ts";
import { drawInput } from "./primitive_cases.ts";

/** What an argument is, with one that is right. */
type Kind =
  /** An array of this shape and dtype. */
  | { readonly is: "operand"; readonly value: OracleTensor }
  /** An axis of an array of rank `rank`; several may be a list of such. */
  | { readonly is: "axis" | "axes"; readonly value: number | readonly number[]; readonly rank: number }
  | { readonly is: "shape"; readonly value: readonly number[] }
  /** A whole number from 0, or a list of such. */
  | { readonly is: "size" | "sizes"; readonly value: number | readonly number[] }
  | { readonly is: "dtype"; readonly value: DType }
  /** Whatever else: it stays as it is. */
  | { readonly is: "given"; readonly value: unknown };

const array = (shape: number[], dtype: DType = "f32", range: [number, number] = [0.5, 2]): Kind => ({
  is: "operand",
  value: drawInput({ shape, dtype, range }, 3),
});
const f = (...shape: number[]) => array(shape);
const i = (...shape: number[]) => array(shape, "i32", [0, 2]);
const b = (...shape: number[]) => array(shape, "bool", [0, 2]);
const key: Kind = { is: "operand", value: fromHost(randomKey(3)) };
const axis = (value: number, rank: number): Kind => ({ is: "axis", value, rank });
const axes = (value: number | number[], rank: number): Kind => ({ is: "axes", value, rank });
const shape = (...value: number[]): Kind => ({ is: "shape", value });
const size = (value: number): Kind => ({ is: "size", value });
const sizes = (...value: number[]): Kind => ({ is: "sizes", value });
const dtype = (value: DType): Kind => ({ is: "dtype", value });
const given = (value: unknown): Kind => ({ is: "given", value });

/** A right call of an operation; `apply` where arguments stand inside others. */
interface Call {
  readonly args: readonly Kind[];
  readonly apply?: (...args: any[]) => unknown;
}

const activations = ["sigmoid", "logSigmoid", "gelu", "geluTanh", "silu"];
const { dot, scatterAdd, concat, split, dynamicSlice, dynamicUpdateSlice, attention, rope } = surface;
const heads = (tokens: number, count: number) => f(2, tokens, count, 4);

const calls: Record<string, Call | readonly Call[]> = {
  ...Object.fromEntries(elementwise.map((each) => {
    const operand = resultFor(each, "f32") === null ? i(2, 3) : f(2, 3);
    return [each.called, { args: Array<Kind>(each.operands).fill(operand) }];
  })),
  ...Object.fromEntries(activations.map((name) => [name, { args: [f(2, 3)] }])),
  swiglu: { args: [f(2, 3), f(2, 3)] },
  stopGradient: { args: [f(2, 3)] },
  select: { args: [b(2, 3), f(2, 3), f(2, 3)] },
  clamp: { args: [f(2, 3), f(2, 3), f(2, 3)] },
  convert: { args: [f(2, 3), dtype("i32")] },
  bitcast: { args: [f(2, 3), dtype("u32")] },
  dequantize: { args: [array([2, 256], "q8_0")] },
  broadcastTo: { args: [f(1, 3), shape(2, 3)] },
  full: { args: [shape(2, 3), given(1), dtype("f32")] },
  constant: { args: [given(1), dtype("i32")] },
  reshape: [{ args: [f(2, 3), shape(3, 2)] }, { args: [f(2, 3), given([-1, 2])] }],
  reduceSum: [{ args: [f(2, 3), axis(1, 2)] }, { args: [f(2, 3, 2), axes([0, 2], 3)] }],
  reduceMax: [{ args: [f(2, 3), axis(1, 2)] }, { args: [f(2, 3, 2), axes([0, 2], 3)] }],
  mean: [{ args: [f(2, 3), axis(1, 2)] }, { args: [f(2, 3, 2), axes([0, 2], 3)] }],
  argmax: { args: [f(2, 3), axis(0, 2)] },
  cumsum: { args: [f(2, 3)] },
  dot: {
    args: [f(2, 3, 4), f(2, 4, 5), axes([2], 3), axes([1], 3), axes([0], 3), axes([0], 3)],
    apply: (x, y, a, b, c, d) => dot(x, y, { contract: [a, b], batch: [c, d] }),
  },
  matmul: [
    { args: [f(2, 3), f(3, 4)] },
    { args: [f(2, 3), f(4, 3), given({ transposeB: true })] },
    { args: [f(2, 2, 3), f(2, 3, 4)] },
  ],
  gather: { args: [f(3, 2), i(4)] },
  scatterAdd: { args: [i(4), f(4, 2), size(3)], apply: scatterAdd },
  dynamicSlice: { args: [f(3, 4), i(), i(), sizes(2, 2)], apply: (x, a, b, n) => dynamicSlice(x, [a, b], n) },
  dynamicUpdateSlice: { args: [f(3, 4), f(2, 2), i(), i()], apply: (x, u, a, b) => dynamicUpdateSlice(x, u, [a, b]) },
  randomBits: { args: [key, shape(2, 3)] },
  randomUniform: { args: [key, shape(2, 3)] },
  randomNormal: { args: [key, shape(2, 3)] },
  foldIn: { args: [key, array([], "u32", [0, 9])] },
  dropout: { args: [f(2, 3), key, given(0.5)] },
  concat: { args: [f(2, 3), f(2, 1), axis(1, 2)], apply: (x, y, a) => concat([x, y], a) },
  split: [
    { args: [f(2, 6), axis(1, 2), size(3)], apply: (x, a, n) => split(x, a, n)[0] },
    { args: [f(2, 6), axis(1, 2), sizes(2, 4)], apply: (x, a, n) => split(x, a, n)[1] },
  ],
  iota: { args: [shape(2, 3), axis(1, 2), dtype("f32")] },
  pad: [{ args: [f(2, 3), sizes(1, 0), sizes(0, 2)] }, { args: [f(2, 3), sizes(0, 0), sizes(0, 0)] }],
  slice: [{ args: [f(4, 3), axis(0, 2), size(1), size(3)] }, { args: [f(4, 3), axis(1, 2), size(0), size(3)] }],
  transpose: [{ args: [f(2, 3, 4), axes([2, 0, 1], 3)] }, { args: [f(2, 3)] }, { args: [f(2, 3), axes([0, 1], 2)] }],
  softmax: { args: [f(2, 3), axis(0, 2)] },
  logSoftmax: { args: [f(2, 3), axis(1, 2)] },
  logSumExp: { args: [f(2, 3), axis(1, 2)] },
  layerNorm: { args: [f(2, 3), f(3), f(3), given(1e-5)] },
  rmsNorm: { args: [f(2, 3), f(3), given(1e-5)] },
  rope: { args: [f(2, 3, 2, 4), f(2, 3, 2), f(2, 3, 2)], apply: (x, cos, sin) => rope(x, { cos, sin }) },
  ropeAngles: { args: [i(2, 3), given([1, 0.5])], apply: (x, list) => surface.ropeAngles(x, list).cos },
  attention: {
    args: [heads(3, 2), heads(4, 1), heads(4, 1), b(2, 4), i(), i(2, 3), f(2), given(50)],
    apply: (q, k, v, mask, offset, first, sinks, cap) =>
      attention(q, k, v, { mask, offset, first, sinks, cap, causal: true }),
  },
  crossEntropyRows: [
    { args: [f(2, 3), i(2)] },
    {
      args: [f(2, 3), i(2), given(0.5), given(0.5)],
      apply: (x, y, labelSmoothing, zLoss) => surface.crossEntropyRows(x, y, { labelSmoothing, zLoss }),
    },
  ],
  tokenLogProbs: [
    { args: [f(2, 3, 4), i(2, 3)] },
    { args: [f(2, 3, 4), i(2, 3), i(3)], apply: (x, y, places) => surface.tokenLogProbs(x, y, { places }) },
  ],
  causalLoss: [
    { args: [f(2, 3, 4), i(2, 3)] },
    {
      args: [f(2, 3, 4), i(2, 3), i(3), f()],
      apply: (x, y, places, reduction) => surface.causalLoss(x, y, { places, reduction }),
    },
  ],
  classificationLoss: { args: [f(2, 3), i(2)] },
  nextLabels: { args: [i(2, 3)] },
  labelledTokens: { args: [i(2, 3)] },
  vmap: {
    args: [f(2, 3), f(3, 2), axis(1, 2), axis(0, 2)],
    apply: (x, y, a, b) => vmap((x: Value, y: Value) => surface.add(x, y), { inAxes: [a, b] })(x, y),
  },
};

const eachCall = Object.entries(calls).flatMap(([name, list]) =>
  (Array.isArray(list) ? list as readonly Call[] : [list as Call]).map(({ args, apply }, at) => ({
    name: at === 0 ? name : `${name}, ${at + 1}`,
    args,
    apply: apply ?? surface[name as "add"] as (...args: any[]) => unknown,
  }))
);

const noInteger = [0.5, NaN, Infinity, -Infinity, "1", null, {}, [0.5], true, 2 ** 53, Symbol("a")];
const noAxis = (rank: number) => [...noInteger, rank, -rank - 1, [rank], "x"];
const noSize = [...noInteger, -1, [-1], -0.5];
const noOperand = [null, "1", {}, [1], true, { shape: [2], dtype: "f32", data: new Float32Array(2) }];

/** Wrong arguments in place of one. */
function wrongs(kind: Kind, call: { readonly name: string }): readonly unknown[] {
  switch (kind.is) {
    case "axis":
      // Arguments whose axis is null are shared.
      return noAxis(kind.rank).filter((x) => x !== null || call.name !== "vmap");
    case "axes": {
      const list = kind.value as readonly number[];
      const twice = [...list, list[0] - kind.rank];
      return [...noAxis(kind.rank), ...noAxis(kind.rank).map((x) => [x]), twice, [...list.slice(1), ...list, list[0]]];
    }
    case "size":
      return noSize;
    case "sizes":
      return [
        ...noSize,
        ...noSize.map((x) => [...kind.value as number[]].with(0, x as number)),
        [],
        [1, 1, 1],
        Array(2),
      ];
    case "shape":
      return [...noInteger, -1, Array(2), ...noSize.map((x) => [...kind.value].with(0, x as number))]
        // The size that is left open.
        .filter((x) => call.name !== "reshape" || !Array.isArray(x) || x[0] !== -1);
    case "dtype":
      return ["f64", "", "toString", null, 7, "nf4"];
    case "operand":
      return noOperand;
    case "given":
      if (call.name === "ropeAngles") return [undefined, null, 7, [], ["0"], [1, null], "q4_0"];
      return call.name === "reshape, 2" ? [[-1, 4], [-1, -1], [-1, 0.5], [-1, -2], [-1, 0], [-1, NaN]] : [];
  }
}

/** Arrays of another shape or dtype in place of one: right for some operations, and then what they give is right. */
function others({ value }: Extract<Kind, { is: "operand" }>): readonly OracleTensor[] {
  const { shape } = value;
  const shapes = [[], [1], [0], [7], [...shape, 1], shape.slice(1), [...shape].reverse(), [5, ...shape.slice(1)], [
    ...shape,
    0,
  ]];
  const dtypes: DType[] = ["f32", "f16", "bf16", "i32", "u32", "bool", "q8_0"];
  return [...shapes.map((shape) => ({ shape, dtype: value.dtype })), ...dtypes.map((dtype) => ({ shape, dtype }))]
    .filter(({ shape, dtype }) => dtype !== "q8_0" || shape.at(-1)! % 32 === 0)
    .map((aval) =>
      drawInput({ ...aval, range: aval.dtype.startsWith("f") || aval.dtype === "bf16" ? [0.5, 2] : [0, 2] }, 5)
    );
}

Deno.test("mod.ts exports every elementwise operation", () => {
  assertEquals(elementwise.map(({ called }) => called).filter((name) => !(name in surface)), []);
});

Deno.test("every operation of the public surface is called here", async () => {
  const names = new Set<string>(Object.keys(nn));
  for await (const { name } of Deno.readDir(new URL("../../core/ops", import.meta.url))) {
    const exported = await import(new URL(`../../core/ops/${name}`, import.meta.url).href);
    for (const key of Object.keys(exported)) if (key in surface) names.add(key);
  }
  const missing = [...names].filter((name) => typeof (surface as any)[name] === "function" && !(name in calls));
  assertEquals(missing, []);
});

Deno.test("wrong arguments", async (t) => {
  using device = await openCpu({ threads: 1, blas: false });
  const onDevice = (x: OracleTensor): Tensor => upload(device, toHost(x));
  for (const call of eachCall) {
    await t.step(call.name, async () => {
      const { args, apply } = call;
      const isOperand = args.map(({ is }) => is === "operand");
      const arrays = (list: readonly unknown[]) => list.filter((x, i) => isOperand[i] && isArray(x)) as OracleTensor[];
      /** The call with its arrays as `given`, in order. */
      const on = (list: readonly unknown[]) => (...values: unknown[]) => {
        let next = 0;
        return apply(...list.map((x, i) => isOperand[i] && isArray(x) ? values[next++] : x));
      };
      const right = args.map(({ value }) => value);
      const isRight = async (list: readonly unknown[]) => {
        const want = runOracle(on(list), ...arrays(list)) as OracleTensor;
        const got = await read(jit(on(list))(...arrays(list).map(onDevice), tensor(device, 0)));
        assertAllClose(got as HostTensor, want, { rtol: 2 ** -18 });
      };
      await isRight(right);
      for (const [at, kind] of args.entries()) {
        const name = (x: unknown) => `${call.name}: ${kind.is} ${at} is ${Deno.inspect(x)}`;
        for (const wrong of wrongs(kind, call)) {
          const list = right.with(at, wrong);
          // Of Values while a function is traced, and of Tensors.
          for (const run of [jit(on(list)), on(list)]) {
            assertRefused(() => run(...arrays(list).map(onDevice), tensor(device, 0)), name(wrong));
          }
        }
        if (kind.is === "axis") await isRight(right.with(at, (kind.value as number) - kind.rank));
        if (kind.is === "axes") await isRight(right.with(at, (kind.value as number[]).map((a) => a - kind.rank)));
        if (kind.is !== "operand") continue;
        for (const other of others(kind)) {
          const list = right.with(at, other);
          try {
            await isRight(list);
          } catch (error) {
            assert(
              error instanceof LowrankError && !/bug|is expected/.test(error.message),
              `${call.name}: operand ${at} is ${other.dtype}[${other.shape}]: ${error}`,
            );
          }
        }
      }
    });
  }
});

/** An operand that is no array at all is refused by the transforms, too, which take trees. */
function assertRefused(run: () => unknown, what: string): void {
  try {
    run();
  } catch (error) {
    const refused = error instanceof ShapeError || (error instanceof LowrankError && what.startsWith("vmap: operand"));
    return assert(refused, `${what} is refused by ${error}`);
  }
  throw new AssertionError(`${what} is taken`);
}

function isArray(x: unknown): boolean {
  return typeof x === "object" && x !== null && (x as OracleTensor).data instanceof Float64Array;
}
