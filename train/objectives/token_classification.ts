/** Token classification: each word of a text has a tag (names and places, parts of speech). */
import { DataError } from "../../core/errors.ts";
import { classificationLoss, ignoredLabel } from "../../core/nn/loss.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { and, convert, eq, ne } from "../../core/ops/elementwise.ts";
import { argmax } from "../../core/ops/reduce.ts";
import { type EncodeRowOptions, type Example, padExamples, type TextTokenizer } from "../../data/examples.ts";
import { BadRow, type Json, type RowFormat } from "../../data/rows.ts";
import { classOf } from "./class_of.ts";
import type { Objective } from "./objective.ts";
import { labelProblem, oneSequence } from "./one_sequence.ts";
import { countLabels, meanOf } from "./sums.ts";

/** Words and their tags. */
interface TaggedWords {
  readonly words: readonly string[];
  readonly tags: readonly string[];
}

const wordsOf = ({ tokens, words }: Json) => tokens ?? words;
const tagsOf = ({ tags, ner_tags, pos_tags, labels }: Json) => tags ?? ner_tags ?? pos_tags ?? labels;

const taggedRows: RowFormat = {
  kind: "words and tags",
  form: '{"tokens": [word, …], "tags": [tag, …]}',
  keys: ["tokens", "words", "tags", "ner_tags", "pos_tags", "labels", "id"],
  fits(row) {
    const words = wordsOf(row), tags = tagsOf(row);
    return Array.isArray(words) && Array.isArray(tags) && words.every((word) => typeof word === "string") &&
      tags.every((tag) => typeof tag === "string" || Number.isInteger(tag));
  },
  take(row, place): TaggedWords {
    const words = wordsOf(row) as string[], tags = (tagsOf(row) as unknown[]).map(String);
    if (words.length === tags.length) return { words, tags };
    throw new BadRow(`${place} has ${words.length} words and ${tags.length} tags: give each word its tag.`);
  },
};

/** A text whose labels are tags. */
interface Tagged extends Example {
  readonly tagged: true;
}

/** Words with a tag each, such as IOB's; the model has an output for each tag. */
export const tokenClassification: Objective = {
  ...oneSequence,
  name: "token-classification",
  learner: "a tagger",
  task: "TOKEN_CLS",
  unit: "tokens",
  formats: [taggedRows],
  alone: "rows with tags teach a tagger, and then every row needs them",
  notPacked: "rows with tags are read whole, and can't share a row: leave pack out.",
  samples: [
    { tokens: ["Ada", "lives", "in", "Bern"], tags: ["B-PER", "O", "O", "B-LOC"] },
    { tokens: ["no", "name"], tags: ["O", "O"] },
    { tokens: ["Old", "Zurich", "is", "not", "New", "York"], tags: ["O", "B-LOC", "O", "O", "B-LOC", "I-LOC"] },
    { tokens: ["Grace", "Hopper"], tags: ["B-PER", "I-PER"] },
    { tokens: ["so", "it", "is"], tags: ["O", "O", "O"] },
  ],
  fits: (example) => "tagged" in example,
  classNames: ({ tags }: TaggedWords) => tags,
  encode,
  isLearnable: ({ labels }) => labels.some((label) => label !== ignoredLabel),
  problem: ({ ids, labels }, bounds) =>
    labelProblem(ids, labels, bounds) ??
      (labels.length === ids.length ? null : `has ${ids.length} token ids and ${labels.length} labels: give one each.`),
  collate: padExamples,
  count: countLabels,
  sums(apply, { labels, ...inputs }) {
    const logits = apply(inputs), known = ne(labels, ignoredLabel);
    return {
      loss: classificationLoss(logits, labels, { reduction: "sum" }),
      right: reduceSum(convert(and(known, eq(argmax(logits, 2), labels)), "f32")),
    };
  },
  measures: [meanOf("accuracy", "right", true)],
};

/** The first token of each word has its tag, as in transformers' examples; the others, and what frames the text, have none. */
function encode(
  { words, tags }: TaggedWords,
  tokenizer: TextTokenizer,
  { classes = [] }: EncodeRowOptions = {},
): Tagged {
  const ends: number[] = [];
  let text = "";
  for (const word of words) {
    text += text === "" ? word : ` ${word}`;
    ends.push(text.length);
  }
  if (text === "") throw new DataError("the row has no words: give at least one.");
  const { ids, offsets } = tokenizer.encodeWithOffsets(text);
  let tagged = -1;
  const labels = offsets.map(([start, end]) => {
    // A token may hold the space before its word, so that its last character says of which word it is.
    const word = start === end ? -1 : ends.findIndex((last) => end <= last);
    if (word <= tagged) return ignoredLabel;
    tagged = word;
    return classOf(tags[word], classes);
  });
  return { ids, labels, tagged: true };
}
