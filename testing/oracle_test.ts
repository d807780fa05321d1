import { assertEquals } from "@std/assert";
import { add, erf, mul } from "../core/ops/elementwise.ts";
import { matmul } from "../core/ops/contract.ts";
import { reduceSum } from "../core/ops/broadcast.ts";
import { valueAndGrad } from "../core/transforms/grad.ts";
import { oracleTensor, runOracle } from "./oracle.ts";
import { threefry } from "./oracle_scalar.ts";

Deno.test("the oracle runs a function over trees", () => {
  const x = oracleTensor([2, 2], [1, 2, 3, 4]);
  const out = runOracle((p, s) => ({ y: add(matmul(p.x, p.x), s) }), { x }, 10);
  assertEquals([...out.y.data], [17, 20, 25, 32]);
  const [, g] = runOracle(valueAndGrad((x: any) => reduceSum(mul(x, x))), x);
  assertEquals([...g.data], [2, 4, 6, 8]);
});

// The known answers that the authors publish with Random123 (kat_vectors, threefry2x32 20).
Deno.test("threefry2x32 gives the published words", () => {
  assertEquals(threefry([0, 0], 0, 0)[0], 0x6b200159);
  assertEquals(threefry([0xffffffff, 0xffffffff], 0xffffffff, 0xffffffff)[0], 0x1cb996fc);
  assertEquals(threefry([0x13198a2e, 0x03707344], 0x243f6a88, 0x85a308d3)[0], 0xc4923a9c);
});

Deno.test("erf by its series", () => {
  const out = runOracle((x: any) => erf(x), oracleTensor([3], [0.5, 1, -2]));
  const want = [0.5204998778130465, 0.8427007929497149, -0.9953222650189527];
  want.forEach((w, i) => assertEquals(Math.abs(out.data[i] - w) < 1e-15, true));
});
