import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DataError, OptionError } from "../core/errors.ts";
import { goldenCase } from "../tests/goldens/golden_case.ts";
import { oracleRuntime as runtime } from "../tests/runtimes.ts";
import { bert } from "./mod.ts";
import { embedder } from "./embed.ts";

const golden = goldenCase(`${import.meta.dirname}/../tests/goldens/cases`, "bert-base");
const model = await bert.load(`${golden.folder}/model`, { device: runtime.home });
const rows = [[5, 9, 30], [7], Array.from({ length: 20 }, (_, i) => 3 * i + 5), [8, 8, 8, 90], [61, 4]];

Deno.test("texts in batches of like length are embedded as each alone, in the order in which they came", async () => {
  const together = await embedder(model, { batch: 2 })(model.params, rows);
  const alone = embedder(model, { batch: 1 });
  for (const [i, row] of rows.entries()) {
    const [expected] = await alone(model.params, [row]);
    assertEquals(together[i].length, 48);
    // Sums over other numbers of zeros are the same sums: only the padding differs.
    assertEquals(together[i], expected);
    assert(Math.abs(Math.hypot(...expected) - 1) < 2 ** -22);
  }
  assertEquals(await alone(model.params, []), []);
});

Deno.test("a text that is longer than the context, and an invalid batch, are refused", async () => {
  const long = Array(41).fill(5);
  const sentence = "the sequence has 41 tokens, and the model's context is 40";
  await assertRejects(() => embedder(model)(model.params, [[5], long]), DataError, sentence);
  assertThrows(() => embedder(model, { batch: 0 }), OptionError, "can't embed 0 texts at a time");
});
