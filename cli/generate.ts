/** `lowrank generate`: continues a text, with or without an adapter. */
import { OptionError } from "../core/errors.ts";
import { describeQuantization } from "../kernels/runtime/quantize.ts";
import { roundedTypes } from "../core/transforms/round_activations.ts";
import { activationTypes, tokenStream } from "../models/generate/generate.ts";
import type { LoadedModel } from "../models/mod.ts";
import { loadAdapter } from "../formats/tuned_model.ts";
import { mergeParams } from "../formats/merge.ts";
import { type OptionTable, resolveOptions } from "../train/options/option_table.ts";
import { Interrupted } from "../report/errors.ts";
import { unmergedSteps } from "../formats/unmerged.ts";
import { anyBaseOption, logAdapter, namedBase, purposeOfAdapter } from "./adapter_input.ts";
import { causalLM } from "../train/objectives/causal_lm.ts";
import { downloadAdapter } from "./download.ts";
import { type Command, formatUsage, readFlags, type Terminal, UsageError } from "./command.ts";
import { describeText, streamText } from "./generated_text.ts";
import { modelOptions, openDeviceFor, outlineModelFor } from "./open_model.ts";
import { encodeChat, encodePrompt, usualNewTokens } from "../models/generate/text_generator.ts";

const table = {
  ...modelOptions,
  adapter: { kind: "text", value: "FOLDER", help: "An adapter; without --model, the base that it names is used" },
  anyBase: anyBaseOption,
  system: { kind: "text", help: "The system message of a chat" },
  chat: { kind: "switch", default: true, help: "Format the text as a chat if the model has a chat template" },
  maxTokens: { kind: "whole", least: 1, default: usualNewTokens, help: "The maximum number of tokens to generate" },
  temperature: {
    kind: "number",
    least: 0,
    help: "Sample tokens, the more freely the higher; without it, take the most probable one",
  },
  topK: { kind: "whole", least: 1, help: "Sample from only this many of the most probable tokens" },
  topP: {
    kind: "number",
    least: 0,
    most: 1,
    help: "Sample from the most probable tokens whose probabilities add up to this",
  },
  minP: {
    kind: "number",
    least: 0,
    most: 1,
    help: "Sample from tokens with at least this fraction of the highest probability",
  },
  repetitionPenalty: { kind: "number", least: 0, help: "Divide the logits of tokens that have occurred by this" },
  seed: { kind: "whole", least: 0, most: 0xffffffff, default: 0, help: "Decides what is sampled" },
  stop: { kind: "texts", help: "Stop before this text; may be given several times" },
  activations: {
    kind: "text",
    choices: activationTypes,
    default: "f32",
    help: "Activations for packed weights: int8 rounds them to 8 bits as llama.cpp does, and is faster on the CPU",
  },
} as const satisfies OptionTable;

export const command: Command = {
  name: "generate",
  summary: "continue a text, with or without an adapter",
  usage: formatUsage({
    call: 'generate [--adapter FOLDER] [--model PATH] [OPTIONS] "TEXT"',
    table,
    example: 'lowrank generate --adapter out/letters "Dear shop, my kettle arrived broken."',
    more: "The text is written as it is made. TEXT is read from standard input where it is -.",
  }),
  run: async (args, terminal) => {
    const { options, rest } = readFlags(args, table, 1);
    const { anyBase, system, chat, maxTokens, ...others } = resolveOptions(table, options);
    const adapter = await downloadAdapter(others.adapter, terminal);
    const { temperature, topK, topP, minP, repetitionPenalty, seed, stop, activations, ...open } = others;
    if (rest.length === 0) throw new UsageError("no text is given: put it at the end, in quotes");
    const text = rest[0] === "-" ? await new Response(Deno.stdin.readable).text() : rest[0];
    const purpose = adapter ? purposeOfAdapter(adapter) : { objective: causalLM };
    if (!purpose.objective.prompt) {
      throw new OptionError(
        `the adapter in ${adapter} is for ${purpose.objective.learner}, which generates nothing: use lowrank eval.`,
      );
    }
    const path = open.model ?? (adapter ? namedBase(adapter) ?? undefined : undefined);
    using device = await openDeviceFor(open, terminal);
    using opened = await outlineModelFor({ ...open, model: path }, purpose, device, terminal);
    const { outline } = opened;
    const tokenizer = outline.tokenizer();
    // What does not fit is reported before the weights are read.
    if (adapter) logAdapter(adapter, loadAdapter(adapter, outline as LoadedModel<any>, { anyBase }), terminal);
    using model = await opened.load() as LoadedModel<any>;
    const tuned = adapter && loadAdapter(adapter, model, { anyBase });
    const packed = describeQuantization(model.params);
    // Merged, packed weights would be f32.
    const [steps, params] = !tuned
      ? [model, model.params]
      : packed || tuned.unmergeable !== null
      ? [unmergedSteps(model, tuned), { trainable: tuned.trainable, frozen: tuned.frozen }]
      : [model, mergeParams(tuned, tuned.trainable)];
    if (activations === "int8") warnRounding(packed, terminal);
    const prompt = chat && tokenizer.hasChatTemplate
      ? encodeChat(tokenizer, text, { system: system || undefined })
      : encodePrompt(tokenizer, system ? `${system}\n${text}` : text);
    const sampling = { temperature, topK, topP, minP, repetitionPenalty, seed };
    const stream = tokenStream(steps);
    const wanted = { ...sampling, params, tokenizer, stop, activations, maxNewTokens: maxTokens };
    const made = await streamText(stream, prompt, wanted, terminal);
    terminal.say(describeText(made, wanted));
    terminal.result({ prompt: text, text: made.text, tokens: made.tokens, finish: made.finish });
    if (made.finish === "interrupted") throw new Interrupted(`Interrupted after ${made.tokens} tokens.`);
  },
};

/** Says what rounding activations does to this model. */
function warnRounding(packed: ReturnType<typeof describeQuantization>, terminal: Terminal): void {
  const types = roundedTypes.filter((type) => packed?.[type]);
  if (types.length > 0) {
    return terminal.say(`numbers   activations are rounded to 8 bits where they meet ${types.join(" and ")} weights`);
  }
  terminal.warn(
    `note: --activations int8 changes nothing here: no weights are kept as ${roundedTypes.join(", ")}` +
      (packed ? "" : "; --dtype packed keeps those of a .gguf file"),
  );
}
