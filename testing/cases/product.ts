/** Products of every layout. */
import { stridesOf } from "../../core/aval.ts";
import type { DType } from "../../core/dtype.ts";
import type { Expr } from "../../kernels/ir/expr.ts";
import type { Kernel } from "../../kernels/ir/kernel.ts";
import { at, axis, inout, type KernelCase, load, makeCase, number, op, put, read, result, write } from "./build.ts";

/** A product of stored matrices; `layout` says for a, then b, whether it is stored as written (N) or transposed (T). */
export function matmulKernel(
  [m, k, n]: readonly [number, number, number],
  layout: "NN" | "NT" | "TN" | "TT" = "NN",
  { batch = [], shared = false, lowRank = 0, dtype = "f32", bias = false }: {
    batch?: readonly number[];
    /** b is one matrix for all batches. */
    shared?: boolean;
    lowRank?: number;
    dtype?: DType;
    bias?: boolean;
  } = {},
): Extract<Kernel, { kind: "contract" }> {
  const count = batch.reduce((x, y) => x * y, 1);
  const over = (size: number) => stridesOf(batch).map((s) => s * size);
  const a = at([...over(m * k), ...(layout[0] === "N" ? [k, 1] : [1, m])]);
  const b = at([...(shared ? batch.map(() => 0) : over(k * n)), ...(layout[1] === "N" ? [n, 1] : [1, k])]);
  const out = at([...over(m * n), n, 1]);
  const operands = [read(count * m * k), read((shared ? 1 : count) * k * n, dtype), write(count * m * n)];
  const segments = [{ k, a: { operand: 0, index: a }, b: { operand: 1, index: b } }];
  if (lowRank > 0) {
    operands.push(read(count * m * lowRank), read(lowRank * n));
    segments.push({
      k: lowRank,
      a: { operand: 3, index: at([...over(m * lowRank), lowRank, 1]) },
      b: { operand: 4, index: at([...batch.map(() => 0), ...(layout[1] === "N" ? [n, 1] : [1, lowRank])]) },
    });
  }
  let value: Expr = result(0);
  if (bias) {
    value = op("add", "f32", value, load(operands.length, at([...batch.map(() => 0), 0, 1])));
    operands.push(read(n));
  }
  return { kind: "contract", operands, batch, m, n, segments, stores: [put(2, out, value)] };
}

/** Products: layouts, remainders, batches, dtypes, low-rank segments, epilogues. */
export function contractCases(): KernelCase[] {
  const cases: KernelCase[] = [];
  const add = (name: string, kernel: Extract<Kernel, { kind: "contract" }>) =>
    cases.push(makeCase(`contract ${name}`, kernel, kernel.segments.reduce((sum, s) => sum + s.k, 4)));
  for (const layout of ["NN", "NT", "TN", "TT"] as const) {
    for (const sizes of [[1, 1, 1], [0, 3, 4], [3, 0, 4], [3, 4, 0], [0, 0, 0]] as const) {
      add(`${layout} ${sizes.join("x")}`, matmulKernel(sizes, layout, { bias: true }));
      add(`${layout} ${sizes.join("x")} with a low-rank segment`, matmulKernel(sizes, layout, { lowRank: 2 }));
      add(`${layout} ${sizes.join("x")} of no batches`, matmulKernel(sizes, layout, { batch: [2, 0] }));
    }
    for (const [m, k, n] of [[16, 16, 32], [7, 5, 9], [33, 70, 36], [1, 48, 40], [65, 12, 130]] as const) {
      add(`${layout} ${m}x${k}x${n}`, matmulKernel([m, k, n], layout));
    }
    add(`${layout} of a long row`, matmulKernel([1, 24, 520], layout, { lowRank: 4 }));
    add(`${layout} with a low-rank segment`, matmulKernel([20, 24, 28], layout, { lowRank: 8, bias: true }));
    add(`${layout} with a rank-3 segment`, matmulKernel([6, 10, 11], layout, { lowRank: 3, bias: true }));
    add(`${layout} of many tiles`, matmulKernel([262, 20, 264], layout, { lowRank: 4, bias: true }));
    add(`${layout} batched`, matmulKernel([12, 8, 20], layout, { batch: [2, 3] }));
    add(`${layout} with b shared`, matmulKernel([5, 8, 12], layout, { batch: [3], shared: true }));
    for (const dtype of ["f16", "bf16"] as const) {
      add(`${layout} ${dtype}`, matmulKernel([9, 16, 24], layout, { dtype }));
      add(`${layout} ${dtype} odd`, matmulKernel([9, 7, 11], layout, { dtype }));
      add(`${layout} ${dtype} M = 1`, matmulKernel([1, 64, 72], layout, { dtype }));
    }
  }
  const heads: Extract<Kernel, { kind: "contract" }> = {
    kind: "contract",
    operands: [read(2 * 10 * 36), write(2 * 3 * 10 * 10)],
    batch: [2, 3],
    m: 10,
    n: 10,
    segments: [{
      k: 4,
      a: { operand: 0, index: at([360, 4, 36, 1]) },
      b: { operand: 0, index: at([360, 4, 1, 36], 12) },
    }],
    stores: [
      put(
        1,
        at([300, 100, 10, 1]),
        op(
          "select",
          "f32",
          op("le", "bool", axis(3), axis(2)),
          op("mul", "f32", result(0), number(0.5)),
          number(-3.4e38),
        ),
      ),
    ],
  };
  add("of heads, masked", heads);
  const plain = matmulKernel([8, 8, 8]);
  add("twice, in place and into a second", {
    ...plain,
    operands: [...plain.operands.slice(0, 2), inout(64), write(64)],
    stores: [
      put(2, at([8, 1]), op("add", "f32", load(2, at([8, 1])), result(0))),
      put(3, at([1, 8]), op("max", "f32", result(0), number(0))),
    ],
  });
  const cached = { offset: 0, strides: [6, 1], dynamic: [{ value: load(3, at([0, 0]), "i32"), stride: 6 }] };
  cases.push(makeCase(
    "contract with an operand at a moving place",
    {
      ...matmulKernel([4, 4, 6]),
      operands: [read(16), read(60), write(24), read(1, "i32")],
      segments: [{ k: 4, a: { operand: 0, index: at([4, 1]) }, b: { operand: 1, index: cached } }],
    },
    8,
    { 3: Int32Array.of(5) },
  ));
  return cases;
}
