/**
 * Fine-tunes a language model with LoRA, measures what it learned, and writes an adapter that PEFT reads. With no arguments
 * the small model of assets/letters-base learns to answer a letter with JSON; `--model X --data rows.jsonl` takes your own.
 */
import { parseArgs } from "node:util";
import * as letters from "./examples/letters/mod.ts";
import { type DeviceChoice, lora, openDevice } from "./mod.ts";
import { loadModel, type Tokenizer, type WeightDType } from "./models/mod.ts";
import * as t from "./train/mod.ts";

/** What is learned where no flag says otherwise. */
export interface Lesson {
  readonly model: string;
  readonly out: string;
  readonly seed?: string;
  readonly targets: string | string[];
  task(tokenizer: Tokenizer, seed?: number): letters.Task;
  /** The system message that the adapter is to be tried with. */
  readonly system?: string;
  /** Whether the merged model is saved beside the adapter, loaded again, and measured as loaded. */
  readonly saveMerged?: boolean;
}

/** Teaches a model and measures it before and after, as the flags of this call ask. */
export async function teach(lesson: Lesson): Promise<void> {
  await t.reportErrors(async ({ print, warn }) => {
    const { values: flags } = parseArgs({
      options: {
        model: { type: "string", default: lesson.model }, // a folder as Hugging Face has them, or a .gguf file
        data: { type: "string" }, // .jsonl: {"text"}, {"prompt", "completion"} or {"messages"} a line; .txt: plain text
        steps: { type: "string" },
        seed: { type: "string", default: lesson.seed },
        device: { type: "string", default: "auto" }, // or cpu, webgpu
        out: { type: "string", default: lesson.out },
        json: { type: "boolean", default: false }, // the results as one JSON object on standard output
        dtype: { type: "string" }, // f32, f16, bf16 or packed: how the base is held
        threads: { type: "string" },
        debug: { type: "boolean", default: false }, // errors with their stacks
      },
    });
    const say = flags.json ? warn : print;
    const threads = t.wholeNumber("--threads", flags.threads);
    const seed = t.wholeNumber("--seed", flags.seed);
    const steps = t.wholeNumber("--steps", flags.steps);
    const out = lesson.saveMerged ? `${flags.out}/adapter` : flags.out;

    using device = await openDevice(flags.device as DeviceChoice, { threads });
    say(`device    ${device.description}: ${device.reason}`);
    const loading = { device, dtype: flags.dtype as WeightDType };
    using model = await loadModel(flags.model, loading);
    say(`model     ${flags.model}: ${t.describeModel(model)}`);
    for (const note of model.notes) warn(`note: ${flags.model}: ${note}`);
    const tokenizer = model.tokenizer();
    const task = flags.data ? letters.fileTask(flags.data, tokenizer, model.sizes) : lesson.task(tokenizer, seed);
    const plan = { ...task.settings, seed, steps: steps ?? task.settings.steps };
    say(`data      ${task.description}`);

    const tuned = lora(model, { r: 8, alpha: 16, targets: lesson.targets, seed });
    for (const line of t.describeMatches(tuned.matched)) say(`adapting  ${line}`);
    say(t.describeTrainable(tuned.trainable, model.params));
    t.checkWritable(out);

    const prompts = task.test.map((row) => row.prompt);
    const answer = t.answerer(model, tokenizer, { maxNewTokens: task.maxNewTokens });
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
    await t.saveAdapter(out, tuned, { trainable: run.trainable, baseModel: flags.model });
    t.reportEnd(run.end, plan.steps, out);

    const merged = t.mergeParams(tuned, run.trainable);
    say(`merging   ${t.describeMergeChecks(await t.checkMerge(tuned, run.trainable, merged))}`);
    let after: string[];
    if (lesson.saveMerged) {
      await t.saveModel(`${flags.out}/merged`, model, { params: merged });
      using reloaded = await loadModel(`${flags.out}/merged`, loading);
      after = await t.answerer(reloaded, reloaded.tokenizer(), { maxNewTokens: task.maxNewTokens })(
        reloaded.params,
        prompts,
      );
    } else after = await answer(merged, prompts);
    const scoreAfter = letters.scoreAnswers(after, task.test);
    if (prompts.length > 0) {
      say(
        `after     ${letters.describeScore(scoreAfter)}${lesson.saveMerged ? ", merged, saved and loaded again" : ""}`,
      );
      say(letters.sideBySide(task.test.slice(0, 3), before, after));
    }
    say(`loss      ${run.losses[0].toFixed(4)} at first, ${run.losses.at(-1)!.toFixed(4)} at the end`);
    say(`adapter   ${out}: ${t.describeSizes(out, model.params)}`);
    say(`memory    ${memory.describe()}`);
    const system = lesson.system ? `--system '${lesson.system}' ` : "";
    say(`try it    deno task generate --adapter ${out} ${system}"${letters.ownLetter}"`);
    if (flags.json) print(JSON.stringify({ before: scoreBefore, after: scoreAfter, losses: run.losses }));
  });
}

if (import.meta.main) {
  await teach({
    model: "assets/letters-base",
    out: "out/adapter",
    targets: "all-linear",
    task: letters.lettersTask,
  });
}
