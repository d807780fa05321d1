/** `lowrank generate`: continues a text, with or without an adapter. */
import { OptionError } from "../core/errors.ts";
import { readAdapter } from "../train/adapter_files.ts";
import { answerer } from "../train/answers.ts";
import { mergeParams } from "../train/merge.ts";
import { type OptionTable, settleOptions } from "../train/option_table.ts";
import { anyBaseOption, loadAdapterFor } from "./adapter_input.ts";
import { bringAdapter } from "./bring.ts";
import { type Command, formatUsage, readFlags, UsageError } from "./command.ts";
import { isClassifier, loadModelFor, modelOptions, openDeviceFor, readLabels } from "./open_model.ts";

const table = {
  ...modelOptions,
  adapter: { kind: "text", value: "FOLDER", help: "An adapter; it names its base where no --model is given" },
  anyBase: anyBaseOption,
  system: { kind: "text", help: "What a chat model is told first" },
  chat: { kind: "switch", default: true, help: "Write the text as a chat where the model has a template for that" },
  maxTokens: { kind: "whole", least: 1, default: 128, help: "The most tokens that are generated" },
  temperature: {
    kind: "number",
    least: 0,
    help: "Draw tokens, the more freely the higher; without it the most probable",
  },
  topK: { kind: "whole", least: 1, help: "Draw among so many of the most probable tokens" },
  topP: { kind: "number", least: 0, most: 1, help: "Draw among the most probable tokens of this probability together" },
  minP: { kind: "number", least: 0, most: 1, help: "Draw among tokens of this share of the highest probability" },
  repetitionPenalty: { kind: "number", least: 0, help: "Divide the logits of tokens that occurred by this" },
  seed: { kind: "whole", least: 0, default: 0, help: "Decides what is drawn" },
} as const satisfies OptionTable;

export const command: Command = {
  name: "generate",
  summary: "continue a text, with or without an adapter",
  usage: formatUsage({
    call: 'generate [--adapter FOLDER] [--model PATH] [OPTIONS] "TEXT"',
    table,
    example: 'lowrank generate --adapter out/letters "Dear shop, my kettle arrived broken."',
    more: "TEXT is read from standard input where it is -.",
  }),
  run: async (args, terminal) => {
    const { options, rest } = readFlags(args, table, 1);
    const { anyBase, system, chat, maxTokens, ...others } = settleOptions(table, options);
    const adapter = await bringAdapter(others.adapter, terminal);
    const { temperature, topK, topP, minP, repetitionPenalty, seed, ...open } = others;
    if (rest.length === 0) throw new UsageError("no text is given: put it at the end, in quotes");
    const text = rest[0] === "-" ? await new Response(Deno.stdin.readable).text() : rest[0];
    if (adapter && readLabels(adapter)) {
      throw new OptionError(
        `the adapter in ${adapter} is for a classifier, which generates nothing: use lowrank eval.`,
      );
    }
    const path = open.model ?? (adapter && readAdapter(adapter).config.base_model_name_or_path) ?? undefined;
    using device = await openDeviceFor(open, terminal);
    using model = await loadModelFor({ ...open, model: path }, { device, terminal });
    if (isClassifier(model)) {
      throw new OptionError(`${path} is a classifier, which generates nothing: use lowrank eval.`);
    }
    const tokenizer = model.tokenizer();
    const tuned = adapter && loadAdapterFor(adapter, model, anyBase, terminal);
    const params = tuned ? mergeParams(tuned, tuned.trainable) : model.params;
    const messages = [...(system ? [{ role: "system", content: system }] : []), { role: "user", content: text }];
    const prompt = chat && tokenizer.hasChatTemplate
      ? tokenizer.encode(tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true }), {
        addSpecialTokens: false,
      })
      : tokenizer.encode(system ? `${system}\n${text}` : text);
    const sampling = { temperature, topK, topP, minP, repetitionPenalty, seed };
    const [answer] = await answerer(model, tokenizer, { ...sampling, maxNewTokens: maxTokens })(params, [prompt]);
    terminal.print(answer);
    terminal.result({ prompt: text, text: answer });
  },
};
