/**
 * Fine-tunes a language model with LoRA, measures what it learned, and writes an adapter that PEFT reads. With no arguments
 * the small model of assets/letters-base learns to answer a letter with JSON; `--model X --data rows.jsonl` takes your own.
 */
import { parseArgs } from "node:util";
import * as letters from "./examples/letters/mod.ts";
import { type DeviceChoice, lora, openDevice } from "./mod.ts";
import { loadModel, type WeightDType } from "./models/mod.ts";
import * as t from "./train/mod.ts";

await t.reportErrors(async ({ print, warn }) => {
  const { values: flags } = parseArgs({
    options: {
      model: { type: "string", default: "assets/letters-base" }, // a folder as Hugging Face has them, or a .gguf file
      data: { type: "string" }, // .jsonl: {"text"}, {"prompt", "completion"} or {"messages"} a line; .txt: plain text
      steps: { type: "string" },
      device: { type: "string", default: "auto" }, // or cpu, webgpu
      out: { type: "string", default: "out/adapter" },
      json: { type: "boolean", default: false }, // the results as one JSON object on standard output
      dtype: { type: "string" }, // f32, f16, bf16 or packed: how the base is held
      threads: { type: "string" },
      debug: { type: "boolean", default: false }, // errors with their stacks
    },
  });
  const say = flags.json ? warn : print;
  const threads = t.wholeNumber("--threads", flags.threads);
  const steps = t.wholeNumber("--steps", flags.steps);

  using device = await openDevice(flags.device as DeviceChoice, { threads });
  say(`device    ${device.description}: ${device.reason}`);
  using model = await loadModel(flags.model, { device, dtype: flags.dtype as WeightDType });
  say(`model     ${flags.model}: ${t.describeModel(model)}`);
  for (const note of model.notes) warn(`note: ${flags.model}: ${note}`);
  const tokenizer = model.tokenizer();
  const task = flags.data ? letters.fileTask(flags.data, tokenizer, model.sizes) : letters.lettersTask(tokenizer);
  const plan = { ...task.settings, steps: steps ?? task.settings.steps };
  say(`data      ${task.description}`);

  const tuned = lora(model, { r: 8, alpha: 16, targets: "all-linear" });
  for (const line of t.describeMatches(tuned.matched)) say(`adapting  ${line}`);
  say(t.describeTrainable(tuned.trainable, model.params));
  t.checkWritable(flags.out);

  const answer = t.answerer(model, tokenizer, task);
  const prompts = task.test.map((row) => row.prompt);
  const before = await answer(model.params, prompts);
  const scoreBefore = letters.scoreAnswers(before, task.test);
  if (prompts.length > 0) say(`before    ${letters.describeScore(scoreBefore)}`);

  using interrupt = t.onInterrupt();
  const bar = t.progressBar(plan.steps);
  const memory = t.memoryWatch(device);
  const run = await t.train(tuned, {
    ...plan,
    data: task.examples,
    context: model.sizes.contextLength,
    signal: interrupt.signal,
    onStep: (line) => {
      bar.update(line);
      memory.note(line.step);
    },
  });
  bar.end();
  await t.saveAdapter(flags.out, tuned, { trainable: run.trainable, baseModel: flags.model });
  t.reportEnd(run.end, plan.steps, flags.out);

  const merged = t.mergeParams(tuned, run.trainable);
  const after = await answer(merged, prompts);
  const scoreAfter = letters.scoreAnswers(after, task.test);
  if (prompts.length > 0) {
    say(`after     ${letters.describeScore(scoreAfter)}\n${letters.sideBySide(task.test.slice(0, 3), before, after)}`);
  }
  say(`loss      ${run.losses[0].toFixed(4)} at first, ${run.losses.at(-1)!.toFixed(4)} at the end`);
  say(`adapter   ${flags.out}: ${t.describeSizes(flags.out, model.params)}`);
  say(`memory    ${memory.describe()}`);
  say(`merging   ${t.describeMergeChecks(await t.checkMerge(tuned, run.trainable, merged))}`);
  say(`try it    deno task generate --adapter ${flags.out} "${letters.ownLetter}"`);
  if (flags.json) print(JSON.stringify({ before: scoreBefore, after: scoreAfter, losses: run.losses }));
});
