/** `lowrank convert`: an adapter in another tool's format. */
import { FileError } from "../core/errors.ts";
import { openDevice } from "../kernels/device/open.ts";
import { pathKind } from "../models/load/files/byte_source.ts";
import { tensorsByKey, writeAdapter } from "../formats/peft/files.ts";
import { writeGgufAdapter } from "../formats/gguf.ts";
import { writeMlxAdapter } from "../formats/mlx.ts";
import { lockFolder } from "../train/checkpoint/folder_lock.ts";
import type { OptionTable } from "../train/options/option_table.ts";
import { loraFromAny, plainFromPissa } from "../formats/peft/plain_files.ts";
import { adapterFormat, basePath, configOf, outlineBase, readAnyAdapter } from "./adapter_input.ts";
import { downloadAdapter } from "./download.ts";
import { type Command, formatUsage, readFlags, UsageError } from "./command.ts";
import { readLabels, writeLabels } from "./open_model.ts";

const table = {
  to: { kind: "text", choices: ["peft", "gguf", "mlx", "plain", "lora"], help: "The format to convert to" },
  out: { kind: "text", value: "PATH", help: "The folder, or for gguf the file, to write" },
  model: { kind: "text", value: "PATH", help: "The base; by default the one that the adapter names" },
  rank: { kind: "whole", least: 1, help: "With --to lora: its rank" },
  initial: { kind: "text", value: "FOLDER", help: "With --to plain: the PiSSA adapter before training" },
} as const satisfies OptionTable;

export const command: Command = {
  name: "convert",
  summary: "an adapter in another tool's format: PEFT, llama.cpp (gguf), mlx-lm; PiSSA, or any method, as plain LoRA",
  usage: formatUsage({
    call: "convert ADAPTER --to FORMAT --out PATH [OPTIONS]",
    table,
    example: "lowrank convert out/adapter --to gguf --out letters.gguf",
    more:
      "ADAPTER is a folder of PEFT's or mlx-lm's, or llama.cpp's .gguf file. What a format can't express (a magnitude, a\n" +
      "trained bias, a whole module) is refused by name: merge such an adapter first. --to lora --rank R makes LoRA of any\n" +
      "method that can be merged, as near to it as that rank can be, and says how near that is.",
  }),
  run: async (args, terminal) => {
    const { options: { to, out, model, initial, rank }, rest } = readFlags(args, table, 1);
    if (rest.length === 0) throw new UsageError("no adapter is given: name its folder or file");
    const adapter = await downloadAdapter(rest[0], terminal);
    if (to === undefined) throw new UsageError("no --to is given: choose peft, gguf, mlx, plain or lora");
    if ((to === "lora") !== (rank !== undefined)) {
      throw new UsageError(to === "lora" ? "--to lora takes a --rank: give a whole number" : "--rank is for --to lora");
    }
    if (out === undefined) throw new UsageError("no --out is given: name what to write");
    refuseOverwriting(adapter, out, to);
    using _held = lockFolder(out, { create: false });
    const files = await readAnyAdapter(adapter, model);
    if (to === "peft") {
      const named = model ?? files.config.base_model_name_or_path;
      const config = { ...files.raw, base_model_name_or_path: named };
      writeAdapter(out, { config, tensors: tensorsByKey(files.tensors, files.shared), metadata: files.metadata });
      keepLabels(adapter, out);
    } else if (to === "plain") {
      using device = await openDevice("cpu");
      using outlined = await outlineBase(basePath(adapter, model), adapter, { device });
      using base = await outlined.load();
      writeAdapter(out, await plainFromPissa<any>(files, base as any, initial));
    } else if (to === "lora") {
      using device = await openDevice("cpu");
      using outlined = await outlineBase(basePath(adapter, model), adapter, { device });
      using base = await outlined.load();
      const { contents, errors, error } = await loraFromAny<any>(files, base as any, { rank: rank!, baseModel: model });
      writeAdapter(out, contents);
      keepLabels(adapter, out);
      const worst = errors.reduce((a, b) => b.error <= a.error ? a : b);
      terminal.print(
        `${out}: ${adapter} as LoRA of rank ${rank}, ${errors.length} modules\n` +
          `error of all changes together ${short(error)} of their size; the largest is ${short(worst.error)}, ` +
          `in ${worst.path}`,
      );
      return terminal.result({ adapter, from: files.method.name, to, rank, out, error, modules: errors });
    } else {
      const write = to === "gguf" ? writeGgufAdapter : writeMlxAdapter;
      write(out, files, await configOf(basePath(adapter, model)));
    }
    terminal.print(`${out}: ${adapter} (${adapterFormat(adapter)}) as ${to}`);
    terminal.result({ adapter, from: adapterFormat(adapter), to, out });
  },
};

/** The labels of a classifier's adapter stand beside it. */
function keepLabels(adapter: string, out: string): void {
  const labels = adapterFormat(adapter) === "peft" ? readLabels(adapter) : null;
  if (labels !== null) writeLabels(out, labels);
}

const short = (x: number) => x.toPrecision(3);

/** An adapter is not written over itself, nor a folder's two kinds of configuration over each other. */
function refuseOverwriting(adapter: string, out: string, to: string): void {
  if (pathKind(out) === null) return;
  if (pathKind(adapter) !== null && Deno.realPathSync(adapter) === Deno.realPathSync(out)) {
    throw new FileError(`${out} is the adapter itself, which is not overwritten: choose another place.`);
  }
  const other = pathKind(out) !== "folder" ? null : to === "mlx" ? "adapter_model.safetensors" : "adapters.safetensors";
  if (other !== null && pathKind(`${out}/${other}`) !== null) {
    throw new FileError(`${out} holds an adapter of another format (${other}): choose another folder.`);
  }
}
