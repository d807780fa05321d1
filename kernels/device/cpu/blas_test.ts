import { assert, assertEquals, assertMatch } from "@std/assert";
import { fill, numbers, runKernel, worstError } from "../../../testing/check_kernel.ts";
import type { Expr } from "../../ir/expr.ts";
import type { ContractKernel } from "../../ir/kernel.ts";
import { planBlas } from "../../wasm/gemm/plan.ts";
import { findBlas } from "./blas.ts";
import { openCpu } from "./cpu.ts";

const found = findBlas();
const ignore = "refusal" in found;
if ("refusal" in found) console.log(`Tests of a BLAS are skipped: ${found.refusal || "--allow-ffi was not given"}`);

const sum: Expr = { kind: "result", type: "f32", phase: 0 };

/** out = a·b + u·v, with every matrix transposed or not, and something done with the result or nothing. */
function product(byA: boolean, byB: boolean, turned: boolean, value: Expr, [m, n, k, r] = [67, 134, 37, 4]) {
  const at = (byRow: boolean, rows: number, columns: number) => byRow ? [columns, 1] : [1, rows];
  const operand = (size: number, access: "read" | "write" = "read") => ({ dtype: "f32" as const, size, access });
  const side = (operand: number, strides: number[]) => ({ operand, index: { offset: 0, strides } });
  const kernel: ContractKernel = {
    kind: "contract",
    operands: [operand(m * k), operand(k * n), operand(m * r), operand(r * n), operand(m * n, "write")],
    batch: [],
    m,
    n,
    segments: [
      { k, a: side(0, at(byA, m, k)), b: side(1, at(byB, k, n)) },
      { k: r, a: side(2, [r, 1]), b: side(3, [1, r]) },
    ],
    stores: [{ ...side(4, turned ? [1, m] : [n, 1]), value }],
  };
  const next = numbers(3);
  return { kernel, data: kernel.operands.map((o) => fill(o, next)) };
}

Deno.test("a BLAS is found, named and switched off", { ignore }, async () => {
  using device = await openCpu({ threads: 2 });
  assertMatch(device.description, /^cpu \(wasm simd.*, 2 threads; products by .+\)$/);
  assert(device.blas !== null && device.description.includes(device.blas));
  using plain = await openCpu({ threads: 2, blas: false });
  assertEquals(plain.blas, null);
  assert(!plain.description.includes("products"));
});

Deno.test("a library that is missing or none is a sentence, and the kernels built in compute", { ignore }, async () => {
  for (const library of ["/no/such/libblas.so", `${import.meta.dirname}/blas.ts`]) {
    using device = await openCpu({ threads: 1, blas: { library, from: 0 } });
    assertEquals(device.blas, null);
    assert(device.description.includes(`; built-in products: ${library} can't be loaded: `), device.description);
    const { kernel, data } = product(true, true, false, sum, [9, 7, 5, 2]);
    assert(await worstError(device, kernel, data) <= 9 * 2 ** -23);
  }
});

Deno.test("without permission nothing is loaded and nothing is reported", { permissions: { ffi: false } }, () => {
  assertEquals(findBlas(), { refusal: "" });
  assertEquals(findBlas("libopenblas.so.0"), { refusal: "libopenblas.so.0 needs --allow-ffi" });
});

Deno.test("products by a BLAS agree with the interpreter in every layout, and are the same bits each time", {
  ignore,
}, async () => {
  const tanh: Expr = { kind: "op", type: "f32", op: "tanh", args: [sum] };
  using one = await openCpu({ threads: 1, blas: { from: 0 } });
  using three = await openCpu({ threads: 3, blas: { from: 0 } });
  for (const value of [sum, tanh]) {
    for (
      const [byA, byB, turned] of [[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 0, 0]].map((x) => x.map(Boolean))
    ) {
      const { kernel, data } = product(byA, byB, turned, value);
      assertEquals(planBlas(kernel, 0)?.by, "blas");
      assert(await worstError(one, kernel, data) <= (37 + 4 + 2) * 2 ** -23);
      const [first, again] = [await runKernel(one, kernel, data), await runKernel(three, kernel, data)];
      assertEquals(first[4], again[4]);
    }
  }
});

Deno.test("narrow and packed weights are unpacked for a BLAS, block by block of k", { ignore }, async () => {
  using device = await openCpu({ threads: 2, blas: { from: 0 } });
  for (const dtype of ["bf16", "q4_1", "nf4"] as const) {
    for (const byB of [true, false]) {
      for (const turned of [true, false]) {
        const [m, n, k, r] = [5, 96, 800, 4];
        const { kernel } = product(true, byB, turned, sum, [m, n, k, r]);
        const operands = kernel.operands.map((o, i) => i === 1 ? { ...o, dtype } : o);
        const next = numbers(4);
        const data = operands.map((o) => fill(o, next));
        assertEquals(planBlas({ ...kernel, operands }, 0)?.by, "blas", `${dtype} ${byB}`);
        assert(await worstError(device, { ...kernel, operands }, data) <= (k + r + 2) * 2 ** -23);
      }
    }
  }
});

Deno.test("what a BLAS can't do or is slow at stays with the kernels built in", () => {
  const { kernel } = product(true, true, false, sum);
  assertEquals(planBlas(kernel, 0)?.by, "blas");
  assertEquals(planBlas(kernel, 1e9), null);
  const [segment] = kernel.segments;
  const found = { ...segment, a: { operand: 0, index: { ...segment.a.index, dynamic: [{ value: sum, stride: 1 }] } } };
  assertEquals(planBlas({ ...kernel, segments: [found] }, 0), null);
  const spread = { ...segment, a: { operand: 0, index: { offset: 0, strides: [74, 2] } } };
  assertEquals(planBlas({ ...kernel, segments: [spread] }, 0), null);
  const bool = kernel.operands.map((o, i) => i === 1 ? { ...o, dtype: "bool" as const } : o);
  assertEquals(planBlas({ ...kernel, operands: bool }, 0), null);
});
