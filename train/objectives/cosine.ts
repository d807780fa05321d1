/** Likeness as a number: CoSENT, which puts pairs into the order of their scores, and the squared error of the cosine itself. */
import { logSumExp } from "../../core/nn/softmax.ts";
import { broadcastTo, full, reduceSum, reshape } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { abs, and, convert, gt, lt, mul, select, sub } from "../../core/ops/elementwise.ts";
import { concat } from "../../core/ops/structure.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { Scalar } from "../../core/tree_types.ts";
import { resolveOptions, type TableOf } from "../options/option_table.ts";
import { kindOf, type ObjectiveKind } from "./kind.ts";
import type { Objective } from "./objective.ts";
import { cosines, embeddingsOf, scaleOption, scoredRows, type Tuple, tuples } from "./tuples.ts";
import { meanOf, sumKnown } from "./sums.ts";
import { checkOptions } from "../../core/options.ts";

const scored: Omit<Objective, "name" | "learner" | "sums" | "measures"> = {
  ...tuples(2),
  formats: [scoredRows],
  samples: [
    { sentence1: "a cat", sentence2: "the cat", score: 0.9 },
    { sentence1: "a", sentence2: "no way", score: 0.1 },
    { sentence1: "it is late today", sentence2: "time to go", score: 0.6 },
    { sentence1: "who", sentence2: "what", score: 0.3 },
    { sentence1: "good", sentence2: "fine and good", score: 0.8 },
  ],
  fits: (example) => "others" in example && (example as Tuple).score !== undefined,
};

/** How {@link cosent} learns. */
export interface CosentOptions {
  /** What cosines are multiplied by before they are compared. 20 by default. */
  readonly scale?: number;
}

const cosentOptions = { scale: scaleOption } satisfies TableOf<CosentOptions>;

/**
 * log(1 + Σ exp(scale · (cos i − cos j))) over the pairs i, j of a batch whose scores say that j is more alike: only their order
 * matters. It is one number for a batch, counted once for each of its rows.
 *
 * Source: Su 2022, "CoSENT" (sentence-transformers' CoSENTLoss).
 */
export function cosent(options: CosentOptions = {}): Objective {
  checkOptions("cosent", options, cosentOptions);
  const { scale } = resolveOptions(cosentOptions, options);
  return {
    ...scored,
    name: "cosent",
    learner: "an embedder that learns an order of likeness",
    notAccumulated:
      "every pair of a batch is compared with all others of it, so that small batches do not add up to a " +
      "large one: raise batch, and leave accumulate out.",
    sums(apply, columns) {
      const { texts: [a, b], known } = embeddingsOf(apply, columns);
      const cosine = cosines(a, b), score = asValue(columns.score!), [n] = score.shape;
      const rows = (x: Value) => broadcastTo(reshape(x, [n, 1]), [n, n]);
      const beside = (x: Value) => broadcastTo(reshape(x, [1, n]), [n, n]);
      const pair = and(lt(rows(score), beside(score)), gt(mul(rows(known), beside(known)), 0));
      const differences = select(pair, mul(sub(rows(cosine), beside(cosine)), scale), -1e9);
      const all = concat([full([1], 0), reshape(differences, [n * n])], 0);
      const isPair = convert(pair, "f32");
      return {
        loss: mul(logSumExp(all), reduceSum(known)) as Scalar,
        pairs: reduceSum(isPair),
        ordered: reduceSum(mul(isPair, convert(lt(rows(cosine), beside(cosine)), "f32"))),
      };
    },
    measures: [
      { name: "order", percent: true, of: ({ pairs, ordered }) => pairs === 0 ? 1 : ordered / pairs },
    ],
  };
}

/** The square of cosine minus score. */
export const cosineError: Objective = {
  ...scored,
  name: "cosine",
  learner: "an embedder that learns cosines",
  sums(apply, columns) {
    const { texts: [a, b], known } = embeddingsOf(apply, columns);
    const error = sub(cosines(a, b), asValue(columns.score!));
    return { loss: sumKnown(known, mul(error, error)), error: sumKnown(known, abs(error)) };
  },
  measures: [meanOf("error", "error")],
};

/** CoSENT by its name. */
export const cosentKind: ObjectiveKind = kindOf(
  "pairs of texts are put into the order of their scores (CoSENT)",
  cosentOptions,
  cosent,
);
