import { assert, assertEquals, assertRejects } from "@std/assert";
import { OptionError } from "../../core/errors.ts";
import { newInput } from "../../core/ir/graph.ts";
import { classificationLoss } from "../../core/nn/loss.ts";
import { mul, sub } from "../../core/ops/elementwise.ts";
import { type HostTensor, type Tensor, upload } from "../../core/tensor.ts";
import { trace } from "../../core/trace.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { flatten, mapTree } from "../../core/tree.ts";
import { build } from "../../kernels/runtime/compile.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { read } from "../../kernels/runtime/read.ts";
import { lora } from "../../lora/lora.ts";
import { oracleRuntime as runtime } from "../../tests/runtimes.ts";
import { checkpointBlocks } from "./checkpoint_blocks.ts";
import type { BertClassifierParams } from "./bert.ts";
import { loadClassifier } from "../mod.ts";
import { outlineEncoder } from "../load/load_model.ts";

const cases = `${import.meta.dirname}/../../tests/goldens/cases`;
const encoder = `${cases}/bert-base/model`, classifier = `${cases}/bert-seqcls/model`;
const device = runtime.home;
const ints = (shape: number[], data: number[]) => upload(device, { shape, dtype: "i32", data: Int32Array.from(data) });

Deno.test("an encoder becomes a classifier with a fresh head, drawn from the seed", async () => {
  const labels = ["no", "yes"];
  const head = async (seed?: number): Promise<HostTensor> => {
    using model = await loadClassifier(encoder, { device, labels, seed });
    assertEquals(model.labels, labels);
    assertEquals(model.fresh, ["classifier"]);
    assertEquals(model.config.raw.id2label, { "0": "no", "1": "yes" });
    assertEquals(model.config.raw.architectures, ["BertForSequenceClassification"]);
    return await runtime.read((model.params as BertClassifierParams).classifier.weight);
  };
  const drawn = await head();
  assertEquals(drawn.shape, [2, 48]);
  assertEquals(await head(0), drawn);
  assert((await head(1)).data[0] !== drawn.data[0]);
});

Deno.test("the head of the file is kept unless a fresh one is asked for", async () => {
  using own = await loadClassifier(classifier, { device });
  assertEquals([own.labels.length, own.fresh.length], [3, 0]);
  using named = await loadClassifier(classifier, { device, labels: ["a", "b", "c"] });
  assertEquals([named.labels, named.fresh], [["a", "b", "c"], []]);
  using fresh = await loadClassifier(classifier, { device, labels: ["a", "b"], head: "fresh" });
  assertEquals([fresh.labels, fresh.fresh], [["a", "b"], ["classifier"]]);
});

Deno.test("rows have the labels of the file's own head, and of a new one their own", async () => {
  using own = await outlineEncoder("SEQ_CLS", classifier, { device, labels: ["b", "a"] });
  assertEquals([own.outline.labels, own.outline.fresh], [["LABEL_0", "LABEL_1", "LABEL_2"], []]);
  using fresh = await outlineEncoder("SEQ_CLS", encoder, { device, labels: ["b", "a"] });
  assertEquals([fresh.outline.labels, fresh.outline.fresh], [["b", "a"], ["classifier"]]);
});

Deno.test("labels that are missing, repeated or of another head are refused", async () => {
  const refused = (path: string, labels: string[] | undefined, sentence: string) =>
    assertRejects(() => loadClassifier(path, { device, labels }), OptionError, sentence);
  await refused(encoder, undefined, "has no classifying head: give the names of the labels");
  await refused(encoder, ["yes"], 'labels are at least two different names, not ["yes"]');
  await refused(encoder, ["yes", "yes"], "at least two different names");
  await refused(classifier, ["a", "b"], "has the labels LABEL_0, LABEL_1, LABEL_2, and a, b are asked for");
});

Deno.test("by blocks the slopes are the same bits, and less is kept for them", async () => {
  using device = await openCpu({ threads: 2, blas: false });
  using model = await loadClassifier(classifier, { device });
  const ids = { shape: [4, 40], dtype: "i32", data: Int32Array.from({ length: 160 }, (_, i) => 5 + i % 80) } as const;
  const inputs = { inputIds: upload(device, ids) };
  const labels = upload(device, { shape: [4], dtype: "i32", data: Int32Array.of(0, 1, 2, 0) });
  const found = await Promise.all([model, checkpointBlocks(model)].map(async (m) => {
    const tuned = lora(m, { r: 2, alpha: 4, targets: ["query", "value"] });
    const loss = (t: typeof tuned.trainable, f: typeof tuned.frozen, i: typeof inputs, l: Tensor) =>
      classificationLoss(tuned.apply(t, f, i), l);
    const args = [tuned.trainable, tuned.frozen, inputs, labels] as const;
    const placeholders = mapTree(args, (leaf: Tensor) => newInput(leaf.aval)) as any;
    const { program } = build(trace(valueAndGrad(loss), placeholders).graph);
    return { values: await read(jit(valueAndGrad(loss))(...args)), arena: program.arenaBytes };
  }));
  assertEquals(found[0].values, found[1].values);
  assert(found[1].arena < found[0].arena, `${found[1].arena} of ${found[0].arena} bytes`);
});

Deno.test("a fresh head is trained whole beside an adapter", async () => {
  using model = await loadClassifier(encoder, { device, labels: ["low", "high"] });
  const tuned = lora(model, { r: 2, alpha: 4, targets: ["query", "value"], modulesToSave: [...model.fresh] });
  const inputs = { inputIds: ints([4, 3], [5, 9, 7, 99, 90, 91, 6, 8, 9, 95, 97, 96]) };
  const labels = ints([4], [0, 1, 0, 1]);
  const step = runtime.jit((trained) => {
    const loss = (trained: typeof tuned.trainable) =>
      classificationLoss(tuned.apply(trained, tuned.frozen, inputs), labels);
    const [value, slopes] = valueAndGrad(loss)(trained);
    const { leaves, unflatten } = flatten<Tensor>(trained);
    const down = flatten<Tensor>(slopes).leaves;
    return { value, trained: unflatten(leaves.map((w, i) => sub(w, mul(0.2, down[i])))) };
  });
  let trained: unknown = tuned.trainable;
  const losses: number[] = [];
  for (let i = 0; i < 6; i++) {
    const out = step(trained);
    trained = out.trained;
    losses.push(await runtime.read(out.value));
  }
  assert(losses.every((loss, i) => i === 0 || loss < losses[i - 1]), `the loss does not fall: ${losses}`);
  const { classifier, ...adapters } = await runtime.read(trained);
  assertEquals(classifier.weight.shape, [2, 48]);
  const moved = Object.values<any>({ ...adapters, head: { B: classifier.bias } });
  assert(moved.every(({ B }) => B.data.some((x: number) => x !== 0)), "the head and every adapter move");
});
