import { assert, assertEquals } from "@std/assert";
import type { Leaf, TokenInputs } from "../../core/model.ts";
import { mul } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { upload } from "../../core/tensor.ts";
import { mapTree } from "../../core/tree.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { read } from "../../kernels/runtime/read.ts";
import { lora } from "../../lora/mod.ts";
import { loadModel } from "../../models/load/load_model.ts";
import { writeTinyModel } from "../../tests/e2e/tiny_model.ts";
import type { Example } from "../../data/examples.ts";
import { evaluator } from "../evaluate.ts";
import { train, type TrainOptions } from "../loop.ts";
import type { MetricsEvent } from "./metrics.ts";
import type { Optimiser } from "../optimiser.ts";
import { rngFrom } from "../../data/rng.ts";
import { type WatchOptions, watchRun } from "./watch_run.ts";
import { inFolder } from "../../tests/folder.ts";
import { encodeRow } from "../objectives/mod.ts";

type Tiny = Awaited<ReturnType<typeof makeTiny>>;

/** A tiny model, rows to learn from and validation rows. */
async function makeTiny(folder: string) {
  const device = await openCpu({ threads: 1 });
  await writeTinyModel(`${folder}/model`);
  const model = await loadModel(`${folder}/model`, { device });
  const tokenizer = model.tokenizer();
  const rows = Array.from(
    { length: 16 },
    (_, i): Example => encodeRow({ prompt: `${i} and ${i} `, completion: `is ${2 * i}` }, tokenizer),
  );
  const tuned = lora(model, { r: 4, alpha: 8, targets: ["c_attn", "c_proj"] });
  const options = { data: rows.slice(0, 12), steps: 12, batch: 4, lr: 1e-2 } satisfies TrainOptions;
  return { device, model, tuned, options, kept: rows.slice(12), evaluate: evaluator(tuned, rows.slice(12)) };
}

function withTiny(use: (tiny: Tiny) => Promise<void>) {
  return inFolder(async (folder) => {
    const tiny = await makeTiny(folder);
    using _ = tiny.device;
    await use(tiny);
  });
}

/** Trains under a watch whose metrics are kept. */
async function watched({ device, tuned, options }: Tiny, watching: Partial<WatchOptions<any>>) {
  const events: MetricsEvent[] = [];
  const metrics = { write: (event: MetricsEvent) => void events.push(event), [Symbol.dispose]: () => {} };
  const watch = watchRun({ steps: options.steps, device, metrics, ...watching });
  const run = await train(tuned, { ...options, watch });
  watch.end(run.losses.length, run.end);
  return { watch, run, events };
}

Deno.test("the seconds of a run go on where those of its checkpoint ended", () =>
  withTiny(async ({ device }) => {
    const seconds: number[] = [];
    const metrics = {
      write: (event: MetricsEvent) => void (event.event === "step" && seconds.push(event.seconds)),
      [Symbol.dispose]: () => {},
    };
    let time = 5000;
    const open = () => watchRun({ steps: 9, device, metrics, now: () => time });
    const line = (step: number) => ({ step, loss: 1, gradNorm: 1, lr: 1, tokens: 3 * step });
    using first = open();
    time += 2000;
    first.onStep(line(1));
    const saved = JSON.parse(JSON.stringify(first.save!()));
    time = 90_000;
    using second = open();
    second.restore!(saved, null);
    time += 1000;
    second.onStep(line(2));
    assertEquals(seconds, [2, 3]);
    await Promise.resolve();
  }));

Deno.test("an evaluation is the mean loss of the labelled tokens, whatever the batch", () =>
  withTiny(async ({ tuned, kept, evaluate, options }) => {
    const found = await evaluate(tuned.trainable);
    const count = kept.reduce((n, { labels }) => n + labels.filter((label) => label !== -100).length, 0);
    assertEquals([found.count, found.perplexity], [count, Math.exp(found.loss)]);
    for (const batch of [1, 3]) {
      const again = await evaluator(tuned, kept, { batch })(tuned.trainable);
      assert(Math.abs(again.loss - found.loss) < 1e-5 * found.loss && again.count === count);
    }
    // Of all rows in one batch, the loss before the first step is what is measured.
    const { losses } = await train(tuned, { ...options, data: kept, batch: kept.length, steps: 1 });
    assert(Math.abs(losses[0] - found.loss) < 1e-5 * found.loss, `${losses[0]} ${found.loss}`);
  }));

Deno.test("a run is evaluated at its start, every few steps and at its end, and its numbers are unchanged by it", () =>
  withTiny(async (tiny) => {
    const plain = await train(tiny.tuned, tiny.options);
    const { run, events, watch } = await watched(tiny, { evaluate: tiny.evaluate, evaluateEvery: 5 });
    assertEquals(run.losses, plain.losses);
    assertEquals(await read(run.trainable), await read(plain.trainable));
    const evaluations = events.filter((e) => e.event === "evaluation");
    assertEquals(evaluations.map(({ step }) => step), [0, 5, 10, 12]);
    assertEquals(watch.evaluations.map(({ evaluation }) => evaluation.loss), evaluations.map(({ loss }) => loss));
    const steps = events.filter((e) => e.event === "step");
    assertEquals(steps.map(({ loss }) => loss), plain.losses);
    for (const { deviceBytes, processBytes, gradNorm, seconds } of steps) {
      assert(deviceBytes > 1e4 && processBytes > deviceBytes && gradNorm > 0 && seconds >= 0);
    }
    assertEquals(steps.at(-1)!.secondsLeft, 0);
    assertEquals(events.at(-1), { event: "end", step: 12, reason: "done" });
  }));

Deno.test("without progress a run ends, and the best parameters are kept", () =>
  withTiny(async (tiny) => {
    const losses = [3, 2, 2.5, 2.25];
    const seen: unknown[] = [];
    const evaluate = async (params: unknown) => {
      seen.push(await read(params));
      return { loss: losses[seen.length - 1], count: 1 };
    };
    const { run, watch } = await watched(tiny, { evaluate, evaluateEvery: 2, patience: 2 });
    assertEquals(run.losses.length, 6);
    assert(run.end !== "done" && run.end.reason === "no progress" && run.end.step === 6, JSON.stringify(run.end));
    assertEquals(
      "message" in run.end && run.end.message.split(": ")[1],
      [
        "the run was stopped after step 6. The best parameters are those after step 2, with a loss of 2.0000.",
      ][0],
    );
    assertEquals([watch.best!.step, watch.best!.loss], [2, 2]);
    assertEquals(await read(watch.best!.params), seen[1]);
  }));

Deno.test("a run that diverges ends, without validation rows too, and what was good before is kept", async () => {
  using device = await openCpu({ threads: 1 });
  // A table of what follows which token, and an optimiser that only lets it grow.
  const rng = rngFrom(7);
  const rows = Array.from({ length: 40 }, () => Array.from({ length: 12 }, () => rng.below(8)));
  const data = rows.map((ids): Example => ({ ids, labels: ids }));
  const start = Float32Array.from({ length: 64 }, () => 0.02 * (rng.next() - 0.5));
  const trainee = {
    trainable: { table: upload(device, { shape: [8, 8], dtype: "f32", data: start }) },
    frozen: null,
    apply: (params: { table: Leaf }, _: null, { inputIds }: TokenInputs) => gather(params.table, inputIds),
  };
  const optimiser: Optimiser<unknown> = {
    init: () => null,
    update: (params, _, state) => ({ params: mapTree(params, (leaf) => mul(leaf as Leaf, 1.15)), state }) as any,
  };
  const steps = 200;
  using watch = watchRun({ steps, device, evaluateEvery: 10, watchdog: { steps: 3 } });
  const run = await train(trainee, { data, steps, batch: 4, lr: 1, optimiser, watch });
  assert(run.end !== "done" && run.end.reason === "diverged", JSON.stringify(run.end));
  const { step, message } = run.end;
  assertEquals(
    message.match(/^The losses of the last 3 steps, .* are far above the running mean of 2\.\d\d: /)?.length,
    1,
  );
  assert(
    step < steps && watch.best!.step < step && watch.best!.step % 10 === 0 && watch.best!.loss < run.losses.at(-1)! - 1,
  );
  assert(
    message.endsWith(
      `The best parameters are those after step ${watch.best!.step}, with a loss of ${watch.best!.loss.toFixed(4)}.`,
    ),
  );
});

Deno.test("samples are written at the start and at every evaluation", () =>
  withTiny(async (tiny) => {
    const sample = () => Promise.resolve([{ prompt: "a", text: "b" }]);
    const { events } = await watched(tiny, { sample, evaluateEvery: 6 });
    assertEquals(events.filter((e) => e.event === "samples").map(({ step }) => step), [0, 6, 12]);
  }));

Deno.test("a watch frees what it kept", () =>
  withTiny(async (tiny) => {
    const { device } = tiny;
    const { run, watch } = await watched(tiny, { evaluateEvery: 3 });
    const before = device.memory.current;
    watch[Symbol.dispose]();
    watch[Symbol.dispose]();
    assert(device.memory.current < before && watch.best === null);
    assertEquals(Object.keys(await read(run.trainable)).length, 3);
  }));

Deno.test("taken up from what it saved, a watch goes on as if it had never stopped", () =>
  withTiny(async ({ device, tuned }) => {
    const losses = [3, 2, 2.5, 2.25];
    const make = () =>
      watchRun<typeof tuned.trainable>({
        ...{ steps: 4, device, evaluateEvery: 1, patience: 2 },
        evaluate: () => Promise.resolve({ loss: losses.shift()!, count: 1 }),
      });
    using before = make();
    for (const step of [0, 1, 2]) assertEquals(await before.evaluate(step, tuned.trainable), null);
    using after = make();
    after.restore!(JSON.parse(JSON.stringify(before.save!())), jit((params: unknown) => params)(before.best!.params));
    assertEquals([after.best!.step, after.best!.loss], [1, 2]);
    const stop = await after.evaluate(3, tuned.trainable);
    assert(stop?.reason === "no progress" && stop.message.includes("The best parameters are those after step 1"));
    assertEquals(await read(after.best!.params), await read(tuned.trainable));
  }));
