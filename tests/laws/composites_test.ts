/** Composites keep the law of vmap, by their own rule or through their definition. */
import { assert, assertEquals } from "@std/assert";
import type { Value } from "../../core/ir/graph.ts";
import {
  attention,
  crossEntropyRows,
  geluTanh,
  layerNorm,
  logSigmoid,
  logSumExp,
  rmsNorm,
  rope,
  sigmoid,
  softmax,
  swiglu,
} from "../../core/nn/mod.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { checkpoint } from "../../core/transforms/checkpoint.ts";
import { grad } from "../../core/transforms/grad.ts";
import { sumOver } from "../../core/transforms/sum_over.ts";
import { vmap } from "../../core/transforms/vmap.ts";
import { type OracleTensor, runOracle } from "../../testing/oracle.ts";
import { drawInput, type InputSpec } from "./primitive_cases.ts";

const f = (...shape: number[]): InputSpec => ({ shape, dtype: "f32", range: [-2, 2] });
const labels: InputSpec = { shape: [3], dtype: "i32", range: [0, 5] };
const firstKeys: InputSpec = { shape: [2, 3], dtype: "i32", range: [-1, 6] };
const mask: InputSpec = { shape: [2, 5], dtype: "bool", range: [0, 2] };

const composites: Record<string, { inputs: InputSpec[]; apply: (...xs: any[]) => Value }> = {
  layerNorm: { inputs: [f(3, 4), f(4), f(4)], apply: (x, g, b) => layerNorm(x, g, b, 1e-5) },
  rmsNorm: { inputs: [f(3, 4), f(4)], apply: (x, g) => rmsNorm(x, g, 1e-5) },
  softmax: { inputs: [f(3, 4)], apply: (x) => softmax(x) },
  logSumExp: { inputs: [f(3, 4)], apply: (x) => logSumExp(x) },
  sigmoid: { inputs: [f(3, 4)], apply: sigmoid },
  logSigmoid: { inputs: [f(3, 4)], apply: logSigmoid },
  geluTanh: { inputs: [f(3, 4)], apply: geluTanh },
  swiglu: { inputs: [f(3, 4), f(3, 4)], apply: swiglu },
  rope: { inputs: [f(2, 3, 2, 4), f(2, 3, 2), f(2, 3, 2)], apply: (x, cos, sin) => rope(x, { cos, sin }) },
  crossEntropyRows: { inputs: [f(3, 5), labels], apply: crossEntropyRows },
  "crossEntropyRows, smoothed": {
    inputs: [f(3, 5), labels],
    apply: (x, y) => crossEntropyRows(x, y, { labelSmoothing: 0.1, zLoss: 0.01 }),
  },
  attention: {
    inputs: [f(2, 3, 4, 2), f(2, 5, 2, 2), f(2, 5, 2, 2), mask],
    apply: (q, k, v, mask) => attention(q, k, v, { mask, causal: true, offset: 2 }),
  },
  "attention within a cap, with sinks": {
    inputs: [f(2, 3, 4, 2), f(2, 5, 2, 2), f(2, 5, 2, 2), mask, f(4)],
    apply: (q, k, v, mask, sinks) => attention(q, k, v, { mask, sinks, cap: 0.5, causal: true, offset: 2 }),
  },
  "attention from a first key on": {
    inputs: [f(2, 3, 4, 2), f(2, 5, 2, 2), f(2, 5, 2, 2), firstKeys],
    apply: (q, k, v, first) => attention(q, k, v, { first, causal: true, offset: 2 }),
  },
  checkpoint: { inputs: [f(3, 4), f(4)], apply: checkpoint((x: Value, g: Value) => rmsNorm(x, g, 1e-5)) },
  sumOver: {
    inputs: [f(5, 4), f(4)],
    apply: (x, g) => sumOver((x: Value, g: Value) => reduceSum(rmsNorm(x, g, 1e-5)), x, g, { chunk: 2 })[0],
  },
};

const size = 2;

for (const [name, { inputs, apply }] of Object.entries(composites)) {
  const loss = (...xs: any[]) => reduceSum(apply(...xs));
  for (const [what, run] of [["itself", apply], ["its gradient", grad(loss)]] as const) {
    Deno.test(`${name}: vmap of ${what} is a loop, whichever inputs are mapped`, () => {
      for (let chosen = 1; chosen < 2 ** inputs.length; chosen++) {
        const mapped = inputs.map((_, i) => (chosen >> i & 1) === 1);
        const each = Array.from(
          { length: size },
          (_, b) => inputs.map((spec, i) => drawInput(spec, mapped[i] ? 60 + 7 * b + i : 30 + i)),
        );
        const stacked = inputs.map(({ shape, dtype }, i): OracleTensor =>
          mapped[i]
            ? { shape: [size, ...shape], dtype, data: Float64Array.from(each.flatMap((one) => [...one[i].data])) }
            : each[0][i]
        );
        const batched = runOracle(vmap(run, { inAxes: mapped.map((m) => m ? 0 : null) }), ...stacked) as OracleTensor;
        const loop = each.flatMap((one) => [...(runOracle(run, ...one) as OracleTensor).data]);
        assertEquals(batched.data.length, loop.length);
        // Sums may be made in another order.
        batched.data.forEach((v, i) => assert(Math.abs(v - loop[i]) <= 2 ** -44 * Math.max(1, Math.abs(loop[i]))));
      }
    });
  }
}
