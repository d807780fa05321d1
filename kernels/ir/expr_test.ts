/** Expressions share what they are made of: walks and rewrites take each of it once. */
import { assert, assertEquals } from "@std/assert";
import { emitKernel } from "../wasm/emit.ts";
import { kernelKey } from "../wasm/kernel_key.ts";
import { emitWgsl } from "../wgsl/emit.ts";
import { gpuTile, softwareTile } from "../wgsl/tile.ts";
import type { RowKernel } from "./kernel.ts";
import { AxesOf, childrenOf, countUses, type Expr, opOf, Rewriter, walk } from "./expr.ts";

/** x + x, and that plus itself, and so on: 2^levels paths through levels + 1 objects. */
function doubled(x: Expr, levels: number): Expr {
  for (let i = 0; i < levels; i++) x = opOf("add", "f32", x, x);
  return x;
}

const levels = 100;
const element: Expr = { kind: "load", type: "f32", operand: 0, index: { offset: 0, strides: [1, 0] } };
const chain = doubled(element, levels);

Deno.test("a walk meets each expression once, after what it reads", () => {
  const order = [...walk([chain, chain])];
  assertEquals(order.length, levels + 1);
  order.forEach((e, i) => assert(childrenOf(e).every((child) => order.indexOf(child) < i)));
  assertEquals([...countUses([chain, chain]).values()], new Array(levels + 1).fill(2));
  assertEquals(new AxesOf().expr(chain), 1);
});

Deno.test("what is rebuilt shares what was shared", () => {
  const to = new Rewriter({ operand: (o) => o + 3, strides: ([a, b]) => [b, a, 7] });
  const order = [...walk([to.expr(chain)])];
  assertEquals(order.length, levels + 1);
  assertEquals(order[0], { ...element, operand: 3, index: { offset: 0, strides: [0, 1, 7] } });
});

Deno.test("the time of an emitter grows with the expressions, not with the paths through them", () => {
  const x: Expr = { kind: "load", type: "f32", operand: 1, index: { offset: 0, strides: [8, 1] } };
  const sum: Expr = { kind: "result", type: "f32", phase: 0 };
  const kernel: RowKernel = {
    kind: "row",
    operands: [
      { dtype: "f32", size: 4, access: "read" },
      { dtype: "f32", size: 32, access: "read" },
      { dtype: "f32", size: 4, access: "write" },
    ],
    rows: [4],
    cols: 8,
    phases: [
      { kind: "reduce", op: "sum", value: opOf("add", "f32", x, chain) },
      { kind: "reduce", op: "sum", value: opOf("mul", "f32", x, doubled(sum, levels)) },
      {
        kind: "once",
        stores: [{ operand: 2, index: { offset: 0, strides: [1, 0] }, value: { ...sum, phase: 1 } }],
      },
    ],
  };
  assert(kernelKey(kernel).length < 10_000);
  assert(emitKernel(kernel, { shared: false, relaxed: false }).bytes.length < 100_000);
  for (const tile of [gpuTile, softwareTile]) assert(emitWgsl(kernel, tile).text.length < 100_000);
});
