/** The labels of a head: those of its file, or new ones with a head that is drawn for them. */
import { sizeOf } from "../../core/aval.ts";
import { FileError, OptionError } from "../../core/errors.ts";
import type { ProblemType } from "../../core/model.ts";
import { normalAt, randomKey } from "../../core/random.ts";
import type { HostTensor } from "../../core/tensor.ts";
import { type ModelConfig, parseConfig } from "../load/config.ts";
import type { Task } from "./family.ts";
import type { FlatShapes } from "./layers.ts";

/** The head of a classifier. */
export interface HeadOptions {
  /** The names of the labels. By default those of the file; an encoder's file has none, so that they must be given. */
  readonly labels?: readonly string[];
  /** Where the head comes from: the file, if it has one (the default), or drawn even if the file has one. */
  readonly head?: "fresh";
  /** What a fresh head is drawn from. 0 by default. */
  readonly seed?: number;
  /** What outputs say of a text. By default what the file says, else which one of the labels it has. */
  readonly problem?: ProblemType;
}

const problems: readonly ProblemType[] = [
  "single_label_classification",
  "multi_label_classification",
  "regression",
];

/** The labels of a head with so many outputs in the file, or of a new one (null), and what its outputs say. */
export function chooseLabels(
  config: ModelConfig,
  task: Task,
  outputs: number | null,
  options: HeadOptions,
): { readonly labels: readonly string[]; readonly problem: ProblemType } {
  const problem = task === "TOKEN_CLS" ? problems[0] : problemOf(config, outputs, options);
  const labels = outputs === null
    ? newLabels(config, task, problem, options.labels)
    : labelsOfFile(config, outputs, options.labels);
  return { labels, problem };
}

/** What the outputs say. As in transformers, one output is a number where the file says nothing. */
function problemOf(config: ModelConfig, outputs: number | null, { problem: asked }: HeadOptions): ProblemType {
  const usual = outputs === 1 ? problems[2] : problems[0];
  const found = outputs === null ? asked ?? usual : config.text("problem_type", asked ?? usual);
  if (!problems.includes(found as ProblemType)) {
    throw new FileError(`${config.path} says problem_type is ${found}; supported: ${problems.join(", ")}.`);
  }
  if (asked === undefined || asked === found) return found as ProblemType;
  throw new OptionError(
    `the head of ${config.path} is for ${found}, and ${asked} is asked for: give rows of its kind, or ask for a fresh head`,
  );
}

/** Normal numbers of the deviation that the encoder itself began with for matrices, 0 for biases, 1 for a norm's scale. */
export function freshHead(shapes: FlatShapes, deviation: number, seed: number): ReadonlyMap<string, HostTensor> {
  const [high, low] = randomKey(seed).data;
  let drawn = 0;
  return new Map(
    Object.entries(shapes).map(([path, shape]): [string, HostTensor] => {
      const size = sizeOf(shape), isBias = path.endsWith(".bias");
      const from = drawn;
      if (shape.length > 1) drawn += size;
      const value = (i: number) => shape.length > 1 ? deviation * normalAt([high, low], from + i) : isBias ? 0 : 1;
      return [path, { shape, dtype: "f32", data: Float32Array.from({ length: size }, (_, i) => value(i)) }];
    }),
  );
}

function newLabels(
  config: ModelConfig,
  task: Task,
  problem: ProblemType,
  asked: readonly string[] | undefined,
): readonly string[] {
  if (problem === "regression" && asked === undefined) return ["score"];
  if (asked === undefined) {
    throw new OptionError(
      `the model of ${config.path} has no ${
        task === "TOKEN_CLS" ? "tagging" : "classifying"
      } head: give the names of the labels, and a head for them is made`,
    );
  }
  const least = problem === "single_label_classification" ? 2 : 1;
  if (asked.length < least || new Set(asked).size < asked.length || asked.some((name) => name === "")) {
    throw new OptionError(
      least === 1
        ? `labels are different names, at least one, not ${JSON.stringify(asked)}`
        : `labels are at least two different names, not ${JSON.stringify(asked)}: a ${
          task === "TOKEN_CLS" ? "token" : "text"
        } has one of them`,
    );
  }
  return asked;
}

/** The labels of the head in the file. Names are taken from `asked` where the file has none, and must agree elsewhere. */
function labelsOfFile(config: ModelConfig, count: number, asked: readonly string[] | undefined): readonly string[] {
  const named = config.raw.id2label as Record<string, unknown> | undefined ?? {};
  const own = Array.from({ length: count }, (_, i) => String(named[i] ?? `LABEL_${i}`));
  if (asked === undefined) return own;
  const unnamed = own.every((name, i) => name === `LABEL_${i}`);
  if (asked.length === count && (unnamed || own.every((name, i) => name === asked[i]))) return asked;
  throw new OptionError(
    `the head of ${config.path} has the labels ${own.join(", ")}, and ${
      asked.join(", ")
    } are asked for: leave \`labels\` ` +
      `out, or ask for a fresh head`,
  );
}

/** The configuration as it would be saved with this head. */
export function withLabels(
  config: ModelConfig,
  className: string,
  task: Task,
  labels: readonly string[],
  problem: ProblemType,
): ModelConfig {
  const id2label = Object.fromEntries(labels.map((name, i) => [String(i), name]));
  const label2id = Object.fromEntries(labels.map((name, i) => [name, i]));
  const said = task === "SEQ_CLS" && (problem !== problems[0] || config.raw.problem_type !== undefined);
  return parseConfig(
    { ...config.raw, architectures: [className], id2label, label2id, ...(said && { problem_type: problem }) },
    config.path,
  );
}
