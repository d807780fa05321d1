/** A text classifier: BERT's pooled first token through a linear head, in Hugging Face's layout. */
import { FileError, OptionError } from "../../core/errors.ts";
import { newInput, type Value } from "../../core/ir/graph.ts";
import type { ClassifierModel, TokenInputs } from "../../core/model.ts";
import { normalAt, randomKey } from "../../core/random.ts";
import type { HostTensor } from "../../core/tensor.ts";
import {
  type BertConfig,
  bertConfig,
  type BertParams,
  bertPool,
  bertShapes,
  bertStates,
  beside,
  hasPooler,
  modernName,
} from "./bert.ts";
import { type Linear, linear, linearShapes } from "./layers.ts";
import { type ModelConfig, parseConfig } from "../load/config.ts";
import { type Loaded, type Loader, loaderOf, type LoadOptions } from "../load/loader.ts";

/** The weights of a BERT with a classifying head, [labels, D]. */
export interface BertClassifierParams extends BertParams {
  /** The head: [labels, D]. */
  readonly classifier: Linear;
}

/** A BERT classifier over parameters that are already there. */
function makeBertClassifier(
  config: BertConfig,
  labels: readonly string[],
  params: BertClassifierParams,
  fresh: readonly string[] = [],
): ClassifierModel<BertClassifierParams> {
  const logits = (params: BertClassifierParams, inputs: TokenInputs, byBlocks: boolean): Value => {
    const states = bertStates(config, params, inputs, byBlocks);
    return linear(bertPool(params, states[config.layers]), params.classifier);
  };
  return {
    architecture: "bert",
    params,
    apply: (params, inputs) => logits(params, inputs, false),
    applyByBlocks: (params, inputs) => logits(params, inputs, true),
    sample: { inputIds: newInput({ shape: [1, 2], dtype: "i32" }, "inputIds") },
    tied: {},
    hubName: (path) => /^classifier(\.|$)/.test(path) ? path : `bert.${path}`,
    sizes: config,
    labels,
    fresh,
  };
}

/** What a classifier's file has in addition. */
export const headName = "classifier.weight";

/** How a classifier is loaded. */
export interface ClassifierOptions extends LoadOptions {
  /** The names of the labels. By default those of the file; an encoder's file has none, so that they must be given. */
  readonly labels?: readonly string[];
  /** Where the head comes from: the file, if it has one (the default), or drawn even if the file has one. */
  readonly head?: "fresh";
  /** What a fresh head is drawn from. 0 by default. */
  readonly seed?: number;
}

/**
 * How a BERT classifier is loaded: `await bertClassifier.load("path/to/all-MiniLM-L6-v2", { device, labels: ["no", "yes"] })`.
 * Where the file has no head, or another is asked for, a new head is drawn and named in `fresh`.
 */
export const bertClassifier: Loader<
  BertClassifierParams,
  ClassifierModel<BertClassifierParams>,
  ClassifierOptions
> = loaderOf({
  modelType: "bert",
  check: (config) => {
    checkProblem(config);
    bertConfig(config);
  },
  rename: modernName,
  read: (config, source, { labels: asked, head, seed = 0 }: ClassifierOptions) => {
    checkProblem(config);
    const sizes = bertConfig(config);
    if (!hasPooler(source)) {
      throw new FileError(
        `${source.path} holds no pooler.dense, which a classifier needs: choose a BERT that has one.`,
      );
    }
    const fromFile = head !== "fresh" && source.names.includes(headName);
    const labels = fromFile
      ? labelsOfFile(config, source.entry("classifier.weight").shape[0], asked)
      : newLabels(config, asked);
    return {
      shapes: {
        ...bertShapes(sizes, true),
        classifier: linearShapes(sizes.width, labels.length, true),
      },
      make: (params) =>
        makeBertClassifier(sizes, labels, params as BertClassifierParams, fromFile ? [] : ["classifier"]),
      ignore: fromFile ? beside : [...beside, /^classifier\./],
      fresh: fromFile
        ? new Map()
        : freshHead(labels.length, sizes.width, config.number("initializer_range", 0.02), seed),
      config: withLabels(config, labels),
    };
  },
});

/** Loads a text classifier, or makes one of an encoder: see {@link bertClassifier}. */
export function loadClassifier(
  path: string,
  options: ClassifierOptions,
): Promise<Loaded<ClassifierModel>> {
  return bertClassifier.load(path, options);
}

/** Normal numbers of the deviation that the encoder itself began with, and a bias of zeros. */
function freshHead(labels: number, width: number, deviation: number, seed: number): ReadonlyMap<string, HostTensor> {
  const [high, low] = randomKey(seed).data;
  const weight = Float32Array.from({ length: labels * width }, (_, i) => deviation * normalAt([high, low], i));
  return new Map<string, HostTensor>([
    ["classifier.weight", { shape: [labels, width], dtype: "f32", data: weight }],
    ["classifier.bias", { shape: [labels], dtype: "f32", data: new Float32Array(labels) }],
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
function withLabels(config: ModelConfig, labels: readonly string[]): ModelConfig {
  const id2label = Object.fromEntries(labels.map((name, i) => [String(i), name]));
  const label2id = Object.fromEntries(labels.map((name, i) => [name, i]));
  return parseConfig(
    { ...config.raw, architectures: ["BertForSequenceClassification"], id2label, label2id },
    config.path,
  );
}
