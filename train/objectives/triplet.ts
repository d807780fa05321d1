/** Triplets: a text is nearer to one that belongs to it than to one that does not, by a margin. */
import { add, convert, lt, max, sub } from "../../core/ops/elementwise.ts";
import { resolveOptions, type TableOf } from "../options/option_table.ts";
import { kindOf, type ObjectiveKind } from "./kind.ts";
import type { Objective } from "./objective.ts";
import { cosines, distances, embeddingsOf, tripletRows, type Tuple, tuples } from "./tuples.ts";
import { meanOf, sumKnown } from "./sums.ts";
import { checkOptions } from "../../core/options.ts";

/** How {@link triplet} learns. */
export interface TripletOptions {
  /** By how much nearer a text is to be to the one that belongs to it. 5 by default. */
  readonly margin?: number;
  /** How far two embeddings are apart: the length of their difference (the default), or 1 minus their cosine. */
  readonly distance?: "euclidean" | "cosine";
}

const tripletOptions = {
  margin: {
    kind: "number",
    least: 0,
    default: 5,
    help: "By how much nearer a text is to be to the one that belongs to it",
  },
  distance: {
    kind: "text",
    choices: ["euclidean", "cosine"],
    default: "euclidean",
    help: "How far two embeddings are apart: the length of their difference, or 1 minus their cosine",
  },
} as const satisfies TableOf<TripletOptions>;

/** Source: Schroff et al. 2015, "FaceNet", equation 1, with distances that are not squared, as sentence-transformers has it. */
export function triplet(options: TripletOptions = {}): Objective {
  checkOptions("triplet", options, tripletOptions);
  const { margin, distance } = resolveOptions(tripletOptions, options);
  return {
    ...tuples(3),
    name: "triplet",
    learner: "an embedder that learns triplets",
    formats: [tripletRows],
    samples: [
      { anchor: "Where?", positive: "there", negative: "a cat" },
      { anchor: "Who was it", positive: "the cat", negative: "no" },
      { anchor: "a question that is long", positive: "no", negative: "so" },
      { anchor: "How", positive: "so and so", negative: "at noon, or so" },
      { anchor: "When is it", positive: "at noon", negative: "x" },
    ],
    fits: (example) => (example as Tuple).others?.length === 2,
    sums(apply, columns) {
      const { texts: [anchor, positive, negative = positive], known } = embeddingsOf(apply, columns);
      const apart = distance === "cosine" ? (a: typeof anchor, b: typeof anchor) => sub(1, cosines(a, b)) : distances;
      const [near, far] = [apart(anchor, positive), apart(anchor, negative)];
      return {
        loss: sumKnown(known, max(add(sub(near, far), margin), 0)),
        right: sumKnown(known, convert(lt(near, far), "f32")),
      };
    },
    measures: [meanOf("accuracy", "right", true)],
  };
}

/** Triplets by their name. */
export const tripletKind: ObjectiveKind = kindOf(
  "a text is nearer to one that belongs to it than to one that does not, by a margin (triplet loss)",
  tripletOptions,
  triplet,
);
