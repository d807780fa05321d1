/**
 * Pretrains the small base model of `assets/letters-base` with this library: `deno task pretrain`. From its seed alone it
 * draws letters to a shop without end and learns to read them (`name: …`, `city: …`, line by line). A run that was stopped
 * goes on from its last checkpoint with `--resume`, to the same weights as if it had not been.
 */
import { parseArgs } from "node:util";
import { OptionError } from "../core/errors.ts";
import { type HostTensor, type Tensor, upload } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { causalLoss } from "../core/nn/loss.ts";
import type { Device } from "../kernels/device/device.ts";
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import { jit } from "../kernels/runtime/jit.ts";
import { read } from "../kernels/runtime/read.ts";
import { type Generate, generator } from "../models/generate/generate.ts";
import { gpt2, type Gpt2Params } from "../models/families/gpt2.ts";
import { openSafetensors, writeSafetensors } from "../models/load/safetensors/safetensors.ts";
import { makeTokenizer } from "../models/load/tokenizer.ts";
import { byteTokenizerConfig, byteTokenizerFile, END_OF_TEXT } from "../data/byte_tokenizer.ts";
import type { Batch } from "../data/examples.ts";
import { letterRow } from "../examples/letters/letters.ts";
import { adamw } from "../train/optimiser.ts";
import { progressBar } from "../train/watch/progress.ts";
import { Interrupted, onInterrupt, reportErrors } from "../report/errors.ts";
import { rngFrom, shuffledIndices } from "../data/rng.ts";
import { makeSchedule } from "../train/options/schedule.ts";
import { makeStep } from "../train/step.ts";
import { initialWeights, letterModel, toDevice, type Weights, writeLetterModel } from "./letters_base.ts";
import { encodeRow, makeBatch } from "../train/objectives/mod.ts";

const { values: flags } = parseArgs({
  options: {
    out: { type: "string", default: "out/letters-base" },
    steps: { type: "string", default: "2000" },
    batch: { type: "string", default: "16" },
    lr: { type: "string", default: "1.5e-3" },
    seed: { type: "string", default: "1" },
    threads: { type: "string" },
    resume: { type: "boolean", default: false },
    debug: { type: "boolean", default: false },
  },
});
const [steps, batchSize, lr, seed] = [flags.steps, flags.batch, flags.lr, flags.seed].map(Number);
/** Batches whose letters were drawn together and sorted by length, so that few tokens are padding. */
const group = 8;

const tokenizer = makeTokenizer({ path: "", tokenizer: byteTokenizerFile(), config: byteTokenizerConfig() });

await reportErrors(async () => {
  using device = await openCpu({ threads: flags.threads === undefined ? undefined : Number(flags.threads) });
  using interrupt = onInterrupt();
  console.log(`device   ${device.description}`);
  const optimiser = adamw({ betas: [0.9, 0.98], weightDecay: 0.05 });
  const checkpoint = `${flags.out}/checkpoint.safetensors`;
  const params = toDevice(letterModel, initialWeights(letterModel, seed), device);
  let state = { params, optimiser: jit(optimiser.init)(params) };
  let first = 0;
  if (flags.resume) ({ state, step: first } = loadState(checkpoint, state, device));
  const model = gpt2.over(letterModel, params);
  const { apply } = model;
  const generate = generator(model);
  const step = jit(
    makeStep(
      (params: Gpt2Params, inputIds, labels) => causalLoss(apply(params, { inputIds }), labels),
      { optimiser, clip: 1 },
    ),
    { donate: [0], warn: () => {} }, // one program for each padded length
  );
  const schedule = makeSchedule({ schedule: "cosine", lr, steps, warmup: 150 });
  const bar = progressBar(steps);
  let tokens = 0;
  for (let s = first; s < steps; s++) {
    const batch = letterBatch(s, batchSize, seed);
    using inputIds = upload(device, batch.columns.inputIds);
    using labels = upload(device, batch.columns.labels);
    const result = step(state, schedule(s), inputIds, labels);
    state = result.state;
    const { loss, gradNorm } = await read(result.report, { release: true });
    tokens += batch.shape[0] * batch.shape[1];
    if (!Number.isFinite(loss) || !Number.isFinite(gradNorm)) {
      throw new OptionError(`the loss of step ${s + 1} is ${loss}, its gradients' norm ${gradNorm}: lower --lr`);
    }
    bar.update({ step: s + 1, loss, tokens });
    const done = s + 1;
    if (done % 100 === 0 || done === steps || interrupt.signal.aborted) await saveState(checkpoint, state, done);
    if (done % 250 === 0 || done === steps) {
      bar.end();
      console.log(`step ${done}: ${await readUnseen(state.params, done === steps ? 200 : 50, generate)}`);
    }
    await new Promise((resolve) => setTimeout(resolve)); // so that Ctrl-C is heard
    if (interrupt.signal.aborted) throw new Interrupted(`Saved step ${done} in ${checkpoint}: continue with --resume`);
  }
  bar.end();
  writeLetterModel(flags.out, letterModel, await hostLeaves(state.params));
  console.log(`Wrote ${flags.out}`);
});

/**
 * The letters of a step, a function of the seed and the step alone. Three of four batches learn the answer only, the fourth
 * the letter too.
 */
function letterBatch(step: number, size: number, seed: number): Batch {
  const rng = rngFrom(seed, Math.floor(step / group));
  const rows = Array.from({ length: group * size }, () => letterRow(rng, "train"));
  rows.sort((a, b) => a.prompt.length + a.reading.length - b.prompt.length - b.reading.length);
  const at = shuffledIndices(group, rng)[step % group] * size;
  const examples = rows.slice(at, at + size).map(({ prompt, reading }) =>
    encodeRow(step % 4 === 3 ? { text: prompt + reading } : { prompt, completion: reading }, tokenizer)
  );
  return makeBatch(examples, { padId: END_OF_TEXT.id, bucket: 16 });
}

/** How many unseen letters are read without a mistake. */
async function readUnseen(params: Gpt2Params, count: number, generate: Generate<Gpt2Params>): Promise<string> {
  const rng = rngFrom(0x7e57);
  const rows = Array.from({ length: count }, () => letterRow(rng, "test"));
  const prompts = rows.map(({ prompt }) => tokenizer.encode(prompt));
  const answers = await generate(params, prompts, { maxNewTokens: 110, stopIds: [END_OF_TEXT.id] });
  const texts = answers.map(({ ids }) => tokenizer.decode(ids));
  const right = texts.filter((text, i) => text === rows[i].reading).length;
  const wrong = texts.findIndex((text, i) => text !== rows[i].reading);
  const example = wrong < 0 ? "" : `; read ${JSON.stringify(texts[wrong])} in ${JSON.stringify(rows[wrong].prompt)}`;
  return `read ${right} of ${count} unseen letters without a mistake${example}`;
}

/** The state's leaves by path, on the host. */
async function hostLeaves(state: unknown): Promise<Weights> {
  const { leaves, paths } = flatten<Tensor>(state);
  const contents: (HostTensor | number)[] = await read(leaves);
  return new Map(contents.map((x, i) => [
    paths[i],
    typeof x === "number" ? { shape: [], dtype: "f32", data: Float32Array.of(x) } : x,
  ]));
}

async function saveState(path: string, state: unknown, step: number): Promise<void> {
  writeSafetensors(path, await hostLeaves(state), { format: "pt", step: String(step) });
}

/** The state in a checkpoint, in the tree of `like`, whose tensors end here. */
function loadState<S>(path: string, like: S, device: Device): { state: S; step: number } {
  using source = openSafetensors(path);
  const { leaves, paths, unflatten } = flatten<Tensor>(like);
  leaves.forEach((leaf) => leaf.dispose());
  return {
    state: unflatten(paths.map((name) => upload(device, source.read(name)))) as S,
    step: Number(source.metadata.step),
  };
}
