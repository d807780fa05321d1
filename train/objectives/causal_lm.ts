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
import { promptTalkRows, talkRows } from "../../data/conversations.ts";
import { labelledPositions } from "../labelled_positions.ts";
import { chatRows, promptRows, type Row, textRows } from "../../data/rows.ts";
import type { Objective } from "./objective.ts";
import { kindOf, type ObjectiveKind } from "./kind.ts";
import { labelProblem, oneSequence } from "./one_sequence.ts";
import { resolveOptions, type TableOf } from "../options/option_table.ts";
import { checkOptions } from "../../core/options.ts";

/** Text is learned whole; of a prompt and completion, the completion; of a chat, its last message. */
export const causalLM: Objective = {
  ...oneSequence,
  name: "causal-lm",
  learner: "a language model",
  task: "CAUSAL_LM",
  unit: "tokens",
  formats: [textRows, promptRows, chatRows, talkRows, promptTalkRows],
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

/** How {@link causal} learns. */
export interface CausalOptions {
  /** The part of each token's label that is spread over all tokens. 0 by default. */
  readonly labelSmoothing?: number;
  /** The weight of the squared logarithm of the sum of all tokens' exponentials. 0 by default. */
  readonly zLoss?: number;
}

/** The settings of {@link causal}. */
const causalOptions = {
  labelSmoothing: {
    kind: "number",
    least: 0,
    most: 0.99,
    default: 0,
    help: "The part of each token's label that is spread over all tokens",
  },
  zLoss: {
    kind: "number",
    least: 0,
    default: 0,
    help: "The weight of the squared logarithm of the sum of all tokens' exponentials, which keeps logits small",
  },
} as const satisfies TableOf<CausalOptions>;

/** {@link causalLM} with settings. The perplexity is that of the tokens alone, without what is added to their loss. */
export function causal(options: CausalOptions = {}): Objective {
  checkOptions("causal", options, causalOptions);
  const { labelSmoothing, zLoss } = resolveOptions(causalOptions, options);
  if (labelSmoothing === 0 && zLoss === 0) return causalLM;
  return {
    ...causalLM,
    sums(apply, { labels, places, ...inputs }) {
      const logits = apply(inputs);
      const given = { reduction: "sum", places } as const;
      const loss = causalLoss(logits, labels, { ...given, labelSmoothing, zLoss });
      return { loss, nll: causalLoss(logits, labels, given) };
    },
    measures: [{ name: "perplexity", of: ({ nll, count }) => Math.exp(nll / count) }],
  };
}

/** Causal language modelling by its name. */
export const causalKind: ObjectiveKind = kindOf(
  "texts and answers become likely, token by token",
  causalOptions,
  causal,
);

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
