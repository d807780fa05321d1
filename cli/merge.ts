/** `lowrank merge`: writes the base with an adapter in it as a model of its own. */
import { describeDequantized } from "../formats/base_record.ts";
import { lockFolder } from "../train/checkpoint/folder_lock.ts";
import { checkMerge, mergeSafely } from "../formats/merge.ts";
import type { OptionTable } from "../train/options/option_table.ts";
import { describeMergeChecks } from "../report/describe.ts";
import { refuseOwnFolder, saveModel } from "../formats/save_model.ts";
import { adaptedOptions, openAdapted } from "./adapted_model.ts";
import { type Command, formatUsage, readFlags, UsageError } from "./command.ts";
import { FileError } from "../core/errors.ts";
import { pathKind } from "../models/load/files/byte_source.ts";

const table = {
  ...adaptedOptions,
  out: { kind: "text", value: "FOLDER", help: "The folder to write the model to" },
  dtype: {
    kind: "text",
    choices: ["f32", "f16", "bf16"],
    help: "How the merged model is stored; by default like the base, or as f32 if that is quantised",
  },
  overwrite: { kind: "switch", default: false, help: "Replace a model that the folder holds" },
  shardBytes: { kind: "whole", least: 1, default: 2e9, help: "The maximum size of a weights file, in bytes" },
  tied: {
    kind: "text",
    choices: ["split", "peft"],
    default: "split",
    help: "For an adapter on one use of a tied weight: give that use its own weight, or change both uses as PEFT does",
  },
} as const satisfies OptionTable;

export const command: Command = {
  name: "merge",
  summary: "write the base with an adapter in it as a model of its own",
  usage: formatUsage({
    call: "merge ADAPTER --out FOLDER [OPTIONS]",
    table,
    example: "lowrank merge out/adapter --out out/merged",
    more: "Sums are f32 and rounded once. Weights that are not finite are refused. The folder holds the base's\n" +
      "configuration and tokenizer, too: transformers and lowrank load it.",
  }),
  run: async (args, terminal) => {
    const { options, rest: [adapter] } = readFlags(args, table, 1);
    if (adapter === undefined) throw new UsageError("no adapter is given: name its folder or file");
    const { out, dtype, shardBytes, tied, overwrite } = options;
    if (out === undefined) throw new UsageError("no --out is given: name the folder to write the model into");
    using _held = lockFolder(out, { create: false });
    // Asked for another dtype, the sum is rounded to that one alone.
    using opened = await openAdapted(adapter, options, terminal, dtype === undefined ? undefined : "f32");
    const { tuned, model } = opened;
    refuseOwnFolder(out, model.path);
    if (!overwrite && pathKind(`${out}/config.json`) !== null) {
      throw new FileError(`${out} holds a model: add --overwrite to replace it, or choose another --out.`);
    }
    const dequantized = describeDequantized(model);
    if (dequantized !== null) terminal.warn(`note: ${dequantized}`);
    for (const { module, from } of tied === "peft" ? [] : tuned.unties) {
      terminal.warn(`note: ${module} gets a weight of its own, since only one use of ${from} is adapted`);
    }
    const merged = await mergeSafely(tuned, tuned.trainable, { tied });
    const checks = await checkMerge(tuned, tuned.trainable, merged);
    if (tied !== "peft") terminal.say(`merging   ${describeMergeChecks(checks)}`);
    const files = await saveModel(out, model as any, { params: merged, dtype, shardBytes });
    const weights = files.filter((name) => name.endsWith(".safetensors"));
    terminal.print(
      `${out}: ${weights.length === 1 ? weights[0] : `${weights.length} files of weights`}, ` +
        files.filter((name) => !weights.includes(name)).join(", "),
    );
    terminal.result({ adapter, base: opened.basePath, out, files, layers: checks });
  },
};
