/** Text from a model that knows its own step, parameters and tokenizer: nothing else has to be given. */
import type { ChatOptions, Message, Tokenizer } from "../load/tokenizer.ts";
import { type Finish, type Steps, type TokenStream, tokenStream } from "./generate.ts";
import { generateText, textNames, type TextOptions } from "./text_stream.ts";
import { checkList, checkOptions, type OptionNames } from "../../core/options.ts";
import { OptionError } from "../../core/errors.ts";
import { showArgument } from "../../core/ops/arguments.ts";

/** How text is generated; by default greedily, until the model ends it. */
export interface GeneratorOptions extends Omit<TextOptions, "params" | "tokenizer" | "maxNewTokens"> {
  /** The most tokens that are generated. Default 128. */
  readonly maxNewTokens?: number;
}

/** The same for an answer. */
export interface ChatGeneratorOptions extends GeneratorOptions, Pick<ChatOptions, "tools" | "documents"> {
  /** What the model is told before the conversation. */
  readonly system?: string;
}

const { params: _params, tokenizer: _tokenizer, ...generatorNames } = textNames;
const chatNames: OptionNames<ChatGeneratorOptions> = {
  ...generatorNames,
  ...{ system: true, tools: true, documents: true },
};

/** What a loaded language model can do, with or without an adapter. The pieces together are the text. */
export interface TextGenerator {
  /** Continues a text, piece by piece. Returns why it ended. */
  generate(text: string, options?: GeneratorOptions): AsyncGenerator<string, Finish, void>;
  /**
   * Answers a message, or the last of several, written by the model's chat template. Throws a {@link LowrankError} where
   * the model has none.
   */
  chat(messages: string | readonly Message[], options?: ChatGeneratorOptions): AsyncGenerator<string, Finish, void>;
}

/** What generating text needs of a model. */
export interface TextModel<P> extends Steps<P> {
  /** The parameters that `step` takes. */
  readonly params: P;
  /** The model's tokenizer. */
  tokenizer(): Tokenizer;
}

/** The most tokens that are generated unless a number is given. */
export const usualNewTokens = 128;

/** The tokens of a text that is to be continued. */
export function encodePrompt(tokenizer: Tokenizer, text: string): number[] {
  if (typeof text !== "string") throw new OptionError(`generate takes a text to continue, not ${showArgument(text)}`);
  return tokenizer.encode(text, { addSpecialTokens: "before" });
}

/** The tokens of a conversation that is to be answered. */
export function encodeChat(
  tokenizer: Tokenizer,
  messages: string | readonly Message[],
  { system, tools, documents }: Pick<ChatGeneratorOptions, "system" | "tools" | "documents"> = {},
): number[] {
  if (typeof messages !== "string") checkList("chat", "messages, or one as text,", messages);
  const said = typeof messages === "string" ? [{ role: "user", content: messages }] : messages;
  const all = system === undefined ? said : [{ role: "system", content: system }, ...said];
  const text = tokenizer.applyChatTemplate(all, { addGenerationPrompt: true, tools, documents });
  return tokenizer.encode(text, { addSpecialTokens: false });
}

/** The methods of a {@link TextGenerator} for an object that is a model, or has one under another name. */
export function textGenerator<S>(modelOf: (self: S) => TextModel<unknown>): TextGenerator & ThisType<S> {
  // A step's programs are compiled once, whatever parameters it is given.
  const streams = new WeakMap<object, TokenStream>();
  const streamOf = (model: Steps) => {
    const stream = streams.get(model.step) ?? tokenStream(model);
    streams.set(model.step, stream);
    return stream;
  };
  const textOf = (self: S, encode: (tokenizer: Tokenizer) => number[], options: GeneratorOptions) => {
    const model = modelOf(self);
    const tokenizer = model.tokenizer();
    const wanted = { maxNewTokens: usualNewTokens, ...options, params: model.params, tokenizer };
    return generateText(streamOf(model), encode(tokenizer), wanted);
  };
  return {
    async *generate(this: S, text, options = {}) {
      checkOptions("generate", options, generatorNames);
      return yield* textOf(this, (tokenizer) => encodePrompt(tokenizer, text), options);
    },
    async *chat(this: S, messages, given = {}) {
      checkOptions("chat", given, chatNames);
      const { system, tools, documents, ...options } = given;
      const encode = (tokenizer: Tokenizer) => encodeChat(tokenizer, messages, { system, tools, documents });
      return yield* textOf(this, encode, options);
    },
  };
}
