/** Multiple negatives ranking: of all texts of a batch, the one that belongs to it is nearest to each. */
import { classificationLoss, ignoredLabel } from "../../core/nn/loss.ts";
import { broadcastTo, reduceSum, reshape } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { and, convert, eq, mul, ne, select } from "../../core/ops/elementwise.ts";
import { matmul } from "../../core/ops/contract.ts";
import { argmax } from "../../core/ops/reduce.ts";
import { concat } from "../../core/ops/structure.ts";
import { resolveOptions, type TableOf } from "../options/option_table.ts";
import { kindOf, type ObjectiveKind } from "./kind.ts";
import type { Objective } from "./objective.ts";
import { embeddingsOf, pairRows, scaleOption, tripletRows, type Tuple, tuples, unitRows } from "./tuples.ts";
import { meanOf } from "./sums.ts";
import { checkOptions } from "../../core/options.ts";

/** How {@link ranking} learns. */
export interface RankingOptions {
  /** What cosines are multiplied by before they are compared. 20 by default. */
  readonly scale?: number;
}

const rankingOptions = { scale: scaleOption } satisfies TableOf<RankingOptions>;

/**
 * The cross-entropy of scale · cos(anchor i, candidate j) with j = i as the right one: candidates are all second texts of the
 * batch, and where rows have a third one, which does not belong to the first, all of these too. The larger the batch, the more
 * there is to tell apart.
 *
 * Source: Henderson et al. 2017, "Efficient Natural Language Response Suggestion for Smart Reply", section 4.4.
 */
export function ranking(options: RankingOptions = {}): Objective {
  checkOptions("ranking", options, rankingOptions);
  const { scale } = resolveOptions(rankingOptions, options);
  return {
    ...tuples(2),
    name: "ranking",
    learner: "an embedder that ranks",
    formats: [pairRows, tripletRows],
    notAccumulated:
      "every text of a batch is compared with all others of it, so that small batches do not add up to a " +
      "large one: raise batch, and leave accumulate out.",
    samples: [
      { anchor: "Where?", positive: "there" },
      { anchor: "Who was it", positive: "it was the cat" },
      { anchor: "a question that is long", positive: "no" },
      { anchor: "How", positive: "so and so" },
      { anchor: "When is it", positive: "at noon" },
    ],
    fits: (example) => "others" in example && (example as Tuple).score === undefined,
    sums(apply, columns) {
      const { texts: [anchor, ...candidates] } = embeddingsOf(apply, columns);
      const labels = asValue(columns.labels, "i32"), [n] = labels.shape;
      const cosine = matmul(unitRows(anchor), unitRows(concat(candidates, 0)), { transposeB: true });
      const real = concat(candidates.map(() => ne(labels, ignoredLabel)), 0);
      const shape = [n, candidates.length * n];
      // What fills up a batch is no candidate.
      const scores = select(broadcastTo(reshape(real, [1, shape[1]]), shape), mul(cosine, scale), -1e9);
      const right = and(ne(labels, ignoredLabel), eq(argmax(scores, 1), labels));
      return {
        loss: classificationLoss(scores, labels, { reduction: "sum" }),
        right: reduceSum(convert(right, "f32")),
      };
    },
    measures: [meanOf("accuracy", "right", true)],
  };
}

/** Ranking by its name. */
export const rankingKind: ObjectiveKind = kindOf(
  "of all texts of a batch, the one that belongs to it is nearest to each (multiple negatives ranking)",
  rankingOptions,
  ranking,
);
