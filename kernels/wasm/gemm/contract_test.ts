import { assert, assertEquals } from "@std/assert";
import type { DType } from "../../../core/dtype.ts";
import { fill, numbers, runKernel, worstError } from "../../../testing/check_kernel.ts";
import { openCpu } from "../../device/cpu/cpu.ts";
import type { Expr } from "../../ir/expr.ts";
import type { ContractKernel, Segment } from "../../ir/kernel.ts";
import { emitKernel } from "../emit.ts";
import { planGemm, planGemv } from "./plan.ts";

interface Form {
  readonly batch?: readonly number[];
  readonly m: number;
  readonly n: number;
  readonly depths: readonly number[];
  /** Whether k is contiguous in a and in b. */
  readonly aByK: boolean;
  readonly bByK: boolean;
  readonly aType?: DType;
  readonly bType?: DType;
  /** Whether the result is stored with m contiguous. */
  readonly turned?: boolean;
  /** Whether b's batch stride is 0. */
  readonly shared?: boolean;
}

/** The product that a form describes, its result scaled and added to what lies in the output. */
function product(form: Form): ContractKernel {
  const { batch = [], m, n, depths, aByK, bByK, aType = "f32", bType = "f32", turned, shared } = form;
  const total = batch.reduce((x, y) => x * y, 1);
  const over = (size: number) => batch.map((_, i) => size * batch.slice(i + 1).reduce((x, y) => x * y, 1));
  const segments = depths.map((k, s): Segment => ({
    k,
    a: { operand: 1 + 2 * s, index: { offset: 0, strides: [...over(m * k), ...(aByK ? [k, 1] : [1, m])] } },
    b: {
      operand: 2 + 2 * s,
      index: { offset: 0, strides: [...over(shared ? 0 : k * n), ...(bByK ? [1, k] : [n, 1])] },
    },
  }));
  const index = { offset: 0, strides: [...over(m * n), ...(turned ? [1, m] : [n, 1])] };
  const old: Expr = { kind: "load", type: "f32", operand: 0, index };
  const half: Expr = { kind: "const", type: "f32", value: 0.5 };
  const sum: Expr = { kind: "result", type: "f32", phase: 0 };
  const value: Expr = {
    kind: "op",
    type: "f32",
    op: "add",
    args: [old, { kind: "op", type: "f32", op: "mul", args: [sum, half] }],
  };
  return {
    kind: "contract",
    operands: [
      { dtype: "f32", size: total * m * n, access: "inout" },
      ...depths.flatMap((k) => [
        { dtype: aType, size: total * m * k, access: "read" as const },
        { dtype: bType, size: (shared ? 1 : total) * k * n, access: "read" as const },
      ]),
    ],
    batch,
    m,
    n,
    segments,
    stores: [{ operand: 0, index, value }],
  };
}

/** Rounding of sums this deep, relative to the largest result. */
function bound(kernel: ContractKernel): number {
  const depth = kernel.segments.reduce((sum, { k }) => sum + k, 2);
  return depth * 2 ** -23;
}

async function check(form: Form): Promise<void> {
  const kernel = product(form);
  const next = numbers(form.m * form.n);
  const data = kernel.operands.map((o) => fill(o, next));
  for (const relaxed of [undefined, false]) {
    using device = await openCpu({ threads: 1, relaxed, blas: false });
    const error = await worstError(device, kernel, data);
    assert(error <= bound(kernel), `${JSON.stringify(form)}: error ${error}, plan ${JSON.stringify(planGemm(kernel))}`);
  }
}

Deno.test("contract: every layout over sizes that leave remainders of every kind", async () => {
  const sizes = [[1, 5], [2, 40], [3, 7], [5, 8], [6, 64], [11, 36], [14, 50], [49, 19], [100, 3], [61, 129]];
  for (const [m, n] of sizes) {
    for (const aByK of [true, false]) {
      for (const bByK of [true, false]) {
        await check({ m, n, depths: [m < 20 ? 37 : 13], aByK, bByK });
        await check({ m, n, depths: [21, 4], aByK, bByK, turned: true });
      }
    }
  }
});

Deno.test("contract: a single row over contiguous columns is swept, more units than one", async () => {
  for (const depths of [[37], [21, 4]]) {
    for (const bType of ["f32", "bf16"] as const) {
      const form = { m: 1, n: 332, depths, aByK: true, bByK: false, bType };
      assertEquals(planGemv(product(form))?.by, "gemv");
      await check(form);
    }
  }
  assertEquals(planGemv(product({ m: 2, n: 332, depths: [37], aByK: true, bByK: false })), null);
});

Deno.test("contract: depths beyond one block, with a low-rank segment after the last", async () => {
  for (const [m, n] of [[1, 9], [4, 12], [13, 30]]) {
    for (const bByK of [true, false]) await check({ m, n, depths: [1701, 3], aByK: true, bByK });
    for (const bByK of [true, false]) await check({ m, n, depths: [4203, 5], aByK: bByK, bByK });
  }
});

Deno.test("contract: several deep segments, each with short ones after it, from every layout", async () => {
  for (const aByK of [true, false]) {
    for (const bByK of [true, false]) {
      await check({ m: 61, n: 70, depths: [401, 8, 3, 500, 70, 5], aByK, bByK, turned: aByK !== bByK });
    }
  }
});

Deno.test("contract: 16-bit operands on either side", async () => {
  for (const type of ["f16", "bf16"] as const) {
    for (const [m, n] of [[1, 33], [4, 21], [30, 20], [45, 39]]) {
      for (const bByK of [true, false]) {
        await check({ m, n, depths: [29], aByK: true, bByK, bType: type });
        await check({ m, n, depths: [29], aByK: bByK, bByK, aType: type, bType: type });
      }
    }
  }
});

Deno.test("contract: batches, with an operand of their own or one for all", async () => {
  for (const shared of [true, false]) {
    for (const bByK of [true, false]) {
      await check({ batch: [2, 3], m: 7, n: 9, depths: [11, 2], aByK: true, bByK, shared });
      await check({ batch: [3], m: 1, n: 16, depths: [8], aByK: false, bByK, shared });
    }
  }
});

Deno.test("contract: an operand whose rows are found by value", async () => {
  const row: Expr = { kind: "load", type: "i32", operand: 3, index: { offset: 0, strides: [1, 0] } };
  const column: Expr = { kind: "load", type: "i32", operand: 3, index: { offset: 0, strides: [0, 1] } };
  const kernel: ContractKernel = {
    kind: "contract",
    operands: [
      { dtype: "f32", size: 40 * 16, access: "read" },
      { dtype: "f32", size: 16 * 40, access: "read" },
      { dtype: "f32", size: 30 * 30, access: "write" },
      { dtype: "i32", size: 30, access: "read" },
    ],
    batch: [],
    m: 30,
    n: 30,
    segments: [{
      k: 16,
      a: { operand: 0, index: { offset: 0, strides: [0, 1], dynamic: [{ value: row, stride: 16 }] } },
      b: { operand: 1, index: { offset: 0, strides: [40, 0], dynamic: [{ value: column, stride: 1 }] } },
    }],
    stores: [{ operand: 2, index: { offset: 0, strides: [30, 1] }, value: { kind: "result", type: "f32", phase: 0 } }],
  };
  const next = numbers(1);
  const data = kernel.operands.map((o) => fill(o, next));
  data[3].set(data[3].map((x) => x % 40));
  using device = await openCpu({ threads: 1, blas: false });
  assert(await worstError(device, kernel, data) <= bound(kernel));
});

Deno.test("contract: the same bits for any number of threads", async () => {
  for (const bByK of [true, false]) {
    const kernel = product({ m: 300, n: 333, depths: [900, 8], aByK: true, bByK });
    const next = numbers(2);
    const data = kernel.operands.map((o) => fill(o, next));
    const results = [];
    for (const threads of [1, 2, 3]) {
      using device = await openCpu({ threads, blas: false });
      results.push((await runKernel(device, kernel, data))[0]);
    }
    assertEquals(results[0], results[1]);
    assertEquals(results[0], results[2]);
  }
});

Deno.test("contract: what a unit packs is at most half a megabyte, however large the weight", () => {
  for (const bByK of [true, false]) {
    for (const [n, k] of [[3072, 768], [50257, 768], [768, 50257]]) {
      const kernel = product({ m: 512, n, depths: [k], aByK: true, bByK });
      assert(emitKernel(kernel, { shared: true, relaxed: true }).scratchBytes <= 2 ** 19);
    }
  }
});
