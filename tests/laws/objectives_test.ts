/**
 * What holds for every objective, generated from the list: a new one is in it with its file and its line there. In float64,
 * on the oracle, wherever it is a matter of what is computed; on the CPU where it is a matter of bits.
 */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import type { Value } from "../../core/ir/graph.ts";
import type { LanguageModelSizes, Model, TokenInputs } from "../../core/model.ts";
import type { TensorHome } from "../../core/tensor.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { flatten } from "../../core/tree.ts";
import { type Batch, type Example, mapColumns } from "../../data/examples.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import { read } from "../../kernels/runtime/read.ts";
import { lora, type Tuned } from "../../lora/mod.ts";
import { type FromFiles, loadClassifier, loadEncoder, loadMasked, loadModel, loadTagger } from "../../models/mod.ts";
import { reportHtml } from "../../report/html_report.ts";
import { checkGrads } from "../../testing/check_grads.ts";
import { type OracleTensor, oracleTensor, runOracle } from "../../testing/oracle.ts";
import { randomised } from "../../testing/toy_models.ts";
import { compileStep, sharedFunction, uploadBatch } from "../../train/compiled_step.ts";
import type { Examples } from "../../data/data_set.ts";
import { evaluator } from "../../train/evaluate.ts";
import { referenceFunction, relatedRows } from "../../train/reference.ts";
import { train, type TrainOptions } from "../../train/loop.ts";
import { estimateMemory } from "../../train/memory/estimate.ts";
import { objectiveOfRows, objectives, openData, purposeOfRows } from "../../train/objectives/mod.ts";
import type { Objective } from "../../train/objectives/objective.ts";
import { adamw } from "../../train/optimiser.ts";
import type { Snapshot } from "../../train/checkpoint/snapshot.ts";
import { parseMetrics } from "../../train/watch/metrics.ts";
import { writeTinyModel } from "../e2e/tiny_model.ts";
import { inFolder } from "../folder.ts";

type AnyModel = Model<any, TokenInputs, Value> & FromFiles & { readonly sizes: LanguageModelSizes };

/** A small model for each task, of the labels that its rows name. */
const models: Readonly<
  Record<
    Objective["task"],
    (
      folder: string,
      device: TensorHome,
      labels?: readonly string[],
      problem?: Objective["says"],
    ) => Promise<unknown>
  >
> = {
  CAUSAL_LM: (folder, device) => loadModel(folder, { device }),
  SEQ_CLS: async (folder, device, labels, problem) =>
    await loadClassifier(await golden(folder, "bert-base"), { device, labels, problem }),
  TOKEN_CLS: async (folder, device, labels) => await loadTagger(await golden(folder, "bert-base"), { device, labels }),
  MASKED_LM: async (folder, device) => {
    const place = `${folder}/tokenizer_config.json`, config = JSON.parse(await Deno.readTextFile(place));
    await Deno.writeTextFile(place, JSON.stringify({ ...config, mask_token: "~" }));
    return await loadMasked(await golden(folder, "modernbert-base"), { device });
  },
  FEATURE_EXTRACTION: async (folder, device) => await loadEncoder(await golden(folder, "bert-base"), { device }),
};

/** Puts a golden case's model into a folder that has a tokenizer. */
async function golden(folder: string, id: string): Promise<string> {
  for (const name of ["config.json", "model.safetensors"]) {
    await Deno.copyFile(`${import.meta.dirname}/../goldens/cases/${id}/model/${name}`, `${folder}/${name}`);
  }
  return folder;
}

interface Subject {
  readonly objective: Objective;
  readonly tuned: Tuned<any, TokenInputs, Value>;
  /** The samples, tokenised. */
  readonly examples: readonly Example[];
  readonly context: number;
  readonly path: string;
}

/** An objective's samples and an adapter to learn them with, none of whose values is neutral. */
function withSubject(objective: Objective, home: TensorHome, use: (subject: Subject) => unknown): Promise<void> {
  return inFolder(async (folder) => {
    await writeTinyModel(folder);
    const path = `${folder}/rows.jsonl`;
    await Deno.writeTextFile(path, objective.samples.map((row) => JSON.stringify(row)).join("\n"));
    const { labels } = purposeOfRows(path);
    using model = await models[objective.task](folder, home, labels, objective.says) as AnyModel;
    const tuned = lora<any, TokenInputs, Value>(model, {
      ...{ r: 2, alpha: 4, targets: "all-linear", seed: 1 },
      modulesToSave: model.fresh?.length ? model.fresh : undefined,
    });
    const context = model.sizes.contextLength;
    const options = { objective, context, classes: model.labels };
    using data = openData(path, model.tokenizer(), options);
    const read = relatedRows(
      Array.from({ length: data.length }, (_, i) => data.at(i)!) as unknown as Examples,
      objective,
    );
    const plain = Array.from({ length: read.length }, (_, i) => read.at(i)!);
    const examples = home === oracle ? plain.map((example) => referred(objective, tuned, example)) : plain;
    await use({ objective, tuned, examples, context, path });
  });
}

const oracle = oracleTensor([], [0]).home;

/** An example with the numbers that a run computes of it before its first step. */
function referred(objective: Objective, tuned: Subject["tuned"], example: Example): Example {
  if (objective.reference === undefined) return example;
  const batch = objective.collate([example], { rows: 1, seq: objective.lengthOf(example), padId: 0 });
  const of = referenceFunction(tuned, objective);
  const found = runOracle(of, tuned.model.params, uploadBatch(oracle, batch)) as Record<string, OracleTensor>;
  return { ...example, reference: Object.fromEntries(Object.entries(found).map(([name, { data }]) => [name, data])) };
}

/** Parameters of which none is neutral. */
const drawn = ({ trainable }: Subject["tuned"]) => randomised(trainable, 1, 0.5);

/** What batches add up to before any of them is learned from, as columns of each. */
function sharedOf({ objective, tuned }: Pick<Subject, "objective" | "tuned">, params: any, batches: readonly any[]) {
  const sums: Record<string, number> = {};
  for (const columns of objective.shared ? batches : []) {
    const found = runOracle(sharedFunction(tuned, objective), params, tuned.frozen, columns);
    for (const [name, { data: [sum] }] of Object.entries(found as Record<string, OracleTensor>)) {
      sums[name] = (sums[name] ?? 0) + sum;
    }
  }
  return Object.fromEntries(Object.entries(sums).map(([name, sum]) => [name, oracleTensor([], [sum])]));
}

/** What batches add up to in float64: every sum, and the gradient of the loss. */
function totals({ objective, tuned }: Subject, params: any, batches: readonly Batch[], withPlaces = false) {
  const sums = new Map<string, number>();
  let grads: number[] = [];
  let count = 0;
  const all = batches.map((batch) => {
    const places = withPlaces ? objective.places?.(batch) : undefined;
    return { ...uploadBatch(oracle, batch), ...(places && { places: oracleTensor(places.shape, places.data, "i32") }) };
  });
  const shared = sharedOf({ objective, tuned }, params, all);
  for (const [i, batch] of batches.entries()) {
    const columns = { ...all[i], ...shared };
    const found = runOracle((params: any) => {
      const made = (p: any) => objective.sums((inputs) => tuned.apply(p, tuned.frozen, inputs), columns as any);
      return { sums: made(params), grads: valueAndGrad((p: any) => made(p).loss)(params)[1] };
    }, params) as { sums: Record<string, OracleTensor>; grads: unknown };
    for (const [name, { data: [sum] }] of Object.entries(found.sums)) {
      const before = sums.get(name), join = objective.joins?.[name];
      sums.set(name, before === undefined ? sum : join ? Math[join](before, sum) : before + sum);
    }
    const own = flatten<OracleTensor>(found.grads, (x) => (x as OracleTensor)?.data instanceof Float64Array).leaves
      .flatMap(({ data }) => [...data]);
    grads = own.map((g, i) => g + (grads[i] ?? 0));
    count += objective.count(batch);
  }
  return { sums, grads, count };
}

/**
 * That two ways come to the same. Both add up what every token does to every parameter, in another order: the rounding of as
 * many additions, against the largest of the numbers.
 */
function assertSame(a: ReturnType<typeof totals>, b: ReturnType<typeof totals>, tokens: number) {
  assertEquals(a.count, b.count);
  assert(a.count > 0);
  const bound = tokens * a.grads.length * 2 ** -53;
  const near = (what: string, x: readonly number[], y: readonly number[]) => {
    assertEquals(x.length, y.length);
    const size = Math.max(...x.map(Math.abs));
    x.forEach((value, i) => assert(Math.abs(value - y[i]) <= bound * size, `${what} ${i}: ${value} and ${y[i]}`));
  };
  assertEquals([...a.sums.keys()], [...b.sums.keys()]);
  for (const [name, sum] of a.sums) near(name, [sum], [b.sums.get(name)!]);
  near("gradient", a.grads, b.grads);
  assert(a.grads.some((g) => g !== 0), "there is no gradient to compare");
}

/** The least that all examples fit in. */
const lengthOf = ({ objective, examples }: Subject) => Math.max(...examples.map(objective.lengthOf));

for (const objective of objectives) {
  const name = `${objective.name}, that learns ${objective.formats.map(({ kind }) => kind).join(", ")}`;
  const law = (what: string, check: (subject: Subject) => unknown) =>
    Deno.test(`${name}: ${what}`, () => withSubject(objective, oracle, check));

  law("its samples are rows of its own, and examples of several lengths", ({ examples, path }) => {
    const { formats } = objectiveOfRows(path);
    assert(formats.some((format) => objective.formats.includes(format)));
    assertEquals(examples.length, objective.samples.length);
    assert(new Set(examples.map(objective.lengthOf)).size > 2 && examples.length > 4);
    for (const example of examples) {
      assert(objective.fits(example) && objective.isLearnable(example));
      assertEquals(objective.problem(example, { rows: Infinity, columns: Infinity }), null);
      assert(objective.problem(example, { rows: 1, columns: Infinity }), "an id that no table has is not noticed");
      assertEquals(objective.lengthOf(objective.cut(example, 0, 2)), 2);
      const prompt = objective.prompt?.(example);
      assert(prompt === undefined || (prompt.length > 0 && prompt.length < objective.lengthOf(example)));
    }
  });

  law("its gradient is the numeric one", (subject) => {
    const { tuned, examples } = subject;
    const batch = objective.collate(examples, { rows: examples.length, seq: lengthOf(subject), padId: 0 });
    const own = uploadBatch(oracle, batch);
    const columns = { ...own, ...sharedOf(subject, drawn(tuned), [own]) };
    checkGrads((p) => objective.sums((x) => tuned.apply(p, tuned.frozen, x), columns).loss, [drawn(tuned)]);
  });

  law("padding changes nothing, of rows, of their ends, of places without a label", (subject) => {
    const { tuned, examples } = subject;
    const [params, rows, seq] = [drawn(tuned), examples.length, lengthOf(subject)];
    const plain = totals(subject, params, [objective.collate(examples, { rows, seq, padId: 0 })]);
    const more = objective.collate(examples, { rows: rows + 2, seq: seq + 5, padId: 3 });
    for (const withPlaces of [false, true]) {
      assertSame(plain, totals(subject, params, [more], withPlaces), (rows + 2) * (seq + 5));
    }
  });

  law("batches that are added up are one batch, or it refuses to add them up", async (subject) => {
    const { tuned, examples } = subject;
    const [params, seq] = [drawn(tuned), lengthOf(subject)];
    const batchOf = (some: readonly Example[]) => objective.collate(some, { rows: some.length, seq, padId: 0 });
    if (objective.notAccumulated === undefined) {
      const parts = [examples.slice(0, 1), examples.slice(1, 4), examples.slice(4)].map(batchOf);
      assertSame(totals(subject, params, [batchOf(examples)]), totals(subject, params, parts), examples.length * seq);
    } else await refused(subject, { accumulate: 2 }, objective.notAccumulated);
  });

  law("examples that share a row are as each alone, or it refuses to pack them", async (subject) => {
    const { tuned, examples } = subject;
    if (objective.pack) {
      assertEquals(objective.notPacked, undefined);
      const packs = [examples.slice(0, 3), examples.slice(3)];
      const sizes = packs.map((pack) => pack.reduce((sum, example) => sum + objective.lengthOf(example), 0));
      const [params, seq] = [drawn(tuned), Math.max(...sizes) + 1];
      const packed = objective.pack(packs, { rows: 3, seq, padId: 3 });
      const apart = objective.collate(examples, { rows: examples.length, seq: lengthOf(subject), padId: 0 });
      assertEquals(packed.tokens, apart.tokens);
      for (const withPlaces of [false, true]) {
        assertSame(totals(subject, params, [apart]), totals(subject, params, [packed], withPlaces), 3 * seq);
      }
    } else {
      assert(objective.notPacked, "it says not why");
      await refused(subject, { pack: true }, objective.notPacked);
    }
  });

  law("where nothing is to be learned there is no loss and no gradient, and no step", (subject) => {
    const { tuned, examples } = subject;
    const size = { rows: examples.length, seq: lengthOf(subject), padId: 0 };
    const avals = (batch: Batch) => mapColumns(batch.columns, ({ shape, dtype }) => ({ shape, dtype }));
    for (
      const [empty, full] of [
        [objective.collate([], size), objective.collate(examples, size)],
        ...(objective.pack ? [[objective.pack([], size), objective.pack(examples.map((e) => [e]), size)]] : []),
      ]
    ) {
      // Memory is planned on a batch of nothing.
      assertEquals(avals(empty), avals(full));
      const { sums, grads, count } = totals(subject, drawn(tuned), [empty]);
      assertEquals([sums.get("loss"), count, empty.tokens], [0, 0, 0]);
      assert([...sums.values(), ...grads].every((x) => x === 0));
    }
    const options = { objective, optimiser: adamw(), clip: 1, normalise: "tokens", accumulate: 1 } as const;
    const step = compileStep(tuned, options);
    const batches = [objective.collate([], size)];
    const key = oracleTensor([2], [0, 0], "u32");
    assertThrows(
      () => step({} as never, { step: 0, lr: 1, batches, key }),
      Error,
      "no token of step 1 is to be learned",
    );
  });

  Deno.test(`${name}: runs are repeated to the bit, resumed anywhere, measured and shown, in the memory that was said`, async () => {
    using device = await openCpu({ threads: 1 });
    await withSubject(objective, device, async ({ tuned, examples, context }) => {
      const base = { objective, data: examples, steps: 5, batch: 2, lr: 1e-2, context } satisfies TrainOptions;
      const ways: Partial<TrainOptions>[] = [
        { buckets: 2 },
        ...(objective.pack ? [{ pack: true, seq: context }] : []),
        ...(objective.notAccumulated === undefined ? [{ accumulate: 2, buckets: 2 }] : []),
      ];
      for (const way of ways) {
        const snapshots: Snapshot[] = [];
        const checkpoints = {
          due: () => true,
          save: (snapshot: Snapshot) => Promise.resolve(void snapshots.push(snapshot)),
        };
        const whole = await train(tuned, { ...base, ...way, checkpoints });
        assertEquals([whole.losses.length, whole.losses.every(Number.isFinite)], [5, true]);
        assert(new Set(whole.losses).size > 1);
        for (const resume of snapshots.slice(0, -1)) {
          const rest = await train(tuned, { ...base, ...way, resume });
          assertEquals(rest.losses, whole.losses.slice(resume.step));
          assertEquals(await read(rest.trainable), await read(whole.trainable));
        }
      }
      const found = await Promise.all(
        [1, 2, 8].map((batch) => evaluator(tuned, examples, { objective, batch })(tuned.trainable)),
      );
      for (const evaluation of found) {
        assertEquals(Object.keys(evaluation), ["loss", "count", ...objective.measures.map(({ name }) => name)]);
        assertEquals(evaluation.count, found[0].count);
        assert(Object.values(evaluation).every(Number.isFinite));
        // In f32, the same sums in another order.
        // What compares the rows of a batch depends on how many these are.
        const bySum = objective.notAccumulated === undefined;
        assert(!bySum || Math.abs(evaluation.loss - found[0].loss) <= evaluation.count * 64 * 2 ** -23 * found[0].loss);
      }
      const kept = new Map<string, Readonly<Record<string, Float32Array>>>();
      const reference = {
        read: (key: string) => kept.get(key),
        write: (key: string, columns: Readonly<Record<string, Float32Array>>) => void kept.set(key, columns),
      };
      for (const again of [false, true]) {
        const evaluate = evaluator(tuned, examples, { objective, batch: 8, reference });
        assertEquals([again, await evaluate(tuned.trainable)], [again, found[2]]);
        assertEquals(kept.size, objective.reference ? 1 : 0);
      }
      const event = { event: "evaluation", step: 5, best: true, seconds: 1, ...found[0] };
      const run = {
        started: "2026-01-01T00:00:00Z",
        steps: 5,
        from: 0,
        environment: {},
        configuration: {},
        adapter: [],
      };
      const lines = [{ event: "run", ...run }, event].map((line) => `${JSON.stringify(line)}\n`).join("");
      const page = reportHtml(parseMetrics(lines, "metrics.jsonl"));
      for (const { name } of objective.measures) assert(page.includes(`<th class="number">${name}</th>`), name);
      const [{ name: first }] = objective.measures;
      const broken = lines.replace(JSON.stringify(event), JSON.stringify({ ...event, [first]: "x" }));
      assertThrows(() => parseMetrics(broken, "metrics.jsonl"), Error, `as the "${objective.measures[0].name}"`);
    });
    using fresh = await openCpu({ threads: 1 });
    await withSubject(objective, fresh, async ({ tuned, examples, context }) => {
      const [optimiser, batch, seq] = [adamw(), 4, context];
      const plan = {
        objective,
        device: fresh,
        optimiser,
        clip: 1,
        batch,
        accumulate: 1,
        lengths: [seq],
        keepBest: false,
      };
      const { total } = estimateMemory(tuned, plan);
      await train(tuned, { objective, data: examples, steps: 2, batch, lr: 1e-2, seq, context, optimiser });
      // Where few places have a label it takes less; how near it comes else is held by the estimate's own test.
      assert(fresh.memory.peak <= 1.15 * total, `${total} said, ${fresh.memory.peak} used`);
    });
  });
}

/** That a run of these options is refused, with this sentence. */
async function refused(
  { objective, tuned, examples, context }: Subject,
  options: Partial<TrainOptions>,
  sentence: string,
) {
  const plan = { objective, data: examples, steps: 1, batch: 2, lr: 1e-2, context, ...options };
  await assertRejects(() => train(tuned, plan), Error, sentence);
}
