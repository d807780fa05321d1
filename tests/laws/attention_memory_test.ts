/** What attention keeps: nothing with an entry for each pair of a query and a key. */
import { assert } from "@std/assert";
import { sizeOf } from "../../core/aval.ts";
import { newInput, type Value } from "../../core/ir/graph.ts";
import { attention } from "../../core/nn/attention.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { mul } from "../../core/ops/elementwise.ts";
import { trace } from "../../core/trace.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { build } from "../../kernels/runtime/compile.ts";

Deno.test("attention, forward and back, never writes its weights of T queries and T keys", () => {
  const [tokens, heads, width] = [512, 2, 16];
  const qkv = Array.from({ length: 3 }, () => newInput({ shape: [1, tokens, heads, width], dtype: "f32" }));
  for (const options of [{ causal: true }, { causal: false }]) {
    const loss = (all: Value[]) => {
      const [q, k, v] = all;
      const y = attention(q, k, v, options);
      return reduceSum(mul(y, y));
    };
    const { program } = build(trace(valueAndGrad(loss), [qkv]).graph);
    const largest = Math.max(...program.steps.flatMap(({ kernel }) => kernel.operands.map(({ size }) => size)));
    assert(largest <= 2 * sizeOf(qkv[0].shape), `${largest} values`);
    assert(program.arenaBytes < 4 * heads * tokens * tokens, `${program.arenaBytes} bytes of arena`);
  }
});
