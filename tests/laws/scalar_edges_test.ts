/**
 * Every elementwise operation of the registry at the edges of every dtype that it takes, against the oracle. WGSL lets an
 * implementation assume that there is neither NaN nor infinity and flush what is subnormal: on WebGPU floats are held to
 * normal operands and results. Integers, tests of bits and conversions are held to everything everywhere.
 */
import type { ScalarOp } from "../../core/ops/elementwise.ts";
import { assert } from "@std/assert";
import { type DType, isFloat } from "../../core/dtype.ts";
import { ShapeError } from "../../core/errors.ts";
import { bind1, type Primitive, type Value } from "../../core/ir/graph.ts";
import { constant } from "../../core/ops/constant.ts";
import { broadcastTo } from "../../core/ops/broadcast.ts";
import { bitcastPrim, convertPrim, selectPrim } from "../../core/ops/elementwise.ts";
import { upload } from "../../core/tensor.ts";
import { elementwise } from "../../testing/elementwise.ts";
import { fromHost, type OracleTensor, runOracle, toHost } from "../../testing/oracle.ts";
import { runtimes } from "../runtimes.ts";
import { ulps } from "../../testing/oracle_scalar.ts";

const floats = [
  0,
  -0,
  1,
  -1,
  0.5,
  -1.5,
  2,
  3,
  -3,
  20,
  -20,
  87,
  -87,
  100,
  -100,
  2 ** 24,
  2 ** 31,
  -(2 ** 31),
  2 ** 32,
  3e9,
]
  .concat([1e-30, 2 ** -126, 3.4028234663852886e38, -3.4028234663852886e38, 1e-40, -1e-40, Infinity, -Infinity, NaN]);
const halves = [0, -0, 1, -1.5, 65504, -65504, 6e-8, 6.1e-5, Infinity, -Infinity, NaN];
const edges: Partial<Record<DType, readonly number[]>> = {
  f32: floats.map(Math.fround),
  f16: halves,
  bf16: halves,
  i32: [0, 1, -1, 2, -2, 7, 31, 32, 33, -33, 16777217, 2 ** 31 - 1, -(2 ** 31), -(2 ** 31) + 1],
  u32: [0, 1, 2, 7, 31, 32, 33, 16777217, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 2, 2 ** 32 - 1],
  bool: [0, 1],
};
const dtypes = Object.keys(edges) as DType[];

/** A primitive over inputs of some dtypes. */
interface Case {
  readonly prim: Primitive;
  readonly dtypes: readonly DType[];
  readonly params: unknown;
}

/** Whether a primitive takes such inputs. */
function takes({ prim, dtypes, params }: Case): boolean {
  try {
    prim.infer(dtypes.map((dtype) => ({ shape: [1], dtype })), params);
    return true;
  } catch (error) {
    assert(error instanceof ShapeError);
    return false;
  }
}

const all: Case[] = [
  ...elementwise.flatMap(({ prim, operands }) =>
    dtypes.map((d) => ({ prim, dtypes: Array(operands).fill(d), params: null }))
  ),
  ...dtypes.map((d) => ({ prim: selectPrim, dtypes: ["bool" as const, d, d], params: null })),
  ...dtypes.flatMap((from) =>
    [convertPrim, bitcastPrim].flatMap((prim) => dtypes.map((dtype) => ({ prim, dtypes: [from], params: { dtype } })))
  ),
].filter(takes);

/** Every combination of the edges of each input, as columns. */
function columns(lists: readonly (readonly number[])[]): number[][] {
  const rows = lists.reduce<number[][]>((made, list) => made.flatMap((row) => list.map((x) => [...row, x])), [[]]);
  return lists.map((_, i) => rows.map((row) => row[i]));
}

const name = ({ prim, dtypes, params }: Case) => `${prim.name} ${dtypes}${params ? ` ${JSON.stringify(params)}` : ""}`;
const normal = (x: number) => x === 0 || (Math.abs(x) >= 2 ** -126 && Number.isFinite(Math.fround(x)));

/** How far a result may be from `want`, beside what rounding to its dtype does. */
function allowed({ prim }: Case, args: readonly number[], want: number, webgpu: boolean): number {
  const table = prim.lowering.kind === "scalar" ? ulps[prim.lowering.op as ScalarOp] : undefined;
  if (!table) return 0;
  const ulp = webgpu ? table.webgpuAt?.(...args) ?? table.webgpu : table.cpu;
  return ulp * 2 ** -23 * (table.absolute ? Math.max(1, Math.abs(want)) : Math.abs(want));
}

/** Whether a device promises anything of a case: the ranges of math.ts, and what WGSL says of floats. */
function promised(test: Case, args: readonly number[], want: number, webgpu: boolean): boolean {
  const { prim, dtypes } = test;
  // The quotient must be a number that f32 counts by ones.
  if (prim.name === "rem" && isFloat(dtypes[0]) && Math.abs(args[0] / args[1]) > 2 ** 20) return false;
  if (prim.name === "sin" || prim.name === "cos") {
    if (Number.isFinite(args[0]) && Math.abs(args[0]) > (webgpu ? 1e5 : 1e9)) return false;
  }
  if (!webgpu || ["isFinite", "convert", "select"].includes(prim.name)) return true;
  return args.every((x, i) => !isFloat(dtypes[i]) || normal(x)) && normal(want) &&
    // What is off by so little may be off to infinity.
    normal(Math.abs(want) + allowed(test, args, want, webgpu));
}

/** `zeros`: their signs are not distinguished; WGSL keeps none, and folding makes x of x + 0. */
function check(
  test: Case,
  inputs: readonly OracleTensor[],
  have: Float64Array,
  want: OracleTensor,
  webgpu: boolean,
  zeros = webgpu,
) {
  const [rounded] = [fromHost(toHost(want)).data];
  have.forEach((x, i) => {
    const args = inputs.map(({ data }) => data[i]);
    if (!promised(test, args, want.data[i], webgpu)) return;
    const y = rounded[i];
    if (Object.is(x, y) || (x === y && zeros)) return;
    const near =
      Math.abs(x - want.data[i]) <= allowed(test, args, want.data[i], webgpu) + (isFloat(want.dtype) ? 2 ** -126 : 0);
    // The sign of a zero that was rounded to is kept, too, whatever its size.
    assert(near && !(y === 0 && x === 0), `${name(test)} of ${args} is ${x}, not ${y}`);
  });
}

for (const { name: device, open } of runtimes.slice(1)) {
  const webgpu = device.startsWith("webgpu");
  Deno.test(`${device}: every elementwise operation at every edge`, async (t) => {
    using runtime = await open();
    for (const test of all) {
      await t.step(name(test), async () => {
        const inputs = columns(test.dtypes.map((d) => edges[d]!)).map((data, i): OracleTensor => ({
          ...fromHost(toHost({ shape: [data.length], dtype: test.dtypes[i], data: Float64Array.from(data) })),
        }));
        const f = (...xs: Value[]) => bind1(test.prim, xs, test.params);
        const want = runOracle(f, ...inputs) as OracleTensor;
        const got = await runtime.read(runtime.jit(f)(...inputs.map((x) => upload(runtime.home, toHost(x)))));
        check(test, inputs, fromHost(got).data, want, webgpu);
        if (test.dtypes.length !== 2) return;
        // The same with each edge on the right as a constant: what is folded, hoisted or written into the kernel.
        const [list, right] = [edges[test.dtypes[0]]!, edges[test.dtypes[1]]!];
        const left = fromHost(
          toHost({ shape: [list.length], dtype: test.dtypes[0], data: Float64Array.from(list) }),
        );
        const g = (x: Value) =>
          right.map((y) => bind1(test.prim, [x, broadcastTo(constant(y, test.dtypes[1]), x.shape)], test.params));
        const wants = runOracle(g, left) as OracleTensor[];
        const gots = await runtime.read(runtime.jit(g)(upload(runtime.home, toHost(left))));
        wants.forEach((w, i) =>
          check(test, [left, { ...left, data: left.data.map(() => right[i]) }], fromHost(gots[i]).data, w, webgpu, true)
        );
      });
    }
  });
}
