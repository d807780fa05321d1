/** Text classifiers: what an encoder gives of a whole text, through a linear head, in Hugging Face's layout. */
import { FileError, OptionError } from "../../core/errors.ts";
import { newInput, type Value } from "../../core/ir/graph.ts";
import type { ClassifierModel, TokenInputs } from "../../core/model.ts";
import { normalAt, randomKey } from "../../core/random.ts";
import type { HostTensor } from "../../core/tensor.ts";
import { type ModelConfig, parseConfig } from "../load/config.ts";
import { type Family, hubNameOf, type Names, type StoredWeights, type TextSizes } from "./family.ts";
import { type Linear, linear, linearShapes } from "./layers.ts";

/** The head of a classifier. */
export interface HeadOptions {
  /** The names of the labels. By default those of the file; an encoder's file has none, so that they must be given. */
  readonly labels?: readonly string[];
  /** Where the head comes from: the file, if it has one (the default), or drawn even if the file has one. */
  readonly head?: "fresh";
  /** What a fresh head is drawn from. 0 by default. */
  readonly seed?: number;
}

const head = "classifier";

/** A classifier as a literal: its names, and what the head reads. */
export interface ClassifierLiteral<P, C extends TextSizes> extends Omit<Names, "head"> {
  readonly sizes: (config: ModelConfig) => C;
  /** The shape of every weight but the head's. */
  readonly shapes: (sizes: C, stored: StoredWeights) => Record<string, unknown>;
  /** A vector of each text, [B,D]. `byBlocks`: of each layer only its input is kept for the backward pass. */
  readonly pooled: (sizes: C, params: P, inputs: TokenInputs, byBlocks: boolean) => Value;
}

/** Makes a family of a literal. Where the file has no head, or another is asked for, one is drawn and named in `fresh`. */
export function classifier<P, C extends TextSizes>(
  literal: ClassifierLiteral<P, C>,
): Family<ClassifierModel<P & { readonly classifier: Linear }>, HeadOptions> {
  type Params = P & { readonly classifier: Linear };
  const names = { ...literal, head };
  const over = (sizes: C, labels: readonly string[], params: Params, fresh: readonly string[]) => {
    const logits = (params: Params, inputs: TokenInputs, byBlocks: boolean): Value =>
      linear(literal.pooled(sizes, params, inputs, byBlocks), params.classifier);
    return {
      architecture: literal.modelType,
      params,
      apply: (params: Params, inputs: TokenInputs) => logits(params, inputs, false),
      applyByBlocks: (params: Params, inputs: TokenInputs) => logits(params, inputs, true),
      sample: { inputIds: newInput({ shape: [1, 2], dtype: "i32" }, "inputIds") },
      tied: {},
      hubName: (path: string) => hubNameOf(names, path),
      ...{ sizes, labels, fresh },
    };
  };
  return {
    ...names,
    check: (config) => {
      checkProblem(config);
      literal.sizes(config);
    },
    build: (config, stored, { labels: asked, head: from, seed = 0 }) => {
      checkProblem(config);
      const sizes = literal.sizes(config);
      const shapes = literal.shapes(sizes, stored);
      const inFile = from !== "fresh" && stored.has(`${head}.weight`);
      const labels = inFile
        ? labelsOfFile(config, stored.shapeOf(`${head}.weight`)[0], asked)
        : newLabels(config, asked);
      return {
        shapes: { ...shapes, classifier: linearShapes(sizes.width, labels.length, true) },
        make: (params) => over(sizes, labels, params, inFile ? [] : [head]),
        ignore: inFile ? literal.ignore ?? [] : [...literal.ignore ?? [], /^classifier\./],
        fresh: inFile
          ? new Map()
          : freshHead(labels.length, sizes.width, config.number("initializer_range", 0.02), seed),
        config: withLabels(config, literal.className, labels),
      };
    },
  };
}

/** Normal numbers of the deviation that the encoder itself began with, and a bias of zeros. */
function freshHead(labels: number, width: number, deviation: number, seed: number): ReadonlyMap<string, HostTensor> {
  const [high, low] = randomKey(seed).data;
  const weight = Float32Array.from({ length: labels * width }, (_, i) => deviation * normalAt([high, low], i));
  return new Map<string, HostTensor>([
    [`${head}.weight`, { shape: [labels, width], dtype: "f32", data: weight }],
    [`${head}.bias`, { shape: [labels], dtype: "f32", data: new Float32Array(labels) }],
  ]);
}

/** Refuses heads whose outputs are no labels of which one is right. */
function checkProblem(config: ModelConfig): void {
  const problem = config.text("problem_type", "single_label_classification");
  if (problem !== "single_label_classification") {
    throw new FileError(
      `${config.path} says problem_type is ${problem}, and only single_label_classification can be built.`,
    );
  }
}

function newLabels(config: ModelConfig, asked: readonly string[] | undefined): readonly string[] {
  if (asked === undefined) {
    throw new OptionError(
      `the model of ${config.path} has no classifying head: give the names of the labels, and a head for them is made`,
    );
  }
  if (asked.length < 2 || new Set(asked).size < asked.length || asked.some((name) => name === "")) {
    throw new OptionError(
      `labels are at least two different names, not ${JSON.stringify(asked)}: a text has one of them`,
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
function withLabels(config: ModelConfig, className: string, labels: readonly string[]): ModelConfig {
  const id2label = Object.fromEntries(labels.map((name, i) => [String(i), name]));
  const label2id = Object.fromEntries(labels.map((name, i) => [name, i]));
  return parseConfig(
    { ...config.raw, architectures: [className], id2label, label2id },
    config.path,
  );
}
