/** `lowrank combine`: several adapters as one. */
import { FileError } from "../core/errors.ts";
import { pathKind } from "../models/load/files/byte_source.ts";
import { combineFiles } from "../formats/combine.ts";
import { writeAdapter } from "../formats/peft/files.ts";
import { ways } from "../lora/compose/sums.ts";
import { lockFolder } from "../train/checkpoint/folder_lock.ts";
import type { OptionTable } from "../train/options/option_table.ts";
import { anyBaseOption, readAnyAdapter } from "./adapter_input.ts";
import { type Command, formatUsage, readFlags, UsageError } from "./command.ts";
import { downloadAdapter } from "./download.ts";

const table = {
  weights: { kind: "list", value: "N,N", help: "How strongly each adapter counts, in their order; may be negative" },
  method: { kind: "text", choices: ways, default: "svd", help: "How, by the name of PEFT's combination_type" },
  out: { kind: "text", value: "FOLDER", help: "The folder to write the adapter to" },
  density: {
    kind: "number",
    above: 0,
    most: 1,
    help: "The fraction of values that is kept, where the method drops some (ties, dare, magnitude_prune)",
  },
  majoritySignMethod: {
    kind: "text",
    choices: ["total", "frequency"],
    help: "The sign that counts, for ties and dare_ties: of the sum (total), or that more adapters have (frequency)",
  },
  svdRank: { kind: "whole", least: 1, help: "The rank, for svd and its like; by default the largest of the adapters'" },
  svdClamp: {
    kind: "number",
    above: 0,
    most: 1,
    help: "The quantile above which values are cut off, for svd and its like",
  },
  seed: { kind: "whole", least: 0, help: "What dare draws by, 0 by default" },
  model: { kind: "text", value: "PATH", help: "The base; by default the one that the first adapter names" },
  anyBase: { ...anyBaseOption, help: "Combine adapters that record different bases" },
} as const satisfies OptionTable;

export const command: Command = {
  name: "combine",
  summary: "one adapter out of several, with a weight for each",
  usage: formatUsage({
    call: "combine ADAPTER ADAPTER… --weights N,N --out FOLDER [OPTIONS]",
    table,
    example: "lowrank combine out/a out/b --weights 0.7,0.3 --method cat --out out/both",
    more:
      "cat is the exact weighted sum, and its rank the sum of the ranks; svd is what of that sum the best adapter of a\n" +
      "smaller rank keeps. linear, ties, dare_linear, dare_ties and magnitude_prune add A to A and B to B, which takes\n" +
      "equal ranks; with _svd they work on the changes, of any ranks. The base is not read.",
  }),
  run: async (args, terminal) => {
    const { options, rest } = readFlags(args, table, Infinity);
    const { weights: given, method = table.method.default, out, model, anyBase, ...more } = options;
    if (rest.length < 2) throw new UsageError("combining takes at least two adapters: name their folders");
    if (given === undefined) throw new UsageError("no --weights are given: one number for each adapter, 0.7,0.3");
    const weights = given.map(Number), wrong = given.find((_, i) => !Number.isFinite(weights[i]));
    if (wrong !== undefined) throw new UsageError(`--weights has ${JSON.stringify(wrong)}, which is no number`);
    if (weights.length !== rest.length) {
      throw new UsageError(`--weights has ${weights.length} numbers for ${rest.length} adapters: give one for each`);
    }
    if (out === undefined) throw new UsageError("no --out is given: name the folder to write the adapter to");
    const places = await Promise.all(rest.map((adapter) => downloadAdapter(adapter, terminal)));
    for (const place of places) refuseOverwriting(place, out);
    using _held = lockFolder(out, { create: false });
    const adapters = [];
    for (const [i, place] of places.entries()) {
      adapters.push({ files: await readAnyAdapter(place, model), weight: weights[i] });
    }
    const contents = combineFiles(adapters, method, { ...more, anyBase, baseModel: model });
    writeAdapter(out, contents);
    const r = Number(contents.config.r), modules = contents.tensors.size / 2;
    terminal.print(
      `${out}: ${rest.map((adapter, i) => `${weights[i]} x ${adapter}`).join(" + ")} by ${method}, rank ${r}, ` +
        `${modules} modules`,
    );
    terminal.result({ adapters: rest, weights, method, out, r, modules });
  },
};

/** None of the adapters is written over. */
function refuseOverwriting(adapter: string, out: string): void {
  if (pathKind(out) === null || pathKind(adapter) === null) return;
  if (Deno.realPathSync(adapter) !== Deno.realPathSync(out)) return;
  throw new FileError(`${out} is one of the adapters, which are not overwritten: choose another folder.`);
}
