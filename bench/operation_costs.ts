/**
 * What does one element of each scalar operation cost, a byte read from memory or written to it, and a launch? What
 * `kernels/wasm/scalar.ts` and `kernels/wgsl/scalar.ts` record and `kernels/plan/rematerialise.ts` decides by.
 *
 * `deno run --allow-read --allow-env bench/operation_costs.ts [--without-fma] [--webgpu]`: prints a table for those files, in
 * nanoseconds of one thread (of the whole adapter with --webgpu).
 */
import { parseArgs } from "node:util";
import { type DType, storageBytes } from "../core/dtype.ts";
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import type { Device } from "../kernels/device/device.ts";
import { openWebGpu } from "../kernels/device/webgpu/webgpu.ts";
import type { Expr } from "../kernels/ir/expr.ts";
import type { Kernel, Operand, ScalarOp } from "../kernels/ir/kernel.ts";
import { elementwise, resultFor } from "../testing/elementwise.ts";
import { median } from "./alternate.ts";

const { values: flags } = parseArgs({
  args: Deno.args,
  options: {
    "without-fma": { type: "boolean", default: false },
    webgpu: { type: "boolean", default: false },
    rounds: { type: "string", default: "7" },
  },
});
using device: Device = flags.webgpu
  ? await openWebGpu()
  : await openCpu({ threads: 1, blas: false, relaxed: flags["without-fma"] ? false : undefined });

/** Elements of a measurement of operations, which stay in cache, and of one of memory, which do not. */
const [inCache, beyondCache] = flags.webgpu ? [2 ** 17, 2 ** 22] : [2 ** 13, 2 ** 24];
/** How often an operation stands in a measured kernel. */
const repeats = 8;

type Scalar = Expr["type"];
const constant = (type: Scalar, value: number) => ({ kind: "const", type, value }) as Expr;
const apply = (op: ScalarOp, type: Scalar, ...args: Expr[]) => ({ kind: "op", type, op, args }) as Expr;
const load = (operand: number, type: Scalar) =>
  ({ kind: "load", type, operand, index: { offset: 0, strides: [1] } }) as Expr;

/** out[i] = value(x[i], y[i]) for n elements. */
function mapOf(n: number, type: Exclude<Scalar, "bool">, value: (x: Expr, y: Expr) => Expr): Kernel {
  const operand = (access: "read" | "write"): Operand => ({ dtype: type as DType, size: n, access });
  return {
    kind: "map",
    operands: [operand("read"), operand("read"), operand("write")],
    shape: [n],
    stores: [{ operand: 2, index: { offset: 0, strides: [1] }, value: value(load(0, type), load(1, type)) }],
  };
}

/** Nanoseconds of one launch: the median of some rounds of some launches each. */
async function nanoseconds(kernel: Kernel, times: number): Promise<number> {
  const buffers = kernel.operands.map((o) => device.allocate(storageBytes(o.dtype, o.size)));
  kernel.operands.forEach(({ dtype, size, access }, i) => {
    if (access === "write") return;
    const values = Array.from({ length: size }, (_, at) => 0.5 + (at % 97) / 97);
    device.write(
      buffers[i],
      dtype === "f32" ? Float32Array.from(values) : Int32Array.from(values.map((x) => x * 40)),
    );
  });
  const program = device.compile({
    arguments: kernel.operands,
    outputs: [],
    arenaBytes: 0,
    steps: [{ kernel, buffers: buffers.map((_, index) => ({ kind: "argument", index })) }],
  });
  const wait = () => device.read([{ buffer: buffers[0], dtype: "f32", size: 1 }]);
  const round = async () => {
    const began = performance.now();
    for (let i = 0; i < times; i++) program.run(buffers, []);
    if (flags.webgpu) await wait();
    return (performance.now() - began) * 1e6 / times;
  };
  await round();
  const taken: number[] = [];
  for (let i = 0; i < Number(flags.rounds); i++) taken.push(await round());
  program.free();
  buffers.forEach((b) => device.free(b));
  return median(taken);
}

/** Nanoseconds an element of what `value` adds to `base`, both of which are computed `repeats` times and added up. */
async function marginal(
  type: Exclude<Scalar, "bool">,
  value: (x: Expr, y: Expr) => Expr,
  base: (x: Expr, y: Expr) => Expr = (x) => x,
): Promise<number> {
  const timeOf = (f: typeof value) =>
    nanoseconds(
      mapOf(inCache, type, (x, y) => {
        const shifted = Array.from({ length: repeats }, (_, i) => apply("add", type, x, constant(type, i + 1)));
        return shifted.map((s) => f(s, y)).reduce((a, b) => apply("add", type, a, b));
      }),
      flags.webgpu ? 5 : 200,
    );
  return Math.max(0, await timeOf(value) - await timeOf(base)) / inCache / repeats;
}

const costs: Record<string, number> = {};
costs.select = await marginal("f32", (x, y) => apply("select", "f32", apply("lt", "bool", x, y), x, y)) / 2;
for (const each of elementwise) {
  const { op, operands } = each, result = resultFor(each, "f32");
  const of = (type: Scalar) => (x: Expr, y: Expr) => apply(op, type, ...[x, y].slice(0, operands));
  if (result === "f32") costs[op] = await marginal("f32", of("f32"));
  else if (result === null) costs[op] = await marginal("u32", of("u32"));
  // A comparison is half of the select that reads it.
  else if (operands === 2) costs[op] = costs.select;
  else costs[op] = await marginal("f32", (x, y) => apply("select", "f32", of("bool")(x, y), x, y)) - costs.select;
}
costs.convert = await marginal("f32", (x) => apply("convert", "f32", apply("convert", "i32", x))) / 2;
costs.bitcast = await marginal("f32", (x) => apply("bitcast", "f32", apply("bitcast", "u32", x))) / 2;
const random = await marginal("u32", (x, y) => ({ kind: "threefry", type: "u32", lane: 0, args: [x, y, x, y] }));

const operand = (size: number, access: "read" | "write"): Operand => ({ dtype: "f32", size, access });
const index = { offset: 0, strides: [1, 0] };
const reading: Kernel = {
  kind: "row",
  operands: [operand(beyondCache, "read"), operand(2 ** 10, "write")],
  rows: [2 ** 10],
  cols: beyondCache / 2 ** 10,
  phases: [
    {
      kind: "reduce",
      op: "sum",
      value: { kind: "load", type: "f32", operand: 0, index: { offset: 0, strides: [beyondCache / 2 ** 10, 1] } },
    },
    { kind: "once", stores: [{ operand: 1, index, value: { kind: "result", type: "f32", phase: 0 } }] },
  ],
};
const writing: Kernel = {
  kind: "map",
  operands: [operand(beyondCache, "write")],
  shape: [beyondCache],
  stores: [{ operand: 0, index: { offset: 0, strides: [1] }, value: constant("f32", 1) as Expr }],
};
const [read, write] = [
  await nanoseconds(reading, 2) / (4 * beyondCache),
  await nanoseconds(writing, 2) / (4 * beyondCache),
];
const launch = await nanoseconds(mapOf(4, "f32", (x) => x), flags.webgpu ? 100 : 1000);

const digits = (x: number) => Number(x.toPrecision(2));
console.log(`// ${device.description}`);
console.log(JSON.stringify(
  {
    operations: Object.fromEntries(Object.entries(costs).map(([op, ns]) => [op, digits(Math.max(0.01, ns))])),
    random: digits(random),
    read: digits(read),
    write: digits(write),
    launch: digits(launch),
  },
  null,
  2,
));
