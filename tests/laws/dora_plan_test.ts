/** What DoRA and trained rows cost, counted on the plan: nothing of the size of the weight is made. */
import { assert } from "@std/assert";
import { newInput, type Value } from "../../core/ir/graph.ts";
import type { Model } from "../../core/model.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { matmul } from "../../core/ops/contract.ts";
import { mul } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { trace } from "../../core/trace.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { build } from "../../kernels/runtime/compile.ts";
import { lora, type LoraOptions } from "../../lora/mod.ts";

const place = (...shape: number[]) => newInput({ shape, dtype: "f32" });
const [rows, width, outputs, vocabulary] = [8, 256, 768, 2000];

const linear: Model<{ w: { weight: Value } }, Value, Value> = {
  params: { w: { weight: place(width, outputs) } },
  sample: place(rows, width),
  apply: (p, x) => matmul(x, p.w.weight),
};
const table: Model<{ wte: { weight: Value } }, Value, Value> = {
  params: { wte: { weight: place(vocabulary, width) } },
  sample: newInput({ shape: [rows], dtype: "i32" }),
  apply: (p, ids) => matmul(gather(p.wte.weight, ids), p.wte.weight, { transposeB: true }),
};

/** The most memory that a step of training takes beside its arguments and results, in bytes. */
function arena<P>(model: Model<P, Value, Value>, options: LoraOptions<any>): number {
  const tuned = lora(model, options as LoraOptions<P>);
  const loss = (t: any, f: any, x: any) => {
    const y = tuned.apply(t, f, x);
    return reduceSum(mul(y, y));
  };
  return build(trace(valueAndGrad(loss), [tuned.trainable, tuned.frozen, model.sample]).graph).program.arenaBytes;
}

Deno.test("DoRA's norms are had without the sum W + s·B·A, and without W²", () => {
  const bytes = arena(linear, { r: 4, alpha: 8, targets: ["w"], dora: true });
  assert(bytes < 4 * width * outputs / 4, `${bytes} bytes, where the weight has ${4 * width * outputs}`);
});

Deno.test("rows of tokens are trained without a copy of the table, or a gradient of it", () => {
  const bytes = arena(table, { r: 4, alpha: 8, targets: ["wte"], trainableTokens: { wte: [3, 1, 1999] } });
  assert(bytes < 4 * vocabulary * width / 4, `${bytes} bytes, where the table has ${4 * vocabulary * width}`);
});
