/** Where an adapter acts that waits for its invocation: in rows, in packed documents, and token by token over a cache. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { OptionError } from "../../core/errors.ts";
import { upload } from "../../core/tensor.ts";
import { unmergedSteps } from "../../formats/unmerged.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { read } from "../../kernels/runtime/read.ts";
import { openDevice } from "../../kernels/device/open.ts";
import { generator } from "../../models/generate/generate.ts";
import { loadModel } from "../../models/load/load_model.ts";
import { fromOracle, runOracle } from "../../testing/oracle.ts";
import { randomised } from "../../testing/toy_models.ts";
import { toHost } from "../../testing/oracle.ts";
import { mapTree } from "../../core/tree.ts";
import { combine } from "../compose/combine.ts";
import { lora } from "../lora.ts";
import { afterInvocation } from "./invocation.ts";

const ints = (rows: readonly (readonly number[])[]) => ({
  shape: [rows.length, rows[0].length],
  dtype: "i32" as const,
  data: Float64Array.from(rows.flat()),
});
const at = (tokens: number[], inputIds: number[][], documentStart?: number[][]): number[][] => {
  const acts = afterInvocation(tokens);
  const inputs = { inputIds: ints(inputIds), ...(documentStart && { documentStart: ints(documentStart) }) };
  const { data, shape: [b, t] } = runOracle((x: any) => acts.at(x), inputs);
  return Array.from({ length: b }, (_, i) => [...data.slice(i * t, (i + 1) * t)]);
};

Deno.test("it begins at the last occurrence, of a row or of a document, and nowhere without one", () => {
  const rows = [[7, 9, 1, 7, 9, 2], [1, 7, 9, 2, 3, 7], [7, 1, 9, 7, 7, 1]];
  assertEquals(at([7, 9], rows), [[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]]);
  // Two documents: 7 9 over their border is none, and each has its own last one.
  assertEquals(at([7, 9], [[7, 9, 7, 9, 7, 9]], [[0, 0, 0, 3, 3, 3]]), [[1, 1, 1, 0, 1, 1]]);
  assertEquals(at([7, 9], [[7, 9, 1, 7, 9, 1]], [[0, 0, 0, 3, 3, 3]]), [[1, 1, 1, 1, 1, 1]]);
  assertEquals(at([1, 2, 3], [[1, 2]]), [[0, 0]]);
});

Deno.test("the graph and the host find the same place", () => {
  const id = fc.integer({ min: 0, max: 2 });
  fc.assert(
    fc.property(
      fc.array(id, { minLength: 1, maxLength: 3 }),
      fc.array(id, { minLength: 1, maxLength: 12 }),
      (tokens, row) => {
        const from = afterInvocation(tokens).from(row);
        assertEquals(at(tokens, [row])[0], row.map((_, i) => from !== null && i >= from ? 1 : 0));
      },
    ),
  );
});

Deno.test("what is generated over a cache is what the whole text gives, for prompts with and without an invocation", async () => {
  using device = await openDevice("cpu", { threads: 1 });
  const base = `${import.meta.dirname}/../../tests/goldens/cases/llama-base/model`;
  using model = await loadModel(base, { device });
  const tuned = lora(model, { r: 4, alpha: 64, targets: "all-linear", aloraInvocationTokens: [7, 9] });
  const put = (x: any) => upload(device, toHost(fromOracle(x)));
  const trainable: any = mapTree(randomised(tuned.trainable, 3, 0.2), put);
  const prompts = [[5, 7, 9, 4], [5, 6, 4], [7, 9, 3, 7, 9, 8, 2]];
  const generate = generator(unmergedSteps(model, tuned));
  const made = await generate({ trainable, frozen: tuned.frozen }, prompts, { maxNewTokens: 6 });
  const apply = jit((t: any, f: any, inputs: any) => tuned.apply(t, f, inputs));
  for (const [i, prompt] of prompts.entries()) {
    const row = [...prompt, ...made[i].ids];
    assert(!made[i].ids.some((id, at) => id === 7 && made[i].ids[at + 1] === 9), "it invokes itself");
    const ids = upload(device, { shape: [1, row.length], dtype: "i32", data: Int32Array.from(row) });
    const { data, shape } = await read(apply(trainable, tuned.frozen, { inputIds: ids })) as any;
    const best = (at: number) => {
      const logits = data.subarray(at * shape[2], (at + 1) * shape[2]);
      return logits.indexOf(Math.max(...logits));
    };
    assertEquals(made[i].ids, made[i].ids.map((_, k) => best(prompt.length - 1 + k)), `prompt ${i}`);
  }
  const without = await generator(model)(model.params, prompts, { maxNewTokens: 6 });
  assertEquals(made[1], without[1]);
  assert(made[0].ids.some((id, k) => id !== without[0].ids[k]), "the invoked adapter changes nothing");

  const message = (f: () => unknown) => assertThrows(f, OptionError).message;
  const alone = "it acts only from its invocation on, and merged weights act everywhere";
  const path = "layers.0.self_attn.q_proj";
  assertEquals(message(() => tuned.merge(trainable, tuned.frozen)), `"${path}" can't be merged: ${alone}`);
  assertEquals(
    message(() => combine([{ tuned, trainable, weight: 1 }], "cat")),
    `"${path}" is in no weighted sum: ${alone}`,
  );
  const options = { r: 4, alpha: 8, targets: ["q_proj"], aloraInvocationTokens: [7] } as const;
  assertEquals(message(() => lora(model, { ...options, dora: true })).slice(0, 30), "aloraInvocationTokens and dora");
  assertEquals(message(() => lora(model, { ...options, loraBias: true })).slice(0, 26), "loraBias and aloraInvocati");
  assertEquals(tuned.matched[0].invocation, [7, 9]);
});
