/** Causal language modelling: each next token is predicted, of the part of a row that is to be learned. */
import { causalLoss, ignoredLabel } from "../../core/nn/loss.ts";
import { answersIn } from "../../data/chat_answers.ts";
import {
  type EncodeRowOptions,
  type Example,
  packExamples,
  padExamples,
  type TextTokenizer,
} from "../../data/examples.ts";
import { labelledPositions } from "../labelled_positions.ts";
import { chatRows, promptRows, type Row, textRows } from "../../data/rows.ts";
import type { Objective } from "./objective.ts";
import { labelProblem, oneSequence } from "./one_sequence.ts";

/** Text is learned whole; of a prompt and completion, the completion; of a chat, its last message. */
export const causalLM: Objective = {
  ...oneSequence,
  learner: "a language model",
  task: "CAUSAL_LM",
  unit: "tokens",
  formats: [textRows, promptRows, chatRows],
  samples: [
    { text: "a row" },
    { prompt: "2 + 2 = ", completion: "4" },
    { text: "a longer row of text" },
    { prompt: "a ", completion: "b" },
    { prompt: "the longest of ", completion: "these rows" },
    { text: "the end" },
  ],
  fits: () => true,
  encode,
  isLearnable: ({ labels }) => labels.slice(1).some((id) => id !== ignoredLabel),
  problem: ({ ids, labels }, bounds) =>
    labelProblem(ids, labels, bounds) ??
      (labels.length === ids.length ? null : `has ${ids.length} token ids and ${labels.length} labels: give one each.`),
  collate: padExamples,
  pack: packExamples,
  // The first token of each row is never predicted.
  count: ({ columns: { labels }, shape: [, seq] }) =>
    Array.from(labels.data).filter((label, i) => label !== ignoredLabel && i % seq > 0).length,
  places: labelledPositions,
  sums: (apply, { labels, places, ...inputs }) => ({
    loss: causalLoss(apply(inputs), labels, { reduction: "sum", places }),
  }),
  measures: [{ name: "perplexity", of: ({ loss, count }) => Math.exp(loss / count) }],
  /** The tokens before the first one that is learned; of a row that is learned whole, its first third. */
  prompt({ ids, labels }) {
    const masked = labels.findIndex((label) => label !== ignoredLabel);
    return masked > 0 ? ids.slice(0, masked) : ids.slice(0, Math.max(1, Math.floor(ids.length / 3)));
  },
};

/**
 * An end token is added to a text and to a completion; a chat template brings its own. A row is one text, tokenised at once, and
 * a token is learned where any character of it is to be: one that holds the end of a prompt and the beginning of its completion
 * belongs to the completion.
 */
function encode(row: Row, tokenizer: TextTokenizer, options: EncodeRowOptions = {}): Example {
  const { maskPrompt = true, learn = "last" } = options;
  const { eosId } = tokenizer;
  if ("text" in row) {
    const ids = tokenizer.encode(row.text);
    // A tokenizer may have put the end token there itself.
    if (eosId !== null && ids.at(-1) !== eosId) ids.push(eosId);
    return { ids, labels: ids };
  }
  if ("messages" in row) {
    const { text, spans } = answersIn(row, tokenizer, learn);
    const { ids, offsets } = tokenizer.encodeWithOffsets(text, { addSpecialTokens: false });
    if (!maskPrompt) return { ids, labels: ids };
    const isLearned = offsets.map(([start, end]) => spans.some((span) => start < span.end && end > span.start));
    return { ids, labels: ids.map((id, i) => isLearned[i] ? id : ignoredLabel) };
  }
  const { ids, offsets } = tokenizer.encodeWithOffsets(row.prompt + row.completion);
  const learned = maskPrompt ? row.prompt.length : -1;
  const labels = ids.map((id, i) => offsets[i][1] > learned ? id : ignoredLabel);
  if (eosId === null) return { ids, labels };
  const before = ids.at(-1) === eosId ? ids.length - 1 : ids.length;
  return { ids: [...ids.slice(0, before), eosId], labels: [...labels.slice(0, before), eosId] };
}
