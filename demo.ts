/**
 * What train.ts does, with a real chat model: SmolLM2-135M-Instruct learns to answer letters with JSON. The adapter is merged,
 * the merged model saved and loaded again, and that one is measured. `deno task model:smollm2` brings the model first.
 */
import { parseArgs } from "node:util";
import { type DeviceChoice, lora, openDevice } from "./mod.ts";
import { llama } from "./models/mod.ts";
import * as t from "./train/mod.ts";

await t.reportErrors(async () => {
  const { values: flags } = parseArgs({
    options: {
      model: { type: "string", default: ".cache/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" },
      steps: { type: "string" },
      seed: { type: "string", default: "1" },
      device: { type: "string", default: "auto" },
      out: { type: "string", default: "out/smollm2" },
      threads: { type: "string" },
      debug: { type: "boolean", default: false },
    },
  });
  const seed = t.wholeNumber("--seed", flags.seed);
  const steps = t.wholeNumber("--steps", flags.steps);
  const [adapterFolder, mergedFolder] = [`${flags.out}/adapter`, `${flags.out}/merged`];

  using device = await openDevice(flags.device as DeviceChoice, { threads: t.wholeNumber("--threads", flags.threads) });
  console.log(`device    ${device.description}: ${device.reason}`);
  using model = await llama.load(flags.model, { device });
  console.log(`model     ${flags.model}: ${t.describeModel(model)}`);
  const tokenizer = model.tokenizer();
  const task = t.realLettersTask(tokenizer, seed);
  const plan = { ...task.settings, seed, steps: steps ?? task.settings.steps };
  console.log(`data      ${task.description}`);

  const tuned = lora(model, { r: 8, alpha: 16, targets: ["q_proj", "v_proj"], seed });
  for (const line of t.describeMatches(tuned.matched)) console.log(`adapting  ${line}`);
  console.log(t.describeTrainable(tuned.matched, model.params));
  t.checkWritable(adapterFolder);

  const prompts = task.test.map((row) => row.prompt);
  const before = await t.answerer(model, tokenizer, task)(model.params, prompts);
  console.log(`before    ${t.describeScore(t.scoreAnswers(before, task.test))}`);

  using interrupt = t.onInterrupt();
  const bar = t.progressBar(plan.steps);
  const run = await t.train(tuned, { ...plan, data: task.examples, signal: interrupt.signal, onStep: bar.update });
  bar.end();
  await t.saveAdapter(adapterFolder, model, tuned, run.trainable, { baseModel: flags.model });
  t.reportEnd(run.end, plan.steps, adapterFolder);

  const merged = t.mergeParams(tuned, run.trainable);
  console.log(`merging   ${t.describeMergeChecks(await t.checkMerge(tuned, run.trainable, merged))}`);
  await t.saveModel(mergedFolder, model, merged);
  using reloaded = await llama.load(mergedFolder, { device });
  const after = await t.answerer(reloaded, reloaded.tokenizer(), task)(reloaded.params, prompts);
  console.log(`after     ${t.describeScore(t.scoreAnswers(after, task.test))}, merged, saved and loaded again`);
  console.log(t.sideBySide(task.test.slice(0, 3), before, after));
  console.log(`adapter   ${adapterFolder}: ${t.describeSizes(adapterFolder, model.params)}`);
  console.log(
    `try it    deno task generate --adapter ${adapterFolder} --system "${t.letterInstruction}" "${t.ownLetter}"`,
  );
});
