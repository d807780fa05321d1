/** Conversations as other tools write them: ShareGPT's turns, and what a prompt and its answer may each be. */
import type { Message } from "../models/load/tokenizer.ts";
import { BadRow, checkContents, isChat, type Json, type Row, type RowFormat } from "./rows.ts";

/** ShareGPT's and LLaMA-Factory's names of who speaks. */
const roles: Readonly<Record<string, string>> = {
  human: "user",
  user: "user",
  gpt: "assistant",
  assistant: "assistant",
  system: "system",
  observation: "tool",
  tool: "tool",
};

/** Whether a value is a turn of ShareGPT's. */
const isTurn = (value: unknown) => {
  const { from, value: text } = Object(value);
  return typeof from === "string" && typeof text === "string";
};

/** Whether a value is what somebody says: a text, a message, a list of messages, or turns of ShareGPT's. */
export function isSpoken(value: unknown): boolean {
  return typeof value === "string" || isTurn(value) || isChat([value]) || isTalk(value);
}

/** Whether a value is a list of messages or of turns. */
export function isTalk(value: unknown): boolean {
  return isChat(value) || (Array.isArray(value) && value.length > 0 && value.every(isTurn));
}

/** A message of a turn; `place` begins the sentence where nobody is known by that name. */
function messageOf(value: unknown, place: string): Message {
  if (!isTurn(value)) return value as Message;
  const { from, value: content } = value as { from: string; value: string };
  if (Object.hasOwn(roles, from)) return { role: roles[from], content };
  throw new BadRow(`${place} has a turn from ${JSON.stringify(from)}: give one of ${Object.keys(roles).join(", ")}.`);
}

/** What is said as messages; a text is a message of the role `speaker`. */
function messagesOf(value: unknown, speaker: string, place: string): readonly Message[] {
  if (typeof value === "string") return [{ role: speaker, content: value }];
  const messages = (Array.isArray(value) ? value : [value]).map((turn) => messageOf(turn, place));
  checkContents(messages, place);
  return messages;
}

/** What is besides the messages of a chat. */
function chatOf(row: Json, messages: readonly Message[], place: string): Row {
  const { system, tools } = row;
  const told = typeof system === "string" && system !== "" && messages[0]?.role !== "system";
  if (tools !== undefined && tools !== null && !Array.isArray(tools)) {
    throw new BadRow(`${place} has tools that are not a list: give a list of objects, not ${typeof tools}.`);
  }
  return {
    messages: [...(told ? [{ role: "system", content: system }] : []), ...messages],
    ...(Array.isArray(tools) && { tools: tools as readonly Record<string, unknown>[] }),
  };
}

/** A prompt, where there is one, and an answer to it as a row: plain text where both are, else a chat. */
export function answeredRow(row: Json, prompt: unknown, answer: unknown, place: string): Row {
  if (typeof prompt === "string" && typeof answer === "string") return { prompt, completion: answer };
  const before = prompt === undefined || prompt === null ? [] : messagesOf(prompt, "user", place);
  return chatOf(row, [...before, ...messagesOf(answer, "assistant", place)], place);
}

/** A conversation as a row. */
export function talkRow(row: Json, talk: unknown, place: string): Row {
  return chatOf(row, messagesOf(talk, "user", place), place);
}

/** ShareGPT's and LLaMA-Factory's conversations. */
export const talkRows: RowFormat = {
  kind: "conversation",
  form: '{"conversations": [{"from": …, "value": …}, …]}',
  keys: ["conversations", "system", "tools"],
  fits: ({ conversations }) => isTalk(conversations),
  take: (row, place) => talkRow(row, row.conversations, place),
};

/** TRL's conversational prompts with their completions. */
export const promptTalkRows: RowFormat = {
  kind: "prompt and completion as messages",
  form: '{"prompt": […], "completion": […]}',
  keys: ["prompt", "completion", "system", "tools"],
  keepsFloats: true,
  fits: ({ prompt, completion }) => isSpoken(prompt) && isSpoken(completion) && (isTalk(prompt) || isTalk(completion)),
  take: (row, place) => answeredRow(row, row.prompt, row.completion, place),
};
