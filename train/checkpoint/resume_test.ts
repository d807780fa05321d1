import { assert, assertEquals, assertRejects } from "@std/assert";
import { DataError, DeviceError } from "../../core/errors.ts";
import fc from "fast-check";
import type { Tensor } from "../../core/tensor.ts";
import { flatten } from "../../core/tree.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import { read } from "../../kernels/runtime/read.ts";
import { lora } from "../../lora/mod.ts";
import { loadModel } from "../../models/load/load_model.ts";
import { writeTinyModel } from "../../tests/e2e/tiny_model.ts";
import { checkpointStore } from "./checkpoint.ts";
import { train, type TrainOptions } from "../loop.ts";
import type { Snapshot } from "./snapshot.ts";
import type { StepLine } from "../watch/watch.ts";
import { inFolder } from "../../tests/folder.ts";
import { encodeRow } from "../objectives/mod.ts";

/** The tiny model with an adapter, and rows of many lengths. */
function withTiny<T>(dropout: number, use: (tiny: Awaited<ReturnType<typeof makeTiny>>) => Promise<T>): Promise<T> {
  return inFolder(async (folder) => {
    using device = await openCpu({ threads: 1 });
    return await use(await makeTiny(folder, device, dropout));
  });
}

async function makeTiny(folder: string, device: Awaited<ReturnType<typeof openCpu>>, dropout: number) {
  await writeTinyModel(`${folder}/model`);
  const model = await loadModel(`${folder}/model`, { device });
  const tokenizer = model.tokenizer();
  const data = Array.from(
    { length: 13 },
    (_, i) => encodeRow({ prompt: "p".repeat(1 + (7 * i) % 23), completion: `is ${i}` }, tokenizer),
  );
  const tuned = lora<any, any, any>(model, { r: 2, alpha: 4, targets: ["c_attn", "c_proj"], dropout });
  const options = { data, steps: 12, batch: 2, lr: 1e-2, warmup: 2, context: 64 } satisfies TrainOptions;
  return { folder, model, tuned, options };
}

/** What decides which batches there are and what is random, one of each at least. */
const variants: Readonly<Record<string, Partial<TrainOptions> & { readonly dropout?: number }>> = {
  "one batch a step": {},
  "accumulation": { accumulate: 3 },
  "dropout": { dropout: 0.2 },
  "packs": { pack: true, seq: 48 },
  "length buckets": { buckets: 3 },
  "all of them": { buckets: 3, accumulate: 2, dropout: 0.2 },
  "packs with accumulation and dropout": { pack: true, seq: 64, accumulate: 2, dropout: 0.2 },
};

for (const [name, { dropout = 0, ...variant }] of Object.entries(variants)) {
  Deno.test(`a resumed run is the uninterrupted one bit for bit: ${name}`, () =>
    withTiny(dropout, async ({ folder, tuned, options }) => {
      const plan: TrainOptions = { ...options, ...variant };
      const store = checkpointStore({ folder: `${folder}/checkpoints`, identity: {}, keep: 100 });
      const checkpoints = {
        due: () => true,
        save: (...[snapshot, params]: Parameters<NonNullable<TrainOptions["checkpoints"]>["save"]>) =>
          store.save(snapshot, params, null),
      };
      const whole = await train(tuned, { ...plan, checkpoints });
      assertEquals(whole.losses.length, 12);
      const wanted = await read(whole.trainable);
      for (const step of [11, 7, 5, 1]) {
        for (const later of store.steps()) {
          if (later > step) {
            await Deno.remove(`${folder}/checkpoints/step-${String(later).padStart(8, "0")}`, { recursive: true });
          }
        }
        const { snapshot } = store.newest()!;
        assertEquals(snapshot.step, step);
        const tokens: number[] = [];
        const rest = await train(tuned, { ...plan, resume: snapshot, onStep: (line) => tokens.push(line.tokens) });
        assertEquals(rest.losses, whole.losses.slice(step));
        assertEquals(await read(rest.trainable), wanted);
        assert(tokens[0] > snapshot.tokens);
      }
    }));
}

Deno.test("one batch of eight ragged rows is four batches of two, accumulated", () =>
  withTiny(0, async ({ tuned, options }) => {
    const { data } = options;
    await fc.assert(
      fc.asyncProperty(fc.nat(1000), async (seed) => {
        const plan = { ...options, data, steps: 3, seed, seq: 48 };
        const whole = await train(tuned, { ...plan, batch: 8 });
        const parts = await train(tuned, { ...plan, batch: 2, accumulate: 4 });
        // Sums of the same terms in another order: the rounding of some 8·48 of them, carried through three updates.
        const bound = 3 * 8 * 48 * 2 ** -23;
        whole.losses.forEach((loss, i) =>
          assert(Math.abs(loss - parts.losses[i]) <= bound * loss, `${loss} ${parts.losses[i]}`)
        );
        const [a, b] = await Promise.all([read(whole.trainable), read(parts.trainable)]) as Record<string, any>[];
        for (const [path, { B }] of Object.entries(a)) {
          // Adam's steps are as long as the rate, whatever the gradient: an error may at most turn the sign of tiny ones.
          const off = B.data.reduce((sum: number, x: number, i: number) => sum + Math.abs(x - b[path].B.data[i]), 0);
          const size = B.data.reduce((sum: number, x: number) => sum + Math.abs(x), 0);
          assert(off <= 0.01 * size, `${path} ${off} of ${size}`);
        }
        for (const run of [whole, parts]) disposeAll(run.trainable);
      }),
      { numRuns: 10 },
    );
  }));

function disposeAll(trainable: any) {
  for (const entry of Object.values<any>(trainable)) for (const leaf of Object.values<Tensor>(entry)) leaf.dispose();
}

Deno.test("packed rows have the loss that they have one a row", () =>
  withTiny(0, async ({ tuned, options }) => {
    // One step over all of the data, in whatever order.
    const data = options.data.slice(0, 3).map(({ ids }) => ({ ids, labels: ids }));
    const apart = await train(tuned, { ...options, data, steps: 1, batch: 3 });
    const total = data.reduce((sum, { ids }) => sum + ids.length, 0);
    const packed = await train(tuned, { ...options, data, steps: 1, batch: 1, pack: true, seq: total });
    assert(Math.abs(apart.losses[0] - packed.losses[0]) <= total * 2 ** -23 * apart.losses[0]);
  }));

Deno.test("steps of several batches learn as those of one large batch, with length buckets too", () =>
  withTiny(0, async ({ tuned, options }) => {
    for (const variant of [{ buckets: 3 }, { buckets: 1 }, { pack: true, seq: 64 }]) {
      const plan = { ...options, ...variant, steps: 4 };
      const large = await train(tuned, { ...plan, batch: 8 });
      const small = await train(tuned, { ...plan, batch: 2, accumulate: 4 });
      large.losses.forEach((loss, step) => {
        assert(Math.abs(loss - small.losses[step]) <= 1e-4 * loss, `${JSON.stringify(variant)}, step ${step + 1}`);
      });
    }
  }));

Deno.test("a run of fewer rows than a batch, and of a single one, learns each once a step", () =>
  withTiny(0, async ({ tuned, options }) => {
    for (const count of [1, 3]) {
      const data = options.data.slice(0, count);
      const { losses, shapes } = await train(tuned, { ...options, data, steps: 2, batch: 8 });
      const alone = await train(tuned, { ...options, data, steps: 2, batch: count });
      assertEquals(losses, alone.losses);
      assert(shapes.every((shape) => shape.startsWith(`${count} x `)), String(shapes));
    }
  }));

Deno.test("a run that is resumed with more steps continues at the rates of a run of that length", () =>
  withTiny(0, async ({ tuned, options }) => {
    for (const schedule of ["constant", "linear"] as const) {
      let last: Snapshot | undefined;
      const save = (snapshot: Snapshot) => Promise.resolve(void (last = snapshot));
      const lines: StepLine[][] = [[], [], []];
      const plan = { ...options, schedule, warmup: 0 };
      const whole = await train(tuned, { ...plan, onStep: (line) => lines[0].push(line) });
      await train(tuned, {
        ...plan,
        steps: 5,
        checkpoints: { due: () => false, save },
        onStep: (l) => lines[1].push(l),
      });
      const more = await train(tuned, { ...plan, resume: last, onStep: (line) => lines[2].push(line) });
      assertEquals(lines[2].map(({ lr }) => lr), lines[0].slice(5).map(({ lr }) => lr));
      assertEquals(lines[2].map(({ step }) => step), lines[0].slice(5).map(({ step }) => step));
      if (schedule === "constant") assertEquals(more.losses, whole.losses.slice(5));
    }
  }));

Deno.test("every micro-batch of a run drops other places", () =>
  withTiny(0, async ({ model, options }) => {
    const tuned = lora<any, any, any>(model, { r: 2, alpha: 4, targets: ["c_attn"], dropout: 0.5, init: false });
    const [row] = options.data;
    const plan = { data: [row, row], batch: 1, lr: 1e-30, context: 64 };
    const { losses } = await train(tuned, { ...plan, steps: 4 });
    assertEquals(new Set(losses).size, 4);
    const twice = await train(tuned, { ...plan, steps: 2, accumulate: 2 });
    // The second step's batches are the third and the fourth of the run.
    [0, 1].forEach((step) => {
      const mean = (losses[2 * step] + losses[2 * step + 1]) / 2;
      assert(Math.abs(twice.losses[step] - mean) <= 4 * 2 ** -23 * mean);
    });
  }));

Deno.test("a row that can't be used ends a streamed run, and what was learned until then is kept", () =>
  withTiny(0.1, async ({ folder, tuned, options }) => {
    const plan = { ...options, seq: 48 };
    const whole = await train(tuned, plan);
    const store = checkpointStore({ folder: `${folder}/checkpoints`, identity: {} });
    const checkpoints: TrainOptions["checkpoints"] = {
      due: () => false,
      save: (snapshot) => store.save(snapshot, null, null),
    };
    let asked = 0;
    const broken = {
      length: options.data.length,
      streamed: true,
      at: (i: number) => {
        if (++asked > 9) throw new DataError("rows.jsonl line 7 is not UTF-8: convert the file to UTF-8.");
        return options.data[i];
      },
    };
    await assertRejects(() => train(tuned, { ...plan, data: broken, checkpoints }), DataError, "line 7 is not UTF-8");
    // Two rows a step: the tenth belongs to the fifth step.
    const { snapshot } = store.newest()!;
    assertEquals(snapshot.step, 4);
    const rest = await train(tuned, { ...plan, resume: snapshot });
    assertEquals(rest.losses, whole.losses.slice(4));
  }));

Deno.test("a device that has no more memory ends a run, and what was learned until then is kept", () =>
  withTiny(0, async ({ folder, tuned, options }) => {
    const whole = await train(tuned, options);
    const store = checkpointStore({ folder: `${folder}/checkpoints`, identity: {} });
    const checkpoints: TrainOptions["checkpoints"] = {
      due: () => false,
      save: (snapshot) => store.save(snapshot, null, null),
    };
    const { home } = flatten<Tensor>(tuned.trainable).leaves[0];
    const allocate = home.allocate.bind(home);
    let full = false;
    home.allocate = (bytes) => {
      if (full) throw new DeviceError("no memory is left");
      return allocate(bytes);
    };
    const onStep: TrainOptions["onStep"] = ({ step }) => void (full = step === 5);
    try {
      await assertRejects(() => train(tuned, { ...options, checkpoints, onStep }), DeviceError, "no memory is left");
    } finally {
      home.allocate = allocate;
    }
    const { snapshot } = store.newest()!;
    assertEquals(snapshot.step, 5);
    assertEquals((await train(tuned, { ...options, resume: snapshot })).losses, whole.losses.slice(5));
  }));
