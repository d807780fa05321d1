/** `lowrank eval`: how well a model, with or without an adapter, predicts held-out rows. */
import { LowrankError, OptionError } from "../core/errors.ts";
import { formatCount } from "../core/host/format.ts";
import type { Value } from "../core/ir/graph.ts";
import type { Model, TokenInputs } from "../core/model.ts";
import { type LoadedAdapter } from "../formats/adapter.ts";
import { loadAdapter } from "../formats/tuned_model.ts";
import { kindNamed, trainOptions } from "../train/options/config.ts";
import { findSplits } from "../data/files.ts";
import { evaluator } from "../train/evaluate.ts";
import { objectiveOfRows, purposeOfRows } from "../train/objectives/mod.ts";
import { writeMeasure } from "../train/objectives/objective.ts";
import type { OptionTable } from "../train/options/option_table.ts";
import type { Trainee } from "../train/trainee.ts";
import { anyBaseOption, logAdapter, namedBase, purposeOfAdapter } from "./adapter_input.ts";
import { downloadAdapter } from "./download.ts";
import { type Command, formatUsage, readFlags, type Terminal } from "./command.ts";
import { openRows, rowsOf } from "./open_data.ts";
import { modelOptions, openDeviceFor, outlineModelFor, type PredictiveModel } from "./open_model.ts";

const table = {
  ...modelOptions,
  adapter: { kind: "text", value: "FOLDER", help: "An adapter; without --model, the base that it names is used" },
  anyBase: anyBaseOption,
  data: trainOptions.data,
  split: {
    kind: "text",
    choices: ["train", "valid", "test"],
    help: "Which file of a folder; by default test, or valid if there is none",
  },
  batch: { ...trainOptions.batch, default: 8 },
  seq: trainOptions.seq,
  objective: trainOptions.objective,
  maskPrompt: trainOptions.maskPrompt,
  learn: trainOptions.learn,
  overflow: trainOptions.overflow,
  skipBadRows: trainOptions.skipBadRows,
} as const satisfies OptionTable;

export const command: Command = {
  name: "eval",
  summary: "measure a model, with or without an adapter, on held-out rows",
  usage: formatUsage({
    call: "eval --data PATH [--model PATH] [--adapter FOLDER] [OPTIONS]",
    table,
    example: "lowrank eval --adapter out/letters --data letters/ --split test",
  }),
  run: async (args, terminal) => {
    const { options } = readFlags(args, table);
    await measure(options, terminal);
  },
};

async function measure(
  options: ReturnType<typeof readFlags<typeof table>>["options"],
  terminal: Terminal,
): Promise<void> {
  const { anyBase, batch, seq } = options;
  const adapter = await downloadAdapter(options.adapter, terminal);
  const named = options.model ?? (adapter ? namedBase(adapter) ?? undefined : undefined);
  const path = chooseSplit(options.data, options.split);
  const rows = options.objective === undefined ? objectiveOfRows(path) : kindNamed(options.objective).make({});
  const purpose = adapter ? purposeOfAdapter(adapter, rows) : purposeOfRows(path, rows);
  const { objective } = purpose;
  using device = await openDeviceFor(options, terminal);
  using opened = await outlineModelFor({ ...options, model: named }, purpose, device, terminal);
  const { outline } = opened;
  if (outline.fresh?.length && !adapter) {
    throw new OptionError(`${named} has no trained classifying head to measure: give the --adapter that has one.`);
  }
  const traineeOf = (model: PredictiveModel): Trainee<unknown, unknown> => {
    const any = model as Model<unknown, TokenInputs, Value>;
    if (adapter) return loadAdapter<any, TokenInputs, Value>(adapter, any, { anyBase });
    return { trainable: model.params, frozen: null, apply: (params, _, inputs) => any.apply(params, inputs) };
  };
  const planned = traineeOf(outline);
  const tokenizer = outline.tokenizer();
  const context = outline.sizes.contextLength - (planned.inFront ?? 0);
  using data = openRows(
    "rows",
    path,
    tokenizer,
    { ...options, objective, context, classes: outline.labels, tableRows: outline.sizes.vocabSize },
    terminal,
  );
  if (adapter) logAdapter(adapter, planned as LoadedAdapter<any, any, any>, terminal);
  using model = await opened.load();
  const trainee = traineeOf(model);
  const padId = tokenizer.padId ?? 0;
  const found = await evaluator(trainee, rowsOf(data), { objective, batch, context: seq ?? context, padId })(
    trainee.trainable,
  );
  if (!Number.isFinite(found.loss)) {
    throw new LowrankError(
      `The loss on ${path} is not finite: the weights${
        adapter ? " or the adapter" : ""
      } hold such values, or values so large ` +
        `that sums overflow; ${adapter ? "use an earlier adapter" : "load the model again"}.`,
    );
  }
  const lines = [
    ["loss", found.loss.toFixed(4)],
    ...objective.measures.map((m) => [m.name, writeMeasure(m, found, 2, (x) => x.toFixed(3))]),
    ["over", `${formatCount(found.count)} ${objective.unit}`],
  ];
  terminal.print(lines.map(([name, value]) => `${name.padEnd(11)} ${value}`).join("\n"));
  terminal.result({ data: path, ...found });
}

function chooseSplit(path: string | undefined, split: "train" | "valid" | "test" | undefined): string {
  if (path === undefined) throw new OptionError("no data is named: give --data with a file or a folder");
  const splits = findSplits(path);
  if (split === undefined) return splits.test ?? splits.valid ?? splits.train;
  const found = splits[split];
  if (found === undefined) {
    throw new OptionError(`${path} has no ${split}.jsonl or ${split}.txt: choose another --split.`);
  }
  return found;
}
