/** Finds the assistant's answers in the text that a model's template makes of a chat. */
import { DataError } from "../core/errors.ts";
import type { ChatOptions, Message, Tokenizer } from "../models/load/tokenizer.ts";

/** A conversation, and what its template gets besides it. */
export interface Chat extends Pick<ChatOptions, "tools" | "documents"> {
  /** The turns, the last of them the assistant's. */
  readonly messages: readonly Message[];
}

/** A part of a text, in UTF-16 code units. */
interface Span {
  readonly start: number;
  readonly end: number;
}

/**
 * The text of a chat and where its answers are: the last, or all of them. Where the template marks what the assistant says
 * (`{% generation %}`), those are the places. Else an answer begins where the text leaves that of the messages before it, as
 * the template writes them for a model that is to go on, and ends with the text of the messages up to it.
 *
 * @throws {DataError} where the chat does not end with the assistant, or the answer can't be separated from the rest
 */
export function answersIn(
  { messages, tools, documents }: Chat,
  tokenizer: Pick<Tokenizer, "writeChat">,
  which: "last" | "all",
): { readonly text: string; readonly spans: readonly Span[] } {
  const role = messages.at(-1)?.role;
  if (role !== "assistant") {
    throw new DataError(`a chat to learn from must end with an "assistant" message, and this one ends with "${role}".`);
  }
  const given = { tools, documents };
  const { text, generated } = tokenizer.writeChat(messages, given);
  if (generated.length > 0) return { text, spans: which === "all" ? generated : generated.slice(-1) };
  /** Where the text of the first messages ends. */
  const endOf = (count: number): number => {
    const start = tokenizer.writeChat(messages.slice(0, count), given).text;
    if (text.startsWith(start)) return start.length;
    throw new DataError(
      "the model's chat template writes the earlier messages differently once the answer follows, so the answer can't be separated " +
        'from the prompt: give rows of "prompt" and "completion" instead.',
    );
  };
  const last = messages.length - 1;
  const learned = messages.keys().filter((i) => i === last || (which === "all" && messages[i].role === "assistant"));
  const spans = Array.from(learned, (i): Span => {
    const prompt = tokenizer.writeChat(messages.slice(0, i), { ...given, addGenerationPrompt: true }).text;
    const alike = commonLength(text, prompt);
    // What begins an answer may hold more than the answer's text does: a place to think, for one.
    const start = alike === prompt.length || i === 0 ? alike : Math.max(alike, endOf(i));
    return { start, end: i === last ? text.length : endOf(i + 1) };
  });
  return { text, spans };
}

/** How many code units two texts begin with alike. */
function commonLength(a: string, b: string): number {
  let n = 0;
  while (n < a.length && n < b.length && a[n] === b[n]) n++;
  return n;
}
