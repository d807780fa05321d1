// deno run --allow-read examples/two_adapters.ts
/** One base, two skills: the program is compiled once, and swapping the adapter is another argument. */
import { type HostTensor, jit, lora, openDevice, type Operand, read, type Trainable } from "@lowrank/lowrank";
import { loadModel } from "@lowrank/lowrank/models";
import { encodeRow, makeBatch, train, uploadBatch } from "@lowrank/lowrank/train";

using device = await openDevice("cpu");
using model = await loadModel("assets/letters-base", { device });
const tokenizer = model.tokenizer();
const tuned = lora(model, { r: 4, alpha: 8, targets: "all-linear" });

/** Teaches the answer to one question; what was learned comes back, the base stays as it is. */
async function teach(completion: string) {
  const data = [encodeRow({ prompt: "Good day, ", completion }, tokenizer)];
  const { trainable } = await train(tuned, { data, steps: 30, batch: 1, lr: 1e-2, schedule: "constant" });
  return trainable;
}
const skills = { polite: await teach("dear reader."), curt: await teach("what now?") };

const { inputIds } = uploadBatch(
  device,
  makeBatch([encodeRow({ text: "Good day, " }, tokenizer)], { padId: 0, bucket: 1 }),
);
const next = jit((adapter: Trainable, base: typeof tuned.frozen, inputIds: Operand) =>
  tuned.apply(adapter, base, { inputIds })
);
for (const [name, adapter] of Object.entries(skills)) {
  const logits = await read(next(adapter, tuned.frozen, inputIds)) as HostTensor;
  const [, length, words] = logits.shape;
  const last = logits.data.subarray((length - 2) * words, (length - 1) * words);
  console.log(`${name}: the next letter is ${JSON.stringify(tokenizer.decode([last.indexOf(Math.max(...last))]))}`);
}
