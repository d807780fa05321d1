/** Conversations as templates can write them, or what is wrong with them in a sentence. */
import type { ChatTemplate } from "./chat_template.ts";
import type { Written } from "./interpreter.ts";
import { TemplateError } from "./values.ts";

/** A message, as far as it matters here. */
interface Turn {
  readonly role: string;
  readonly content?: unknown;
  readonly [key: string]: unknown;
}

/** The input of a template. */
export interface Conversation {
  readonly messages: readonly Turn[];
  readonly tools: readonly unknown[] | null;
  readonly documents: readonly unknown[] | null;
  readonly [key: string]: unknown;
}

/**
 * Writes a conversation. What a template has no place for would be left out in silence, so it is refused: tools, documents, calls
 * of tools. Contents in parts are given to a template that writes parts, and joined for one that writes texts.
 */
export function writeConversation(template: ChatTemplate, source: string, given: Conversation): Written {
  const { messages, tools, documents } = given;
  const needs = {
    tools: (tools ?? []).length > 0,
    documents: (documents ?? []).length > 0,
    tool_calls: messages.some((message) => Array.isArray(message.tool_calls) && message.tool_calls.length > 0),
  };
  for (const [name, isThere] of Object.entries(needs)) {
    if (isThere && !new RegExp(`\\b${name}\\b`).test(source)) {
      throw new TemplateError(`it has no place for ${name}, which would be left out`);
    }
  }
  if (!messages.some(({ content }) => Array.isArray(content))) return template({ ...given });
  return writeParts(template, given) ?? template({ ...given, messages: messages.map(joinParts) });
}

/** How a template writes contents that are lists of parts; null if it does not support them and would print or refuse them. */
function writeParts(template: ChatTemplate, given: Conversation): Written | null {
  let written;
  try {
    written = template({ ...given });
  } catch (error) {
    if (error instanceof TemplateError) return null;
    throw error;
  }
  return /["']type["']: ["']text["']/.test(written.text) ? null : written;
}

function joinParts(message: Turn): Turn {
  const { content } = message;
  if (!Array.isArray(content)) return message;
  return { ...message, content: content.map((part) => String(Object(part).text ?? "")).join("") };
}
