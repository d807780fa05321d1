/** What encoders have in common: texts read whole, and the heads that stand on what is read of them. */
import { FileError } from "../../core/errors.ts";
import { newInput, type Value } from "../../core/ir/graph.ts";
import type { EncoderModel, Leaf, TokenInputs } from "../../core/model.ts";
import { broadcastTo, full, reduceSum, reshape } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { matmul } from "../../core/ops/contract.ts";
import { add, convert, div, max, mul, ne, sqrt } from "../../core/ops/elementwise.ts";
import { slice } from "../../core/ops/structure.ts";
import { encoderPositions } from "../token_inputs.ts";
import { type ModelConfig, parseConfig } from "../load/config.ts";
import {
  type Family,
  hubNameOf,
  type Names,
  readSizes,
  type StoredWeights,
  type Task,
  type TextSizes,
  under,
} from "./family.ts";
import { chooseLabels, freshHead, type HeadOptions, withLabels } from "./labels.ts";
import { at, type FlatShapes, linear, linearAt, treeOf } from "./layers.ts";

/** An encoder as a literal: its names, how it is computed, and its heads. */
export interface EncoderLiteral<P, C extends TextSizes> extends Omit<Names, "head" | "headModules"> {
  /** What the configuration says beside sizes. Throws a {@link FileError} for what is not supported here. */
  sizes(config: ModelConfig, common: TextSizes): C;
  /** The shape of every weight by its path. */
  shapes(sizes: C, stored: StoredWeights): FlatShapes;
  /** The stream as it enters the first layer and after each, f32[B,T,D]. `byBlocks`: of each layer only its input is kept. */
  states(sizes: C, params: P, inputs: TokenInputs, byBlocks: boolean): Value[];
  /** Where its tokens stand, where that is not their places in their rows. */
  positions?(sizes: C, ids: Value): Value;
  /** f32[B,D]: what the model itself makes of a whole text, from the last states. Absent where it has nothing of the kind. */
  pool?(params: P, states: Value): Value;
  /** Names of the equal parts of fused projections, as in {@link EncoderModel.parts}. */
  readonly parts?: Readonly<Record<string, readonly string[]>>;
  /** What a class with a head puts before all modules but the head's. */
  readonly inside: string;
  readonly heads: {
    readonly SEQ_CLS: LabelHead<P, C>;
    readonly TOKEN_CLS: LabelHead<P, C>;
    readonly MASKED_LM: WordHead<P, C>;
  };
}

/** A head: what its last layer reads. */
interface Head<P, C extends TextSizes> {
  /** Transformers' class of an encoder with this head. */
  readonly className: string;
  /** The module whose rows are the outputs. */
  readonly output: string;
  /** Its other modules at the top. */
  readonly beside?: readonly string[];
  /** The shapes of all but the output, by path. */
  shapes?(sizes: C, stored: StoredWeights): FlatShapes;
  /** What the output reads: of each text, f32[B,D], or of each token, f32[B,T,D], made of the last states f32[B,T,D]. */
  features?(sizes: C, params: P, states: Value, inputs: TokenInputs): Value;
}

/** A head that tells labels apart: its output is a linear layer. */
export type LabelHead<P, C extends TextSizes> = Head<P, C>;

/** A head that tells words: its output is the words' table, or a matrix of its own where the two are not tied. */
export interface WordHead<P, C extends TextSizes> extends Head<P, C> {
  /** The path of the output's bias, [vocabulary]; null where there is none. */
  bias(sizes: C): string | null;
}

/** An encoder's family. */
export interface EncoderFamily<P = any, C extends TextSizes = any> extends Family<EncoderModel<P>> {
  /** Reads the sizes out of a configuration. Throws a {@link FileError} for what is not supported here. */
  sizes(config: ModelConfig): C;
}

const positionsOf = <P, C extends TextSizes>({ positions }: EncoderLiteral<P, C>, sizes: C) => (inputs: TokenInputs) =>
  encoderPositions(inputs, sizes, positions && ((ids) => positions(sizes, ids)));

const sample = () => ({ inputIds: newInput({ shape: [1, 2], dtype: "i32" }, "inputIds") });

/** Makes a family of a literal: the encoder alone, and with each of its heads. */
export function encoder<P, C extends TextSizes>(literal: EncoderLiteral<P, C>): EncoderFamily<P, C> {
  const names: Names = { ...literal, prefix: "" };
  const sizes = (config: ModelConfig): C => literal.sizes(config, readSizes(names, config));
  const states = (c: C) => (params: P, inputs: TokenInputs) => literal.states(c, params, inputs, false);
  const pool = (params: P, last: Value): Value => {
    if (literal.pool !== undefined) return literal.pool(params, last);
    throw new FileError(
      `a model of the architecture ${literal.modelType} has no pooler: use \`embed\`, which needs none`,
    );
  };
  const over = (c: C, params: P): EncoderModel<P> => {
    const hiddenStates = states(c);
    const last = (params: P, inputs: TokenInputs) => hiddenStates(params, inputs)[c.layers];
    const blocks = (params: P, inputs: TokenInputs) => literal.states(c, params, inputs, true)[c.layers];
    return {
      architecture: literal.modelType,
      task: "FEATURE_EXTRACTION",
      params,
      apply: last,
      applyByBlocks: blocks,
      positions: positionsOf(literal, c),
      sample: sample(),
      tied: {},
      parts: literal.parts,
      hubName: (path) => hubNameOf(names, path),
      sizes: c,
      hiddenStates,
      pool: (params, inputs) => pool(params, last(params, inputs)),
      embed: (params, inputs) => unit(meanOfTokens(last(params, inputs), inputs)),
    };
  };
  const ignored = (task?: Task) => [...literal.ignore ?? [], ...ignoredHeads(literal, task)];
  return {
    ...names,
    sizes,
    check: sizes,
    build: (config, stored) => {
      const c = sizes(config);
      return {
        shapes: treeOf(literal.shapes(c, stored)),
        make: (params) => over(c, params),
        ignore: ignored(),
        config: withClass(config, literal.className),
      };
    },
    tasks: {
      SEQ_CLS: labelled(literal, "SEQ_CLS", sizes, ignored("SEQ_CLS")),
      TOKEN_CLS: labelled(literal, "TOKEN_CLS", sizes, ignored("TOKEN_CLS")),
      MASKED_LM: wordly(literal, sizes, ignored("MASKED_LM")),
    },
  };
}

const top = (path: string) => path.split(".")[0];
const modulesOf = ({ output, beside = [] }: Head<any, any>) => [...new Set([...beside, top(output)])];

/** Tensors of other heads in a file, which are no weights of what is loaded. */
function ignoredHeads({ heads }: EncoderLiteral<any, any>, task?: Task): RegExp[] {
  const own = task === undefined ? [] : modulesOf(heads[task as keyof typeof heads]);
  const all = new Set(Object.values(heads).flatMap(modulesOf));
  return [...all].filter((module) => !own.includes(module)).map((module) => under(module));
}

function namesWith<P, C extends TextSizes>(literal: EncoderLiteral<P, C>, head: Head<P, C>): Names {
  const { className, output } = head;
  return { ...literal, prefix: literal.inside, className, head: output, headModules: modulesOf(head) };
}

/** What models with any head are, over what is applied. */
function headed<P, C extends TextSizes>(
  literal: EncoderLiteral<P, C>,
  names: Names,
  { task, sizes, params, logits, tied }: {
    readonly task: Task;
    readonly sizes: C;
    readonly params: P;
    readonly logits: (params: P, states: Value, inputs: TokenInputs) => Value;
    readonly tied?: Readonly<Record<string, string>>;
  },
) {
  const apply = (byBlocks: boolean) => (params: P, inputs: TokenInputs) =>
    logits(params, literal.states(sizes, params, inputs, byBlocks)[sizes.layers], inputs);
  return {
    architecture: literal.modelType,
    ...{ task, params, sizes },
    apply: apply(false),
    applyByBlocks: apply(true),
    hiddenStates: (params: P, inputs: TokenInputs) => literal.states(sizes, params, inputs, false),
    positions: positionsOf(literal, sizes),
    sample: sample(),
    tied: tied ?? {},
    parts: literal.parts,
    head: names.head,
    hubName: (path: string) => hubNameOf(names, path),
  };
}

/** With a head that tells labels. Where the file has none, or another is asked for, one is drawn and named in `fresh`. */
function labelled<P, C extends TextSizes>(
  literal: EncoderLiteral<P, C>,
  task: "SEQ_CLS" | "TOKEN_CLS",
  sizesOf: (config: ModelConfig) => C,
  ignore: readonly RegExp[],
): Family {
  const head = literal.heads[task], names = namesWith(literal, head), modules = modulesOf(head);
  return {
    ...names,
    sizes: sizesOf,
    check: sizesOf,
    build: (config, stored, options: HeadOptions) => {
      const sizes = sizesOf(config), { output } = head;
      const inFile = options.head !== "fresh" && stored.has(`${output}.weight`);
      const outputs = inFile ? stored.shapeOf(`${output}.weight`)[0] : null;
      const { labels, problem } = chooseLabels(config, task, outputs, options);
      const flat = {
        ...head.shapes?.(sizes, stored),
        [`${output}.weight`]: [labels.length, sizes.width],
        [`${output}.bias`]: [labels.length],
      };
      const logits = (params: P, states: Value, inputs: TokenInputs) =>
        linear(head.features?.(sizes, params, states, inputs) ?? states, linearAt(params, output));
      const deviation = config.number("initializer_range", 0.02);
      return {
        shapes: treeOf({ ...literal.shapes(sizes, stored), ...flat }),
        make: (params: P) => ({
          ...headed(literal, names, { task, sizes, params, logits }),
          ...{ labels, problem, fresh: inFile ? [] : modules },
        }),
        ignore: inFile ? ignore : [...ignore, ...modules.map((module) => under(module))],
        fresh: inFile ? new Map() : freshHead(flat, deviation, options.seed ?? 0),
        config: withLabels(config, head.className, task, labels, problem),
      };
    },
  } as Family;
}

/** With a head that tells which word stands at each place. */
function wordly<P, C extends TextSizes>(
  literal: EncoderLiteral<P, C>,
  sizesOf: (config: ModelConfig) => C,
  ignore: readonly RegExp[],
): Family {
  const head = literal.heads.MASKED_LM, names = namesWith(literal, head), { output } = head;
  return {
    ...names,
    tiedHead: true,
    sizes: sizesOf,
    check: sizesOf,
    build: (config, stored) => {
      const sizes = sizesOf(config), bias = head.bias(sizes);
      const tied = config.flag("tie_word_embeddings", true);
      const flat = literal.shapes(sizes, stored);
      const table = Object.keys(flat).find((path) => path.endsWith(`${literal.tables[0]}.weight`))!;
      const logits = (params: P, states: Value, inputs: TokenInputs) => {
        const features = head.features?.(sizes, params, states, inputs) ?? states;
        const scores = matmul(features, at(params, tied ? table : `${output}.weight`) as Leaf, { transposeB: true });
        return bias === null ? scores : add(scores, convert(at(params, bias) as Leaf, "f32"));
      };
      return {
        shapes: treeOf({
          ...flat,
          ...head.shapes?.(sizes, stored),
          ...(bias === null ? {} : { [bias]: [sizes.vocabSize] }),
          ...(tied ? {} : { [`${output}.weight`]: flat[table] }),
        }),
        make: (params: P) =>
          headed(literal, names, {
            ...{ task: "MASKED_LM" as const, sizes, params, logits },
            tied: tied ? { [output]: table.replace(/\.weight$/, "") } : {},
          }),
        // What is tied may have been written all the same, and the bias under both of its names.
        ignore: [...ignore, under(output, tied ? "(weight|bias)$" : "bias$")],
        config: withClass(config, head.className),
      };
    },
  } as Family;
}

/** The configuration as it would be saved of what is loaded. */
const withClass = (config: ModelConfig, className: string): ModelConfig =>
  parseConfig({ ...config.raw, architectures: [className] }, config.path);

/** The state [B,D] of the first token of states [B,T,D]. */
export function firstToken(states: Value): Value {
  const [b, , width] = states.shape;
  return reshape(slice(states, 1, 0, 1), [b, width]);
}

/** The mean over real tokens of states [B,T,D], f32[B,D]. */
export function meanOfTokens(states: Value, { attentionMask }: Pick<TokenInputs, "attentionMask">): Value {
  const [b, t, width] = states.shape;
  const real = attentionMask === undefined ? full([b, t], 1) : convert(ne(asValue(attentionMask), 0), "f32");
  const sum = reduceSum(mul(states, broadcastTo(reshape(real, [b, t, 1]), states.shape)), 1);
  return div(sum, broadcastTo(max(reduceSum(real, 1, { keep: true }), 1), [b, width]));
}

/** Rows [B,D] at length 1. */
function unit(rows: Value): Value {
  const length = sqrt(reduceSum(mul(rows, rows), 1, { keep: true }));
  return div(rows, broadcastTo(max(length, 1e-12), rows.shape));
}
