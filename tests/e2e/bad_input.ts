/**
 * Everything a user can get wrong on the command line, in files or in options: the command, the sentence it ends with, and
 * its exit code. `bad_input_test.ts` runs every entry; docs/errors.md is this table as a page.
 */
import { adapterFiles } from "./bad_adapters.ts";
import { combinations } from "./bad_combinations.ts";
import { data, folders } from "./bad_data.ts";
import { model, onModel } from "./bad_files.ts";
import { models, weightFiles } from "./bad_models.ts";
import { adapters } from "./bad_options.ts";
import { commandLine, configuration, interrupted, resuming } from "./bad_runs.ts";

/** One mistake. */
export interface BadInput {
  /** What is wrong, as a heading. */
  readonly name: string;
  /** The arguments of train.ts, or after `lowrank` of cli.ts, run in a folder that `files` has filled. */
  readonly args: readonly string[];
  /** A command line of `lowrank` that is run before, with success. */
  readonly before?: readonly string[];
  /** A program to run instead of train.ts, for what only a program can ask for. */
  readonly program?: string;
  /** What standard error must contain; `…` stands for a part that varies. */
  readonly sentence: string;
  readonly code: number;
  /** Fills the folder. A tiny model is already in `model`, and two usable rows are in `rows.jsonl`. */
  readonly files?: (folder: string) => Promise<void> | void;
  readonly env?: Readonly<Record<string, string>>;
  /** Send Ctrl-C once a step has been reported. */
  readonly interrupt?: boolean;
}

/** Mistakes in flags of train.ts. */
const flags: BadInput[] = [
  {
    name: "An unknown flag",
    args: ["--modle", "model"],
    sentence: "error: Unknown option '--modle'",
    code: 1,
  },
  {
    name: "Steps that are no number",
    args: [...onModel, "--steps", "many"],
    sentence: "error: --steps must be a whole number of at least 1, got many",
    code: 1,
  },
  {
    name: "A device that does not exist",
    args: [...onModel, "--device", "tpu"],
    sentence: "error: There is no device tpu: choose one of auto, cpu, webgpu",
    code: 1,
  },
  {
    name: "A device that is not there",
    args: [...onModel, "--device", "webgpu"],
    // No Vulkan driver and no EGL vendor: then there is no adapter on Linux.
    env: {
      VK_ICD_FILENAMES: "/nonexistent",
      VK_DRIVER_FILES: "/nonexistent",
      __EGL_VENDOR_LIBRARY_FILENAMES: "/nonexistent",
    },
    sentence: "error: …no WebGPU adapter…",
    code: 1,
  },
  {
    name: "An output folder that can't be written",
    args: [...onModel, "--steps", "1", "--out", "out/taken"],
    files: async (folder) => {
      await Deno.mkdir(`${folder}/out`);
      await Deno.writeTextFile(`${folder}/out/taken`, "a file");
    },
    sentence: "error: out/taken…can't be written: a part of its path is a file, not a folder; choose another folder.",
    code: 1,
  },
];

/** A model whose sums overflow. */
const overflowing = model({
  weights(tensors) {
    (tensors.get("ln_f.weight")!.data as Float32Array).fill(3e38);
  },
});

/** Runs that end before their last step. */
const runs: BadInput[] = [
  {
    name: "Generating with weights that overflow",
    args: ["lowrank", "generate", "--model", "model", "--device", "cpu", "--max-tokens", "3", "a"],
    files: overflowing,
    sentence:
      "error: The logits of prompt 1 after … new token… are not finite: the weights or the adapter hold such values…",
    code: 1,
  },
  {
    name: "Measuring weights that are not numbers",
    args: ["lowrank", "eval", ...onModel, "--device", "cpu"],
    files: model({
      weights(tensors) {
        (tensors.get("ln_f.weight")!.data as Float32Array).fill(NaN);
      },
    }),
    sentence: "error: The loss on rows.jsonl is not finite: the weights hold such values…load the model again.",
    code: 1,
  },
  {
    name: "A loss that is not finite",
    args: [...onModel, "--steps", "3"],
    files: overflowing,
    sentence:
      "error: The loss of step 1 is … and its gradients' norm …: the adapter as it was before that step is saved in " +
      "out/adapter; lower the learning rate, or look for broken rows and weights.",
    code: 1,
  },
  {
    name: "Ctrl-C",
    args: [...onModel, "--steps", "1000000"],
    interrupt: true,
    sentence: "Interrupted: finishing this step and saving; press Ctrl-C again to stop at once.…" +
      "Stopped after step … of 1000000; the adapter is saved in out/adapter.",
    code: 130,
  },
];

/** The whole table, by the part of the documentation that an entry belongs to. */
export const badInputs: Readonly<Record<string, readonly BadInput[]>> = {
  "The command line": commandLine,
  "Configuration files": configuration,
  "Flags": flags,
  "Models": models,
  "Weight files": weightFiles,
  "Data": [...data, ...folders],
  "Adapters": adapters,
  "Adapters' files": adapterFiles,
  "Combining adapters": combinations,
  "Runs": [...runs, ...interrupted],
  "Resuming": resuming,
};
