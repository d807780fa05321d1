import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DataError, OptionError } from "../../core/errors.ts";
import { newInput } from "../../core/ir/graph.ts";
import { asValue } from "../../core/ops/constant.ts";
import { argmax } from "../../core/ops/reduce.ts";
import { slice } from "../../core/ops/structure.ts";
import { upload } from "../../core/tensor.ts";
import { oracleRuntime as runtime } from "../../tests/runtimes.ts";
import { generator } from "./generate.ts";
import { loadModel } from "../load/load_model.ts";

const cases = `${import.meta.dirname}/../../tests/goldens/cases`;
const ints = (shape: number[], data: number[]) =>
  upload(runtime.home, { shape, dtype: "i32", data: Int32Array.from(data) });

// The windows of the last two are shorter than what is generated from.
for (const id of ["gpt2-base", "llama-untied", "mistral-base", "qwen2-base"]) {
  const model = await loadModel(`${cases}/${id}/model`, { device: runtime.home });
  const generate = generator(model);
  const prompts = [[5, 17, 89], [44], Array.from({ length: 40 }, (_, i) => (i * 7) % 90)];

  /** The next token by the whole sequence, without a cache. */
  const next = async (ids: number[]) => {
    const last = runtime.jit((params, inputIds) => {
      const logits = asValue(model.apply(params, { inputIds }) as any);
      return argmax(slice(logits, 1, ids.length - 1, ids.length), 2);
    });
    return (await runtime.read(last(model.params, ints([1, ids.length], ids)))).data[0] as number;
  };

  Deno.test(`${id}: prompts of different lengths in one batch continue as each does alone, without a cache`, async () => {
    const made = await generate(model.params, prompts, { maxNewTokens: 5, readEvery: 2 });
    for (const [i, prompt] of prompts.entries()) {
      const expected: number[] = [];
      while (expected.length < 5) expected.push(await next([...prompt, ...expected]));
      assertEquals(made[i], { ids: expected, finish: "length" });
    }
  });

  Deno.test(`${id}: a row stops at a stop id, which it does not keep, or when it is complete`, async () => {
    const [free] = await generate(model.params, [prompts[0]], { maxNewTokens: 4 });
    // The first new token of another kind; the very first where all are one.
    const at = Math.max(0, free.ids.findIndex((token, i) => i > 0 && free.ids.indexOf(token) === i));
    const stopped = await generate(model.params, [prompts[0]], { maxNewTokens: 4, stopIds: [free.ids[at]] });
    assertEquals(stopped, [{ ids: free.ids.slice(0, at), finish: "stop" }]);
    const complete = await generate(model.params, [prompts[0]], {
      maxNewTokens: 4,
      isComplete: (ids) => ids.length === 2,
    });
    assertEquals(complete, [{ ids: free.ids.slice(0, 2), finish: "stop" }]);
  });

  Deno.test(`${id}: padding on the left or on the right gives real tokens the same logits`, async () => {
    const ids = prompts[0];
    const run = async (row: number[], mask: number[]) => {
      const inputs = { inputIds: ints([1, row.length], row), attentionMask: ints([1, mask.length], mask) };
      const { data, shape } = await runtime.read(runtime.jit(model.apply)(model.params, inputs));
      const width = shape[2];
      return mask.flatMap((real, t) => real ? [...data.slice(t * width, (t + 1) * width)] : []);
    };
    const bare = await run(ids, [1, 1, 1]);
    assertEquals(await run([...ids, 3, 3], [1, 1, 1, 0, 0]), bare);
    assertEquals(await run([3, 3, ...ids], [0, 0, 1, 1, 1]), bare);
  });

  Deno.test(`${id}: a sequence longer than the context is refused when the model is traced`, () => {
    const long = newInput({ shape: [1, model.sizes.contextLength + 1], dtype: "i32" });
    assertThrows(() => model.apply(model.params, { inputIds: long }), DataError, "and the model's context is");
  });

  Deno.test(`${id}: an empty prompt, one without place to go on, and no tokens to make are refused`, async () => {
    const long = Array(model.sizes.contextLength).fill(1);
    await assertRejects(() => generate(model.params, [[]], { maxNewTokens: 1 }), DataError, "prompt 1 is empty");
    await assertRejects(() => generate(model.params, [[1], long], { maxNewTokens: 1 }), DataError, "prompt 2 has");
    await assertRejects(() => generate(model.params, [[1]], { maxNewTokens: 0 }), OptionError, "at least 1");
  });
}
