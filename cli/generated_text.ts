/** Text that is written while it is generated, and a summary of it. */
import type { Finish, TokenStream } from "../models/generate/generate.ts";
import { generateText, type TextOptions } from "../models/generate/text_stream.ts";
import { onInterrupt } from "../report/errors.ts";
import type { Terminal } from "./command.ts";

/** A text that was written. */
export interface WrittenText {
  readonly text: string;
  /** Tokens that were made for it. */
  readonly tokens: number;
  readonly finish: Finish | "interrupted" | "unread";
  /** Tokens a second from the second on; null where there are too few, in too short a time. */
  readonly perSecond: number | null;
}

/** Milliseconds after which signals are let in: while programs run on this thread, none is seen. */
const patience = 50;

/** Tokens that make a rate, unless they took a second. */
const minTimed = 8;

/** Writes the continuation of a prompt as it is made, and a line's end. Ctrl-C ends it after a whole character. */
export async function streamText(
  stream: TokenStream,
  prompt: readonly number[],
  options: TextOptions,
  terminal: Pick<Terminal, "write">,
): Promise<WrittenText> {
  using interrupt = onInterrupt(() => {});
  const times: number[] = [];
  const watched: TokenStream = async function* (...args) {
    let seen = performance.now();
    for await (const event of stream(...args)) {
      const now = performance.now();
      if (event.id !== null) times.push(now);
      if (now - seen > patience) {
        await new Promise((resolve) => setTimeout(resolve));
        seen = performance.now();
      }
      interrupt.signal.throwIfAborted();
      yield event;
    }
  };
  let text = "", finish: WrittenText["finish"] | null = null;
  const pieces = generateText(watched, prompt, options);
  try {
    while (finish === null) {
      const { value, done } = await pieces.next();
      if (done) finish = value;
      else {
        text += value;
        if (!terminal.write(value)) finish = "unread";
      }
    }
  } catch (error) {
    if (!interrupt.signal.aborted) throw error;
    finish = "interrupted";
  }
  terminal.write("\n");
  // The first token ends the prompt, and the program of the others is compiled before the second.
  const [, second] = times, last = times.at(-1)!;
  const timed = times.length - 2;
  const perSecond = timed >= minTimed || last - second >= 1000 ? timed / (last - second) * 1000 : null;
  return { text, tokens: times.length, finish, perSecond };
}

/** A line on what was made: how much, how fast, and why it ended. */
export function describeText({ tokens, finish, perSecond }: WrittenText, { maxNewTokens }: TextOptions): string {
  const ends = {
    stop: "ended by itself or a stop text",
    length: tokens === maxNewTokens ? "cut at --max-tokens" : "cut at the model's context",
    interrupted: "interrupted",
    unread: "nobody reads it any more",
  };
  const speed = perSecond === null ? "" : `, ${perSecond.toFixed(perSecond < 10 ? 1 : 0)} a second`;
  return `made      ${tokens} token${tokens === 1 ? "" : "s"}${speed}; ${ends[finish]}`;
}
