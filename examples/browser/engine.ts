/** The engine: opens a device and the small model, trains, answers. Runs in a worker, with threads of its own. */
import { zipSync } from "fflate";
import { lora, openDevice, type OpenedDevice } from "../../mod.ts";
import { type LoadedModel, loadModel } from "../../models/mod.ts";
import { encodeSafetensors } from "../../models/load/safetensors/safetensors.ts";
import { adapterContents } from "../../formats/adapter.ts";
import type { AdapterContents } from "../../formats/peft/files.ts";
import { answerer } from "../../train/answers.ts";
import type { Example } from "../../data/examples.ts";
import { letterPrompt } from "../letters/letters.ts";
import { scoreAnswers } from "../letters/score.ts";
import { train } from "../../train/loop.ts";
import { mergeParams } from "../../formats/merge.ts";
import { sizeOfTree } from "../../report/describe.ts";
import { lettersTask } from "../letters/tasks.ts";
import type { Order, PairRow, Report, WorkerScope } from "./messages.ts";
import { encodeRow } from "../../train/objectives/mod.ts";

/** Letters of the test that are scored here: enough to see the difference, few enough to wait for. */
const scored = 25;

const scope = self as unknown as WorkerScope<Order, Report>;
const report = (message: Report) => scope.postMessage(message);
/** The library's errors name flags of its command line; a page has a menu. */
const inPageTerms = (message: string) => message.replace(/use --device cpu/g, "choose the processor");

let session: Session | undefined;
let stopping = new AbortController();

/** One model on one device, and what it has learned. */
class Session {
  readonly tokenizer;
  readonly letters;
  readonly answer;
  merged: unknown;
  /** How a text becomes a prompt: a letter gets the mark after it that letters were learned with. */
  promptOf = letterPrompt;
  scoredBefore = false;

  constructor(readonly device: OpenedDevice, readonly model: LoadedModel) {
    this.tokenizer = model.tokenizer();
    this.letters = lettersTask(this.tokenizer);
    this.answer = answerer(model, this.tokenizer, { maxNewTokens: this.letters.maxNewTokens });
  }

  async score(when: "before" | "after", params: unknown): Promise<void> {
    report({ kind: "doing", what: `answering ${scored} letters it has never seen` });
    const rows = this.letters.test.slice(0, scored);
    const answers = await this.answer(params, rows.map((row) => row.prompt));
    report({ kind: "score", when, score: scoreAnswers(answers, rows) });
  }

  async train(steps: number, rows?: readonly PairRow[]): Promise<void> {
    const { model, letters } = this;
    if (!rows && !this.scoredBefore) {
      await this.score("before", model.params);
      this.scoredBefore = true;
    }
    report({ kind: "doing", what: "compiling the training step" });
    const tuned = lora(model, { r: 8, alpha: 16, targets: "all-linear" });
    const data = rows ? this.encode(rows) : letters.examples;
    const settings = rows ? { batch: Math.min(8, rows.length), lr: 5e-3, warmup: 5 } : letters.settings;
    const began = performance.now();
    const run = await train(tuned, {
      ...settings,
      data,
      steps,
      context: model.sizes.contextLength,
      signal: stopping.signal,
      onStep: ({ step, loss }) => report({ kind: "step", step, steps, loss }),
    });
    const seconds = (performance.now() - began) / 1000;
    this.merged = mergeParams(tuned, run.trainable);
    this.promptOf = rows ? (text) => text : letterPrompt;
    if (!rows) await this.score("after", this.merged);
    const trainable = tuned.matched.reduce((sum, match) => sum + match.trainable, 0);
    const contents = await adapterContents(tuned, { trainable: run.trainable, baseModel: "letters-base" });
    report({ kind: "trained", adapter: await zipped(contents), seconds, trainable });
  }

  /** Pasted rows as tokens; one that the model can't read at once is named by how it begins. */
  encode(rows: readonly PairRow[]): Example[] {
    const { contextLength } = this.model.sizes;
    return rows.map((row) => {
      const example = encodeRow(row, this.tokenizer);
      const { length } = example.ids;
      if (length <= contextLength) return example;
      const start = row.prompt.slice(0, 30);
      throw new Error(`The row "${start} …" has ${length} tokens and the model reads ${contextLength}: shorten it.`);
    });
  }

  async ask(text: string): Promise<void> {
    const prompt = this.tokenizer.encode(this.promptOf(text), { addSpecialTokens: "before" });
    const [base] = await this.answer(this.model.params, [prompt]);
    const tuned = this.merged === undefined ? null : (await this.answer(this.merged, [prompt]))[0];
    report({ kind: "answer", base, tuned });
  }
}

/** The folder that PEFT reads, as a .zip. */
async function zipped({ config, tensors, metadata }: AdapterContents): Promise<Uint8Array> {
  const weights = await new Response(new Blob([...encodeSafetensors(tensors, metadata)] as BlobPart[])).arrayBuffer();
  return zipSync({
    "adapter_config.json": new TextEncoder().encode(JSON.stringify(config, null, 2)),
    "adapter_model.safetensors": new Uint8Array(weights),
  });
}

async function handleOrder(order: Order): Promise<void> {
  switch (order.kind) {
    case "open": {
      const device = await openDevice(order.device);
      report({ kind: "doing", what: "fetching the model" });
      const model = await loadModel(order.model, { device });
      session = new Session(device, model);
      const { description, reason } = device;
      return report({ kind: "opened", device: description, reason, parameters: sizeOfTree(model.params).count });
    }
    case "train":
      stopping = new AbortController();
      return await session!.train(order.steps, order.rows);
    case "ask":
      return await session!.ask(order.text);
    case "stop":
      return stopping.abort();
  }
}

// Orders are obeyed one after another, but for a stop, which can't wait.
let queue = Promise.resolve();
scope.onmessage = ({ data }) => {
  const work = () =>
    handleOrder(data).catch((error) => report({ kind: "failed", message: inPageTerms((error as Error).message) }));
  if (data.kind === "stop") void work();
  else queue = queue.then(work);
};
