import { assert, assertEquals, assertRejects } from "@std/assert";
import { DataError, OptionError } from "../core/errors.ts";
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import type { Device } from "../kernels/device/device.ts";
import { read } from "../kernels/runtime/read.ts";
import { upload } from "../core/tensor.ts";
import { lora } from "../lora/mod.ts";
import { loadModel } from "../models/load/load_model.ts";
import { writeTinyModel } from "../tests/e2e/tiny_model.ts";
import { saveAdapter } from "../formats/adapter.ts";
import { loadAdapter } from "../formats/tuned_model.ts";
import type { Example } from "../data/examples.ts";
import { train, type TrainOptions } from "./loop.ts";
import { checkMerge, mergeParams } from "../formats/merge.ts";
import { saveModel } from "../formats/save_model.ts";
import { inFolder } from "../tests/folder.ts";
import { encodeRow } from "./objectives/mod.ts";

/** A tiny model with an adapter, and rows to learn from, in a folder of its own. */
function withTinyModel<T>(threads: number, use: (tiny: Awaited<ReturnType<typeof makeTiny>>) => Promise<T>) {
  return inFolder(async (folder) => {
    using device = await openCpu({ threads });
    return await use(await makeTiny(folder, device));
  });
}

async function makeTiny(folder: string, device: Device) {
  await writeTinyModel(`${folder}/model`);
  const model = await loadModel(`${folder}/model`, { device });
  const tokenizer = model.tokenizer();
  const data = Array.from(
    { length: 12 },
    (_, i): Example => encodeRow({ prompt: `${i} and ${i} `, completion: `is ${2 * i}` }, tokenizer),
  );
  const tuned = lora(model, { r: 4, alpha: 8, targets: ["c_attn", "c_proj"], dropout: 0.1 });
  const options = { data, steps: 6, batch: 4, lr: 1e-2, warmup: 2 } satisfies TrainOptions;
  return { folder, device, model, tuned, options };
}

Deno.test("one seed gives the same losses and the same adapter file, whatever the threads", async () => {
  const runs = await Promise.all(
    [1, 2, 3].map((threads) =>
      withTinyModel(threads, async ({ folder, tuned, options }) => {
        const { losses, trainable } = await train(tuned, options);
        await saveAdapter(folder, tuned, { trainable });
        return { losses, file: await Deno.readFile(`${folder}/adapter_model.safetensors`) };
      })
    ),
  );
  assertEquals(runs[0].losses.length, 6);
  assert(new Set(runs[0].losses).size > 1);
  for (const run of runs.slice(1)) assertEquals(run, runs[0]);
});

Deno.test("micro-batches divided by all of a step's labelled tokens are one large batch", () =>
  withTinyModel(1, async ({ model, options }) => {
    const tuned = lora(model, { r: 4, alpha: 8, targets: ["c_attn"] });
    const seq = 32;
    const whole = await train(tuned, { ...options, seq });
    const parts = await train(tuned, { ...options, seq, batch: 1, accumulate: 4 });
    const means = await train(tuned, { ...options, seq, batch: 1, accumulate: 4, normalise: "micro" });
    whole.losses.forEach((loss, i) => assert(Math.abs(loss - parts.losses[i]) < 1e-5 * loss));
    assert(whole.losses.some((loss, i) => Math.abs(loss - means.losses[i]) > 1e-5 * loss));
  }));

Deno.test("a loss that is not finite changes nothing and ends the run", () =>
  withTinyModel(1, async ({ tuned, options, model }) => {
    const data = options.data.map((row, i) => i === 5 ? { ...row, ids: row.ids.map(() => 3) } : row);
    const poisoned = await read((model.params as any).wte.weight);
    poisoned.data.fill(NaN, 3 * 16, 4 * 16);
    const trainee = {
      ...tuned,
      frozen: { ...(model.params as any), wte: { weight: upload((model.params as any).wte.weight.home, poisoned) } },
    };
    const steps: number[] = [];
    const run = await train(trainee as typeof tuned, { ...options, data, onStep: ({ step }) => steps.push(step) });
    assert(run.end !== "done" && run.end.reason === "not finite");
    assertEquals(steps, Array.from({ length: run.end.step - 1 }, (_, i) => i + 1));
    for (const { A, B } of Object.values(await read(run.trainable) as Record<string, any>)) {
      assert([...A.data, ...B.data].every(Number.isFinite));
    }
  }));

Deno.test("a signal ends the run after the step it is in, and it is kept", () =>
  withTinyModel(1, async ({ tuned, options }) => {
    const stop = new AbortController();
    const onStep = ({ step }: { step: number }) => step === 3 && stop.abort();
    const saved: number[] = [];
    const save = ({ step }: { step: number }) => Promise.resolve(void saved.push(step));
    const checkpoints = { due: () => false, save };
    const run = await train(tuned, { ...options, signal: stop.signal, onStep, checkpoints });
    assertEquals(run.end, { reason: "interrupted", step: 3 });
    assertEquals(run.losses.length, 3);
    assertEquals(saved, [3], "and what was learned until then is kept");
  }));

Deno.test("an adapter that was saved and loaded, and a model with it merged in, say the same", () =>
  withTinyModel(1, async ({ folder, device, model, tuned, options }) => {
    const { trainable } = await train(tuned, options);
    await saveAdapter(`${folder}/adapter`, tuned, { trainable, baseModel: "model" });
    const loaded = loadAdapter(`${folder}/adapter`, model);
    assertEquals(loaded.matched, tuned.matched);
    assertEquals(await read(loaded.trainable), await read(trainable));

    const merged = mergeParams(tuned, trainable);
    for (const { path, ratio } of await checkMerge(tuned, trainable, merged)) assert(ratio <= 1, `${path} ${ratio}`);
    const others = { ...trainable, "h.0.attn.c_attn": tuned.trainable["h.0.attn.c_attn"] };
    assert((await checkMerge(tuned, others, merged)).some(({ ratio }) => ratio > 1), "another adapter fits as well");

    await saveModel(`${folder}/merged`, model, { params: merged });
    using reloaded = await loadModel(`${folder}/merged`, { device });
    assertEquals(await read(reloaded.params), await read(merged));
    assertEquals(reloaded.tokenizer().encode("saved"), model.tokenizer().encode("saved"));
  }));

Deno.test("training refuses what it can't do", () =>
  withTinyModel(1, async ({ tuned, options }) => {
    const refuse = (changes: Partial<TrainOptions>, kind: typeof OptionError | typeof DataError, sentence: string) =>
      assertRejects(() => train(tuned, { ...options, ...changes }), kind, sentence);
    await refuse({ steps: 0 }, OptionError, "steps is 0: give a whole number of at least 1");
    await refuse({ batch: 1.5 }, OptionError, "batch is 1.5");
    await refuse({ clip: 0 }, OptionError, "clip is 0");
    await refuse({ seq: 65, context: 64 }, OptionError, "seq is 65, but the model's context holds 64 tokens");
    await refuse({ seq: 4 }, DataError, "Cannot fit an example");
    await refuse({ seq: 8, buckets: 3 }, DataError, "Cannot fit an example");
    await refuse({ seq: 8, pack: true }, DataError, "Cannot fit an example");
    await refuse({ buckets: 0 }, OptionError, "buckets is 0");
    await refuse({ data: [] }, DataError, "there are no rows to learn from");
    const notEncoded = { data: [{ prompt: "a", completion: "b" }] } as unknown as Partial<TrainOptions>;
    await refuse(notEncoded, DataError, "a row to learn from has no token ids: give encodeRow(row, tokenizer) for it");
  }));
