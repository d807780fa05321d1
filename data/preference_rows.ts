/** Rows about which answers are better: pairs of answers, and answers that are judged alone. TRL's and LLaMA-Factory's shapes. */
import { answeredRow, isSpoken, isTalk, talkRow } from "./conversations.ts";
import { BadRow, type Json, type Row, type RowFormat } from "./rows.ts";

/** Two answers to one prompt, the better one first. */
export interface PreferenceRow {
  readonly chosen: Row;
  readonly rejected: Row;
  /** By how much the first is better, where the row says it. */
  readonly margin?: number;
}

/** An answer and whether it is wanted. */
export interface JudgedRow {
  readonly answer: Row;
  readonly desirable: boolean;
}

const isPrompt = (value: unknown) =>
  value === undefined || value === null || typeof value === "string" || isTalk(value);

/** LLaMA-Factory's `instruction` with its `input`, as one prompt of a chat. */
function instructionOf({ instruction, input }: Json): unknown {
  if (typeof instruction !== "string") return undefined;
  return [{
    role: "user",
    content: typeof input === "string" && input !== "" ? `${instruction}\n${input}` : instruction,
  }];
}

/** A prompt that two texts begin with: all that they have in common, before the space that an answer begins with. */
function commonPrompt(chosen: string, rejected: string): number {
  let n = 0;
  while (n < chosen.length && n < rejected.length && chosen[n] === rejected[n]) n++;
  return n > 0 && chosen[n - 1] === " " ? n - 1 : n;
}

/** A prompt and two answers; without a prompt, it is what both begin with. */
export const preferenceRows: RowFormat = {
  kind: "preference",
  form: '{"prompt": …, "chosen": …, "rejected": …}',
  keys: ["prompt", "chosen", "rejected", "conversations", "instruction", "input", "system", "tools", "margin"],
  keepsFloats: true,
  fits: ({ prompt, conversations, chosen, rejected }) =>
    isSpoken(chosen) && isSpoken(rejected) && isPrompt(prompt) && isPrompt(conversations),
  take(row, place): PreferenceRow {
    const { chosen, rejected } = row;
    const prompt = row.prompt ?? row.conversations ?? instructionOf(row);
    const margin = marginOf(row.margin, place);
    if (prompt === undefined && typeof chosen === "string" && typeof rejected === "string") {
      const end = commonPrompt(chosen, rejected);
      if (end === 0) {
        throw new BadRow(
          `${place} has no prompt, and its chosen and rejected texts begin differently: give the "prompt", or begin both with it.`,
        );
      }
      const [before, ...answers] = [chosen.slice(0, end), chosen.slice(end), rejected.slice(end)];
      const [first, second] = answers.map((completion) => ({ prompt: before, completion }));
      return { chosen: first, rejected: second, ...margin };
    }
    const [first, second] = [chosen, rejected].map((answer) => answeredRow(row, prompt, answer, place));
    return { chosen: first, rejected: second, ...margin };
  },
};

function marginOf(margin: unknown, place: string): { margin?: number } {
  if (margin === undefined || margin === null) return {};
  const number = Number(margin);
  if (typeof margin !== "string" && Number.isFinite(number)) return { margin: number };
  throw new BadRow(`${place} has the margin ${JSON.stringify(margin)}: give a number, or leave it out.`);
}

/** An answer and whether it is a good one. */
export const judgedRows: RowFormat = {
  kind: "judged answer",
  form: '{"prompt": …, "completion": …, "label": true or false}',
  keys: ["prompt", "completion", "label", "kto_tag", "messages", "conversations", "instruction", "input", "output"]
    .concat("system", "tools"),
  keepsFloats: true,
  fits: ({ prompt, completion, label, kto_tag, messages, conversations, instruction, output }) =>
    typeof (label ?? kto_tag) === "boolean" &&
    ((isPrompt(prompt) && isSpoken(completion)) || isTalk(messages ?? conversations) ||
      (typeof instruction === "string" && typeof output === "string")),
  take(row, place): JudgedRow {
    const { prompt, completion, label, kto_tag, messages, conversations, output } = row;
    const talk = messages ?? conversations;
    const answer = talk !== undefined && completion === undefined
      ? talkRow(row, talk, place)
      : answeredRow(row, prompt ?? instructionOf(row), completion ?? output, place);
    return { answer, desirable: (label ?? kto_tag) as boolean };
  },
};
