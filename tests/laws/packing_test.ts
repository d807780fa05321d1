/** Documents packed in one row are computed as each alone: logits, loss and every gradient, on every runtime. */
import { causalLoss, ignoredLabel } from "../../core/nn/loss.ts";
import { type HostTensor, upload } from "../../core/tensor.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { flatten } from "../../core/tree.ts";
import { loadModel } from "../../models/load/load_model.ts";
import { assertNear, goldenCase } from "../goldens/golden_case.ts";
import { type OpenRuntime, runtimes } from "../runtimes.ts";

// Longer than the window of the second model; the second document starts within a block of the kernels.
const documents = [31, 31].map((length, n) => Array.from({ length }, (_, i) => (7 * i + 31 * n) % 90));
const starts = documents.map((_, n) => documents.slice(0, n).flat().length);

/** A batch of one row: some documents, by number. */
function batchOf(row: readonly number[], runtime: OpenRuntime) {
  const tokens = (make: (document: number[], start: number) => number[]) => {
    const data = Int32Array.from(row.flatMap((n) => make(documents[n], starts[n] - starts[row[0]])));
    return upload(runtime.home, { shape: [1, data.length], dtype: "i32", data });
  };
  return {
    inputs: { inputIds: tokens((ids) => ids), documentStart: tokens((ids, start) => ids.map(() => start)) },
    // The first token of a document is predicted by nothing.
    labels: tokens((ids) => [ignoredLabel, ...ids.slice(1)]),
  };
}

for (const { name, open } of runtimes) {
  Deno.test(`packed documents are computed as each alone on ${name}`, async (t) => {
    using runtime = await open();
    for (const id of ["gpt2-base", "mistral-base"]) {
      await t.step(id, async () => {
        const golden = goldenCase(`${import.meta.dirname}/../goldens/cases`, id);
        using model = await loadModel(`${golden.folder}/model`, { device: runtime.home });
        const loss = (params: unknown, { inputs, labels }: any) =>
          causalLoss(model.apply(params, inputs), labels, { reduction: "sum" });
        const all = runtime.jit((params, batch) => {
          const [value, grads] = valueAndGrad(loss)(params, batch);
          return { logits: model.apply(params, batch.inputs), value, grads };
        });
        const run = async (row: number[]) => {
          const out = await runtime.read(all(model.params, batchOf(row, runtime)));
          return { ...out, grads: flatten<HostTensor>(out.grads, (x) => (x as HostTensor | null)?.data !== undefined) };
        };
        const packed = await run([0, 1]);
        const alone: Awaited<ReturnType<typeof run>>[] = [];
        for (const n of documents.keys()) alone.push(await run([n]));

        const width = packed.logits.shape[2];
        alone.forEach(({ logits }, n) => {
          const data = packed.logits.data.slice(starts[n] * width, (starts[n] + documents[n].length) * width);
          assertNear(`the logits of document ${n}`, { ...logits, data }, logits, golden.rtol.values);
        });
        assertNear("the loss", packed.value, alone.reduce((sum, { value }) => sum + value, 0), golden.rtol.values);
        packed.grads.paths.forEach((path: string, i: number) => {
          const data = packed.grads.leaves[i].data.map((_: number, at: number) =>
            alone.reduce((sum, { grads }) => sum + grads.leaves[i].data[at], 0)
          );
          const expected = { ...packed.grads.leaves[i], data } as HostTensor;
          assertNear(`the gradient of ${path}`, packed.grads.leaves[i], expected, golden.rtol.long);
        });
      });
    }
  });
}
