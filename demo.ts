/**
 * What train.ts does, with a real chat model: SmolLM2-135M-Instruct learns to answer letters with JSON. The adapter is merged,
 * the merged model saved and loaded again, and that one is measured. `deno task model:smollm2` brings the model first.
 */
import { parseArgs } from "node:util";
import * as letters from "./examples/letters/mod.ts";
import { type DeviceChoice, lora, openDevice } from "./mod.ts";
import { llama } from "./models/mod.ts";
import * as t from "./train/mod.ts";

await t.reportErrors(async ({ print, warn }) => {
  const { values: flags } = parseArgs({
    options: {
      model: { type: "string", default: ".cache/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" },
      steps: { type: "string" },
      seed: { type: "string", default: "1" },
      device: { type: "string", default: "auto" },
      out: { type: "string", default: "out/smollm2" },
      json: { type: "boolean", default: false },
      threads: { type: "string" },
      debug: { type: "boolean", default: false },
    },
  });
  const say = flags.json ? warn : print;
  const seed = t.wholeNumber("--seed", flags.seed);
  const steps = t.wholeNumber("--steps", flags.steps);
  const [adapterFolder, mergedFolder] = [`${flags.out}/adapter`, `${flags.out}/merged`];

  using device = await openDevice(flags.device as DeviceChoice, { threads: t.wholeNumber("--threads", flags.threads) });
  say(`device    ${device.description}: ${device.reason}`);
  using model = await llama.load(flags.model, { device });
  say(`model     ${flags.model}: ${t.describeModel(model)}`);
  const tokenizer = model.tokenizer();
  const task = letters.realLettersTask(tokenizer, seed);
  const plan = { ...task.settings, seed, steps: steps ?? task.settings.steps };
  say(`data      ${task.description}`);

  const tuned = lora(model, { r: 8, alpha: 16, targets: ["q_proj", "v_proj"], seed });
  for (const line of t.describeMatches(tuned.matched)) say(`adapting  ${line}`);
  say(t.describeTrainable(tuned.trainable, model.params));
  t.checkWritable(adapterFolder);

  const prompts = task.test.map((row) => row.prompt);
  const before = await t.answerer(model, tokenizer, task)(model.params, prompts);
  const scoreBefore = letters.scoreAnswers(before, task.test);
  say(`before    ${letters.describeScore(scoreBefore)}`);

  using interrupt = t.onInterrupt();
  const bar = t.progressBar(plan.steps);
  const run = await t.train(tuned, { ...plan, data: task.examples, signal: interrupt.signal, onStep: bar.update });
  bar.end();
  await t.saveAdapter(adapterFolder, tuned, { trainable: run.trainable, baseModel: flags.model });
  t.reportEnd(run.end, plan.steps, adapterFolder);

  const merged = t.mergeParams(tuned, run.trainable);
  say(`merging   ${t.describeMergeChecks(await t.checkMerge(tuned, run.trainable, merged))}`);
  await t.saveModel(mergedFolder, model, { params: merged });
  using reloaded = await llama.load(mergedFolder, { device });
  const after = await t.answerer(reloaded, reloaded.tokenizer(), task)(reloaded.params, prompts);
  const scoreAfter = letters.scoreAnswers(after, task.test);
  say(`after     ${letters.describeScore(scoreAfter)}, merged, saved and loaded again`);
  say(letters.sideBySide(task.test.slice(0, 3), before, after));
  say(`adapter   ${adapterFolder}: ${t.describeSizes(adapterFolder, model.params)}`);
  say(
    `try it    deno task generate --adapter ${adapterFolder} --system '${letters.letterInstruction}' "${letters.ownLetter}"`,
  );
  if (flags.json) print(JSON.stringify({ before: scoreBefore, after: scoreAfter, losses: run.losses }));
});
