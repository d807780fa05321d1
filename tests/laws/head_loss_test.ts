/** Head and loss, by counting: which kernels touch the logits, and how much of them there is at a time. */
import { assert, assertEquals } from "@std/assert";
import { newInput, type Value } from "../../core/ir/graph.ts";
import { causalLoss } from "../../core/nn/loss.ts";
import { dot } from "../../core/ops/contract.ts";
import { trace } from "../../core/trace.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { build } from "../../kernels/runtime/compile.ts";
import { describeKernel } from "../../kernels/explain/describe.ts";
import type { Step } from "../../kernels/ir/kernel.ts";

const [tokens, width, vocabulary] = [192, 16, 1000];

/** The steps that touch something as large as a chunk's logits, each with the bytes of it that it reads or writes. */
function stepsOnLogits(chunk: number, argnums: readonly number[]) {
  const f32 = (...shape: number[]) => newInput({ shape, dtype: "f32" });
  const ids = newInput({ shape: [1, tokens], dtype: "i32" });
  const loss = (x: Value, head: Value, ids: Value) => {
    const logits = dot(x, head, { contract: [[2], [1]], batch: [[], []] });
    return causalLoss(logits, ids, { chunk });
  };
  const f = valueAndGrad(loss, { argnums });
  const { program } = build(trace(f, [f32(1, tokens, width), f32(vocabulary, width), ids]).graph);
  const wide = ({ kernel }: Step, i: number) => kernel.operands[i].size === Math.min(chunk, tokens) * vocabulary;
  const touching = program.steps.flatMap((step) => {
    const bytes = step.kernel.operands.reduce(
      (sum, o, i) => sum + (wide(step, i) ? 4 * o.size * (o.access === "inout" ? 2 : 1) : 0),
      0,
    );
    return bytes > 0 ? [{ text: describeKernel(step.kernel), bytes }] : [];
  });
  const bytes = touching.reduce((sum, step) => sum + step.bytes, 0);
  return { texts: touching.map(({ text }) => text), bytes, arenaBytes: program.arenaBytes };
}

for (const chunk of [64, 1000]) {
  Deno.test(`logits in chunks of ${chunk} rows: written, read once for loss and slope, and the slope read once`, () => {
    const rows = Math.min(chunk, tokens);
    const { texts, bytes, arenaBytes } = stepsOnLogits(chunk, [0]);
    const each = [
      `contract ${rows} x ${vocabulary}, k ${width}`,
      `row ${rows} of ${vocabulary}: max, sum, sum, each, once`,
      `contract ${rows} x ${width}, k ${vocabulary}`,
    ];
    const chunks = Math.ceil(tokens / chunk);
    assertEquals(texts, Array.from({ length: chunks }, () => each).flat());
    assertEquals(bytes, 4 * 4 * tokens * vocabulary);
    // The slopes take the place of the logits; beside them there are only the rows of the trunk.
    assert(arenaBytes < 4 * rows * vocabulary + 4 * 4 * tokens * width, `${arenaBytes} bytes`);
  });

  Deno.test(`a trained head reads the slopes of ${chunk} rows once more`, () => {
    assertEquals(stepsOnLogits(chunk, [0, 1]).bytes, 5 * 4 * tokens * vocabulary);
  });
}
