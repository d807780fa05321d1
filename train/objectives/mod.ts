/** The objectives that there are, and which of them is meant where none is named. */
import type { DataOptions, DataSet, Examples } from "../../data/data_set.ts";
import type { Batch, EncodeRowOptions, Example, TextTokenizer } from "../../data/examples.ts";
import { openFile } from "../../data/files.ts";
import { classesOfRows, readerOfRows } from "../../data/jsonl.ts";
import type { Row } from "../../data/rows.ts";
import { causalKind, causalLM } from "./causal_lm.ts";
import { classificationKind } from "./classification.ts";
import { cosentKind, cosineError } from "./cosine.ts";
import { cpoKind, simpoKind } from "./cpo.ts";
import { distillationKind } from "./distillation.ts";
import { dpoKind } from "./dpo.ts";
import { kindOf, type ObjectiveKind } from "./kind.ts";
import { ktoKind } from "./kto.ts";
import { maskedKind } from "./masked_lm.ts";
import type { Objective } from "./objective.ts";
import { orpoKind } from "./orpo.ts";
import { rankingKind } from "./ranking.ts";
import { multiLabel, regression } from "./scored_texts.ts";
import { tokenClassification } from "./token_classification.ts";
import { tripletKind } from "./triplet.ts";
import { checkList, checkMembers, checkOptions, checkPath, type OptionNames } from "../../core/options.ts";

/** All of them by their names; rows and examples that fit several are those of the first. */
export const objectiveKinds: readonly ObjectiveKind[] = [
  classificationKind,
  kindOf("which of some labels a text has, any number of them", {}, () => multiLabel),
  kindOf("the number that a text has", {}, () => regression),
  kindOf("the tag of each word of a text", {}, () => tokenClassification),
  dpoKind,
  ktoKind,
  orpoKind,
  simpoKind,
  cpoKind,
  rankingKind,
  tripletKind,
  cosentKind,
  kindOf("the cosine of two texts is a given number", {}, () => cosineError),
  causalKind,
  maskedKind,
  distillationKind,
];

/** Each with its default settings, but for those that need one. */
export const objectives: readonly Objective[] = objectiveKinds.filter(({ needs }) => needs === undefined).map((
  { make },
) => make({}));

/** The objective that examples are of. */
export function objectiveOf(examples: Pick<Examples, "length" | "at">): Objective {
  let first: Example | undefined;
  for (let i = 0; i < examples.length && first === undefined; i++) first = examples.at(i);
  return objectives.find(({ fits }) => first && fits(first)) ?? causalLM;
}

/**
 * The objective that the rows of a file are of, by the first that can be used. Rows that can't be used are passed over: opening
 * the file names them.
 */
export function objectiveOfRows(path: string): Objective {
  return (path.endsWith(".jsonl") ? readerOfRows(path, objectives) : undefined) ?? causalLM;
}

/** The objective of a file's rows, and for rows with classes all that they name, sorted: the whole file is read for these. */
export function purposeOfRows(
  path: string,
  objective: Objective = objectiveOfRows(path),
): { readonly objective: Objective; readonly labels?: readonly string[] } {
  return { objective, ...(objective.classNames && { labels: classesOfRows(path, objective, objectives) }) };
}

/** The objective whose measures evaluations have, all of them, and most. */
export function objectiveOfMeasures(evaluations: readonly object[]): Objective {
  const has = (name: string) => evaluations.some((evaluation) => name in evaluation);
  const all = objectives.filter(({ measures }) => measures.every(({ name }) => has(name)));
  return all.toSorted((a, b) => b.measures.length - a.measures.length)[0] ?? causalLM;
}

/** The labels of a .jsonl file's rows, sorted; null where they have none. */
export function labelsOf(path: string): readonly string[] | null {
  checkPath("labelsOf", path);
  return purposeOfRows(path).labels ?? null;
}

/** How a file is opened. */
export interface OpenDataOptions extends Omit<DataOptions, "readers" | "reader"> {
  /** What is learned from the rows. By default what they are of. */
  readonly objective?: Objective;
}

const encodeRowNames: OptionNames<EncodeRowOptions> = { maskPrompt: true, learn: true, classes: true };
/** The names of {@link OpenDataOptions}. */
export const openDataNames: OptionNames<OpenDataOptions> = {
  ...encodeRowNames,
  ...{
    objective: true,
    context: true,
    seq: true,
    tableRows: true,
    overflow: true,
    skipBadRows: true,
    streamAbove: true,
  },
};

/**
 * Opens a file of data: `.jsonl` (one row per line) or `.txt` (one text, cut into runs of `context` tokens). Every line is
 * parsed at once; rows of a large file are tokenised later, when they are asked for.
 *
 * @throws {FileError} where the file can't be read
 * @throws {DataError} naming the file and the line that can't be learned from
 */
export function openData(path: string, tokenizer: TextTokenizer, options: OpenDataOptions): DataSet {
  checkOptions("openData", options, openDataNames);
  const { objective, ...reading } = options;
  const readers = [...new Set([...objective ? [objective] : [], ...objectives])];
  return openFile(path, tokenizer, { ...reading, readers, reader: objective });
}

/**
 * Tokenises a row as its objective does: see {@link causalLM}, and {@link classification} for a text with a label.
 *
 * @throws {DataError} for a chat that does not end with the assistant, and for a class that is not among the known ones
 */
export function encodeRow(row: Row, tokenizer: TextTokenizer, options: EncodeRowOptions = {}): Example {
  checkOptions("encodeRow", options, encodeRowNames);
  checkMembers("encodeRow", "a tokenizer", tokenizer, ["encode", "encodeWithOffsets", "writeChat"]);
  const { encode } = objectives.find(({ formats }) => formats.some(({ fits }) => fits({ ...row }))) ?? causalLM;
  return encode(row, tokenizer, options);
}

/**
 * Pads examples to one length: `seq`, or the longest of them rounded up to a multiple of `bucket` (few lengths, so few
 * programs to compile). Where `rows` are more than the examples, the rest is padding.
 *
 * @throws {DataError} where an example is longer than `seq`.
 */
export function makeBatch(
  examples: readonly Example[],
  options:
    & { padId: number; rows?: number; objective?: Objective }
    & ({ seq: number } | { bucket: number }),
): Batch {
  checkOptions("makeBatch", options, { padId: true, rows: true, objective: true, seq: true, bucket: true });
  checkList("makeBatch", "examples", examples);
  const { padId, rows = examples.length, objective = objectiveOf(examples), ...length } = options;
  const longest = Math.max(...examples.map(objective.lengthOf));
  const seq = "seq" in length ? length.seq : Math.ceil(longest / length.bucket) * length.bucket;
  return objective.collate(examples, { padId, seq, rows });
}
