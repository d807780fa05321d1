/** Distillation: a model learns what another gives for every next token, not only the token that came. */
import { DataError, OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import { logSigmoid } from "../../core/nn/activation.ts";
import { crossEntropyRows, ignoredLabel, nextLabels } from "../../core/nn/loss.ts";
import { logSoftmax } from "../../core/nn/softmax.ts";
import { reduceSum, reshape } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { stopGradient } from "../../core/ops/control.ts";
import { abs, add, convert, div, exp, max, mul, ne, sub } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import type { TokenInputs } from "../../core/model.ts";
import type { HostTensor } from "../../core/tensor.ts";
import type { Scalar } from "../../core/tree_types.ts";
import type { Example } from "../../data/examples.ts";
import { openSafetensors } from "../../models/load/safetensors/safetensors.ts";
import { resolveOptions, type TableOf } from "../options/option_table.ts";
import { causalLM } from "./causal_lm.ts";
import type { ObjectiveKind } from "./kind.ts";
import type { Objective, Sums } from "./objective.ts";
import { meanOf } from "./sums.ts";
import { checkList, checkOptions, checkPath } from "../../core/options.ts";

/** A model that another learns from: any loaded one with the same tokens. */
export interface Teacher {
  /** Its weights, as `apply` takes them. */
  readonly params: unknown;
  /** Logits f32[B,T,V]. */
  apply(params: unknown, inputs: TokenInputs): Value;
}

/** An example with its teacher's logits, as many as its tokens times the vocabulary. */
export interface Taught extends Example {
  /** f32[T·V], token by token. */
  readonly teacherLogits: Float32Array;
}

/** How {@link distillation} learns, and from whom. */
export interface DistillationOptions {
  /** The teacher; or how many tokens there are, where examples have its logits with them ({@link withTeacherLogits}). */
  readonly teacher?: Teacher | { readonly vocabSize: number };
  /** 0 for the forward divergence, 1 for the reverse one, between them the generalised Jensen-Shannon divergence. 0.5 by default. */
  readonly beta?: number;
  /** What logits of both models are divided by. 1 by default. */
  readonly temperature?: number;
  /** The weight of the tokens' own loss beside the divergence (Hinton). Without it, the divergence alone. */
  readonly labelWeight?: number;
}

/** The settings of {@link distillation} that are numbers. */
const distillationOptions = {
  beta: {
    kind: "number",
    least: 0,
    most: 1,
    default: 0.5,
    help: "0 for the forward divergence, 1 for the reverse one, between them the generalised Jensen-Shannon divergence",
  },
  temperature: { kind: "number", above: 0, default: 1, help: "What logits of both models are divided by" },
  labelWeight: {
    kind: "number",
    least: 0,
    most: 1,
    help:
      "The weight of the tokens' own loss beside the divergence, which is multiplied by the squared temperature (Hinton)",
  },
} as const satisfies TableOf<Omit<DistillationOptions, "teacher">>;

/** Σ e^a (a - b) of rows of log-probabilities. */
const divergence = (a: Value, b: Value) => reduceSum(mul(exp(a), sub(a, b)), -1);

/** The divergence of each row's student from its teacher, both as log-probabilities. */
function divergences(student: Value, teacher: Value, beta: number): Value {
  if (beta === 0) return divergence(teacher, student);
  if (beta === 1) return divergence(student, teacher);
  // log((1 - β)·e^s + β·e^t), whichever of both is the greater.
  const [a, b] = [add(student, Math.log(1 - beta)), add(teacher, Math.log(beta))];
  const mixed = sub(max(a, b), logSigmoid(abs(sub(a, b))));
  return add(mul(divergence(teacher, mixed), beta), mul(divergence(student, mixed), 1 - beta));
}

/**
 * Distillation from another model with the same tokens, on rows as {@link causalLM} has them: the divergence of what both give for
 * each next token that is learned, a mean over these.
 *
 * Source: Agarwal et al. 2023, "On-Policy Distillation of Language Models"; Hinton et al. 2015.
 */
export function distillation(options: DistillationOptions = {}): Objective {
  checkOptions("distillation", options, { ...distillationOptions, teacher: true });
  const { teacher, ...settings } = options;
  const { beta, temperature, labelWeight } = resolveOptions(distillationOptions, settings);
  if (teacher === undefined) {
    throw new OptionError("distillation has no teacher: give the model to learn from, --teacher on the command line");
  }
  const vocabSize = "vocabSize" in teacher ? teacher.vocabSize : 0;
  return {
    ...causalLM,
    name: "distillation",
    learner: "distillation",
    pack: undefined,
    notPacked: "distillation reads row by row: leave pack out.",
    fits: (example) => "teacherLogits" in example,
    cut: (example, start, end) => {
      const { teacherLogits } = example as Partial<Taught>;
      const own = causalLM.cut(example, start, end);
      const logits = teacherLogits?.slice(start * vocabSize, end * vocabSize);
      return (logits ? { ...own, teacherLogits: logits } : own) as Example;
    },
    collate(examples, size) {
      const { columns, ...batch } = causalLM.collate(examples, size);
      if (vocabSize === 0) return { ...batch, columns };
      const data = new Float32Array(size.rows * size.seq * vocabSize);
      examples.forEach((example, i) => {
        const { teacherLogits: own, ids } = example as Partial<Taught> & Example;
        if (own?.length !== ids.length * vocabSize) {
          throw new DataError(
            `a row of ${ids.length} tokens has ${
              own?.length ?? 0
            } logits of its teacher, and needs ${vocabSize} for each token`,
          );
        }
        data.set(own, i * size.seq * vocabSize);
      });
      const teacherLogits: HostTensor = { shape: [size.rows, size.seq, vocabSize], dtype: "f32", data };
      return { ...batch, columns: { ...columns, teacherLogits } };
    },
    sums(apply, { labels, places, teacherLogits, ...inputs }): Sums {
      const logits = apply(inputs);
      const [b, t, v] = logits.shape;
      const taught = teacherLogits === undefined
        ? stopGradient((teacher as Teacher).apply((teacher as Teacher).params, inputs))
        : asValue(teacherLogits);
      if (taught.shape[2] !== v) {
        throw new OptionError(
          `the teacher has ${
            taught.shape[2]
          } tokens and the model that learns has ${v}: both must have the same tokens`,
        );
      }
      const at = (rows: Value) => places === undefined ? rows : gather(rows, places);
      const rowsOf = (x: Value) => at(reshape(x, [b * t, v]));
      const chosen = at(reshape(nextLabels(labels), [b * t]));
      const known = convert(ne(chosen, ignoredLabel), "f32");
      const heated = (x: Value) => logSoftmax(div(rowsOf(x), temperature));
      const apart = reduceSum(mul(known, divergences(heated(logits), heated(taught), beta))) as Scalar;
      if (labelWeight === undefined) return { loss: apart };
      const ce = reduceSum(crossEntropyRows(rowsOf(logits), chosen)) as Scalar;
      const loss = add(mul(ce, labelWeight), mul(apart, (1 - labelWeight) * temperature ** 2)) as Scalar;
      return { loss, ce, kl: apart };
    },
    measures: labelWeight === undefined ? [] : [meanOf("ce", "ce"), meanOf("kl", "kl")],
  };
}

/**
 * Rows with a teacher's logits out of a safetensors file: its tensor `teacher_logits` f32[rows, tokens, vocabulary], a row for each of
 * these in their order.
 *
 * @throws {DataError} where it has fewer rows or tokens than these
 */
export function withTeacherLogits(
  examples: readonly Example[],
  path: string,
): { examples: Taught[]; vocabSize: number } {
  checkList("withTeacherLogits", "examples", examples);
  checkPath("withTeacherLogits", path);
  using source = openSafetensors(path);
  const { shape: [rows, seq, vocabSize], data } = source.read("teacher_logits");
  const longest = Math.max(...examples.map(({ ids }) => ids.length));
  if (rows < examples.length || seq < longest) {
    throw new DataError(
      `${path} has logits for ${rows} rows of ${seq} tokens, and there are ${examples.length} rows of up to ${longest}: ` +
        "make them of the same rows.",
    );
  }
  return {
    vocabSize,
    examples: examples.map((example, i) => {
      const start = i * seq * vocabSize;
      return {
        ...example,
        teacherLogits: Float32Array.from(data.subarray(start, start + example.ids.length * vocabSize)),
      };
    }),
  };
}

/** Distillation by its name. */
export const distillationKind: ObjectiveKind = {
  name: "distillation",
  about: "every next token becomes as likely as a larger model, the teacher, has it",
  options: {
    teacher: { kind: "text", value: "PATH", help: "The model to learn from, with the same tokens", loads: "model" },
    ...distillationOptions,
  },
  make: (settings) => distillation(settings as DistillationOptions),
  needs: "teacher",
};
