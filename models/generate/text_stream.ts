/** Streams tokens as text: whole characters only, and nothing of a stop string. */
import { OptionError } from "../../core/errors.ts";
import { type Finish, generateNames, type GenerateOptions, type TokenStream } from "./generate.ts";
import type { Tokenizer } from "../load/tokenizer.ts";
import { checkFunction, checkMembers, checkOptions, type OptionNames } from "../../core/options.ts";

/** What text is generated. */
export interface TextOptions<P = unknown> extends Omit<GenerateOptions, "isComplete"> {
  /** The parameters of the stream's model. */
  readonly params: P;
  /** Makes text of tokens, and knows those that end it. */
  readonly tokenizer: Pick<Tokenizer, "decode" | "endIds">;
  /** Strings at the first of which the text ends; they are not part of it. */
  readonly stop?: readonly string[];
}

const { isComplete: _isComplete, ...streamNames } = generateNames;

/** The names of {@link TextOptions}. */
export const textNames: OptionNames<TextOptions> = { ...streamNames, params: true, tokenizer: true, stop: true };

/** What a decoder puts in place of an incomplete character. */
const incomplete = "\uFFFD";

/** Text as it grows: what may be shown, and what has to wait for the tokens after it. */
export class DecodeStream {
  readonly #ids: number[] = [];
  #shown = 0;
  #text = "";
  #stopped = false;

  constructor(readonly decode: (ids: readonly number[]) => string, readonly stop: readonly string[] = []) {
    const empty = stop.findIndex((s) => s === "");
    if (empty >= 0) {
      throw new OptionError(`stop string ${empty + 1} is empty: it would end every text before it begins`);
    }
  }

  /** Whether a stop string has come. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** All that was given out. */
  get shown(): string {
    return this.#text.slice(0, this.#shown);
  }

  /** Adds a token; what can be shown now. */
  push(id: number): string {
    if (this.#stopped) return "";
    this.#ids.push(id);
    this.#text = this.decode(this.#ids);
    const places = this.stop.map((s) => this.#text.indexOf(s, Math.max(0, this.#shown - s.length))).filter((i) =>
      i >= 0
    );
    if (places.length > 0) {
      this.#stopped = true;
      this.#text = this.#text.slice(0, Math.min(...places));
      return this.#show(this.#text.length);
    }
    return this.#show(this.#text.length - this.#waiting());
  }

  /** What waited and is shown after all, now that nothing follows. */
  end(): string {
    return this.#stopped ? "" : this.#show(this.#text.length);
  }

  /** How much of the end may still become something else: parts of a character, the beginning of a stop string. */
  #waiting(): number {
    let held = 0;
    while (held < 4 && this.#text.at(-1 - held) === incomplete) held++;
    for (const s of this.stop) {
      for (let n = Math.min(s.length - 1, this.#text.length); n > held; n--) {
        if (this.#text.endsWith(s.slice(0, n))) held = n;
      }
    }
    return held;
  }

  #show(end: number): string {
    const piece = this.#text.slice(this.#shown, end);
    this.#shown = Math.max(this.#shown, end);
    return piece;
  }
}

/**
 * The continuation of one prompt (token ids) piece by piece; the pieces together are the text. Returns why it ended. Ends at
 * one of the tokenizer's end tokens, unless `stopIds` names others.
 *
 * @example
 * ```ts ignore
 * const stream = tokenStream(model);
 * const options = { params: model.params, tokenizer, maxNewTokens: 64 };
 * for await (const piece of generateText(stream, tokenizer.encode("Once"), options)) {
 *   Deno.stdout.writeSync(new TextEncoder().encode(piece));
 * }
 * ```
 */
export async function* generateText<P>(
  stream: TokenStream<P>,
  prompt: readonly number[],
  options: TextOptions<P>,
): AsyncGenerator<string, Finish, void> {
  checkOptions("generateText", options, textNames);
  checkFunction("generateText", stream);
  checkMembers("generateText", "{ params, tokenizer }", options, ["params", "tokenizer"]);
  const { params, tokenizer, stop, ...generating } = options;
  const text = new DecodeStream((ids) => tokenizer.decode(ids, { after: prompt }), stop);
  const stopIds = generating.stopIds ?? tokenizer.endIds;
  let finish: Finish = "length";
  for await (const event of stream(params, [prompt], { ...generating, stopIds })) {
    const piece = event.id === null ? "" : text.push(event.id);
    if (piece !== "") yield piece;
    if (event.finish !== null) finish = event.finish;
    if (text.stopped) return "stop";
  }
  const rest = text.end();
  if (rest !== "") yield rest;
  return finish;
}
