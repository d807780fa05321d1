/** Masked language modelling: hidden words of a text are told. */
import { DataError, OptionError } from "../../core/errors.ts";
import { classificationLoss, ignoredLabel } from "../../core/nn/loss.ts";
import { type Example, padExamples } from "../../data/examples.ts";
import { rngFrom } from "../../data/rng.ts";
import { textRows } from "../../data/rows.ts";
import { resolveOptions, type TableOf } from "../options/option_table.ts";
import { labelledPlaces } from "../labelled_positions.ts";
import { kindOf, type ObjectiveKind } from "./kind.ts";
import type { Objective } from "./objective.ts";
import { labelProblem, oneSequence } from "./one_sequence.ts";
import { countLabels } from "./sums.ts";
import { checkOptions } from "../../core/options.ts";

/** How {@link maskedLM} learns. */
export interface MaskedOptions {
  /** The part of a text's tokens that is to be told. 0.15 by default. */
  readonly maskShare?: number;
}

const maskedOptions = {
  maskShare: {
    kind: "number",
    above: 0,
    most: 0.9,
    default: 0.15,
    help: "The part of a text's tokens that is to be told",
  },
} as const satisfies TableOf<MaskedOptions>;

/** A text of which some tokens are hidden whenever it is learned from. `labels` are the tokens that may be. */
interface Hidable extends Example {
  /** The token that stands for a hidden one. */
  readonly mask: number;
  /** How many tokens there are to take one of at random. */
  readonly words: number;
}

/**
 * A part of the tokens of each text is picked anew in every epoch; of these 80 % become the mask token, 10 % any token, and 10 %
 * stay. Source: Devlin et al. 2018, appendix A.1.
 */
export function maskedLM(options: MaskedOptions = {}): Objective {
  checkOptions("maskedLM", options, maskedOptions);
  const { maskShare } = resolveOptions(maskedOptions, options);
  if (!(maskShare > 0 && maskShare < 1)) {
    throw new OptionError(`maskShare is ${maskShare}: give a number between 0 and 1`);
  }
  return {
    ...oneSequence,
    name: "masked-lm",
    learner: "a model that tells hidden words",
    task: "MASKED_LM",
    unit: "tokens",
    formats: [textRows],
    notPacked: "a text with hidden words is read whole, and can't share a row: leave pack out.",
    samples: [
      { text: "a row of text" },
      { text: "a longer row of text" },
      { text: "the end" },
      { text: "one more" },
      { text: "what was hidden is told" },
    ],
    fits: (example) => "mask" in example,
    encode({ text }: { readonly text: string }, tokenizer): Hidable {
      const { maskId = null, vocabSize = 0 } = tokenizer;
      if (maskId === null) {
        throw new DataError(
          "the tokenizer has no mask token, by which hidden words are told: choose a model that was trained with one.",
        );
      }
      const { ids, offsets } = tokenizer.encodeWithOffsets(text);
      const labels = ids.map((id, i) => offsets[i][0] < offsets[i][1] ? id : ignoredLabel);
      return { ids, labels, mask: maskId, words: vocabSize };
    },
    isLearnable: ({ labels }) => labels.some((label) => label !== ignoredLabel),
    problem: ({ ids, labels }, bounds) =>
      labelProblem(ids, labels, bounds) ??
        (labels.length === ids.length
          ? null
          : `has ${ids.length} token ids and ${labels.length} labels: give one each.`),
    collate: (examples, size) =>
      padExamples(examples.map((example) => hide(example as Hidable, maskShare, size.draw ?? 0)), size),
    count: countLabels,
    places: labelledPlaces,
    sums: (apply, { labels, places, ...inputs }) => ({
      loss: classificationLoss(apply(inputs), labels, { reduction: "sum", places }),
    }),
    measures: [{ name: "perplexity", of: ({ loss, count }) => Math.exp(loss / count) }],
  };
}

/** An example with some tokens hidden, drawn from its own ids; one that is already so stays as it is. */
function hide(example: Hidable, share: number, draw: number): Example {
  const { ids, labels, mask, words } = example;
  if (mask === undefined) return example;
  const own = ids.reduce((hash, id) => (Math.imul(hash, 31) + id) | 0, ids.length);
  const rng = rngFrom(draw, own);
  const places = labels.flatMap((label, i) => label === ignoredLabel ? [] : [i]);
  const drawn = places.filter(() => rng.next() < share);
  const picked = new Set(drawn.length > 0 ? drawn : [places[Math.floor(rng.next() * places.length)]]);
  const shown = ids.map((id, i) => {
    if (!picked.has(i)) return id;
    const chance = rng.next(), other = Math.floor(rng.next() * words);
    return chance < 0.8 ? mask : chance < 0.9 ? other : id;
  });
  return { ...example, ids: shown, labels: ids.map((id, i) => picked.has(i) ? id : ignoredLabel) };
}

/** Masked language modelling by its name. */
export const maskedKind: ObjectiveKind = kindOf(
  "hidden words of a text are told (masked language modelling)",
  maskedOptions,
  maskedLM,
);
