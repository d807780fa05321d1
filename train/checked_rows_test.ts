import { assertRejects } from "@std/assert";
import { DataError } from "../core/errors.ts";
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import { lora } from "../lora/mod.ts";
import { loadModel } from "../models/load/load_model.ts";
import { generator } from "../models/generate/generate.ts";
import { writeTinyModel } from "../tests/e2e/tiny_model.ts";
import type { Example } from "../data/examples.ts";
import { evaluator } from "./evaluate.ts";
import { train } from "./loop.ts";
import { wholeModel } from "./trainee.ts";

Deno.test("ids and labels that the model has no place for are refused before the first step, wherever they come from", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await writeTinyModel(`${folder}/model`);
    using device = await openCpu({ threads: 1 });
    using model = await loadModel(`${folder}/model`, { device });
    const good: Example = { ids: [1, 2, 3], labels: [1, 2, 3] };
    const cases: [Example, string][] = [
      [
        { ids: [1, 257], labels: [1, 2] },
        "row 2 has token ids up to 257, and the model's embedding has 257 rows, 0 to 256",
      ],
      [{ ids: [1, -1], labels: [1, 2] }, "row 2 has the token id -1"],
      [{ ids: [1, 1.5], labels: [1, 2] }, "row 2 has the token id 1.5"],
      [{ ids: [1, NaN], labels: [1, 2] }, "row 2 has the token id NaN"],
      [{ ids: [1, 2], labels: [1, 300] }, "row 2 has the label 300, and the model predicts 257, 0 to 256"],
      [{ ids: [1, 2], labels: [1, -1] }, "row 2 has the label -1"],
      [{ ids: [1, 2], labels: [1] }, "row 2 has 2 token ids and 1 labels"],
    ];
    const options = { steps: 2, batch: 1, lr: 1e-3 };
    for (const trainee of [lora(model, { r: 2, alpha: 4, targets: ["c_attn", "wte"] }), wholeModel(model)]) {
      for (const [bad, sentence] of cases) {
        const data = [good, bad];
        const streamed = { length: 2, streamed: true, at: (i: number) => data[i] };
        for (const rows of [data, streamed]) {
          await assertRejects(() => train(trainee as any, { ...options, data: rows }), DataError, sentence);
        }
        await assertRejects(
          // deno-lint-ignore require-await -- what is thrown at once is a rejection here
          async () => evaluator(trainee as any, data),
          DataError,
          sentence,
        );
      }
    }
    const generate = generator(model);
    await assertRejects(
      () => generate(model.params, [[1, 257]], { maxNewTokens: 1 }),
      DataError,
      "prompt 1 has token ids up to 257",
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
