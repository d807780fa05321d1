/** Mistakes with `lowrank train`, `eval` and `generate`, as rows of the table of bad inputs: flags, configurations, resuming. */
import { file, onModel, rows } from "./bad_files.ts";
import { writeTinyModel } from "./tiny_model.ts";

const cliTrain = ["lowrank", "train", ...onModel, "--device", "cpu"];

/** Mistakes on the command line of `lowrank`. */
export const commandLine = [
  {
    name: "No command",
    args: ["lowrank"],
    sentence: "error: no command is given…Usage: lowrank COMMAND",
    code: 2,
  },
  {
    name: "An unknown command",
    args: ["lowrank", "tran"],
    sentence: "error: there is no command tran; did you mean train?\nsee lowrank --help",
    code: 2,
  },
  {
    name: "An unknown option of a command",
    args: ["lowrank", "train", "--mask-promt"],
    sentence: "error: there is no option --mask-promt; did you mean --mask-prompt?\nsee lowrank train --help",
    code: 2,
  },
  {
    name: "An option with a value that it does not take",
    args: [...cliTrain, "--schedule", "step"],
    sentence: "error: --schedule is step: give one of constant, linear, cosine",
    code: 2,
  },
  {
    name: "A number below 0",
    args: [...cliTrain, "--lr", "-1"],
    sentence: "error: --lr is -1: give a number above 0",
    code: 2,
  },
  {
    name: "Another tool's name of an option",
    args: [...cliTrain, "--learning-rate", "1e-4"],
    sentence: "error: there is no option --learning-rate; here it is --lr",
    code: 2,
  },
  {
    name: "Data that is not there",
    args: [...cliTrain, "--data", "absent"],
    sentence: "error: There is no file or folder absent: give --data with a .jsonl or .txt file, or a folder of them.",
    code: 1,
  },
  {
    name: "A label for a model that continues text",
    args: cliTrain,
    files: rows('{"text":"fine","label":0}\n'),
    sentence:
      "error: model/config.json is of the architecture gpt2, which generates text, and rows with a label teach a " +
      'classifier: choose a model of the architecture bert, roberta, xlm-roberta, distilbert, electra, modernbert, or give rows of "prompt" and "completion".',
    code: 1,
  },
  {
    name: "An option without its value",
    args: [...cliTrain, "--steps"],
    sentence: "error: --steps is empty: give a whole number of at least 1",
    code: 2,
  },
  {
    name: "A word too many",
    args: [...cliTrain, "letters"],
    sentence: 'error: "letters" is not expected here: options begin with --',
    code: 2,
  },
  {
    name: "A report without a folder",
    args: ["lowrank", "report"],
    sentence: "error: no run is named: give its folder",
    code: 2,
  },
  {
    name: "A report of a folder without a run",
    args: ["lowrank", "report", "model"],
    sentence: "error: Cannot read metrics from model/metrics.jsonl…train writes it into the folder of the adapter.",
    code: 1,
  },
  {
    name: "A run that does not fit the memory",
    args: [...cliTrain, "--batch", "80000", "--steps", "1", "--dry-run"],
    files: rows(`{"text":"${"ab ".repeat(16)}"}\n`.repeat(80_000)),
    sentence: "error: This run takes about …: use --checkpoint-blocks --batch …",
    code: 1,
  },
  {
    name: "More threads than help",
    args: [...cliTrain, "--threads", "1000"],
    sentence: "error: threads is 1000: give a whole number from 1 to …",
    code: 1,
  },
  {
    name: "More epochs than can be counted",
    args: [...cliTrain, "--epochs", "1e308"],
    sentence: "error: --epochs is 1e308: give a number above 0, up to 1000000",
    code: 2,
  },
  {
    name: "A whole model trained over its base",
    args: [...cliTrain, "--full", "--out", "model", "--steps", "1", "--dry-run"],
    files: rows(`{"text":"ab ab"}\n`),
    sentence: "error: model is the folder of the base model, which is not overwritten: choose another folder.",
    code: 1,
  },
  {
    name: "Steps and epochs",
    args: [...cliTrain, "--steps", "3", "--epochs", "1"],
    sentence: "error: steps and epochs are both given: give one of them",
    code: 2,
  },
  {
    name: "Options of an adapter for a whole model",
    args: [...cliTrain, "--full", "--targets", "c_attn"],
    sentence: "error: --targets is for adapters, and --full trains all of the model: leave one of them out",
    code: 2,
  },
  {
    name: "Another rank for an adapter that is there",
    args: [...cliTrain, "--adapter", "out/adapter", "--r", "4"],
    sentence: "error: --r is set by the --adapter to start from: leave one of them out",
    code: 2,
  },
  {
    name: "Any base for an adapter that is new",
    args: [...cliTrain, "--any-base"],
    sentence: "error: --any-base is for an --adapter to start from, and none is named: leave it out",
    code: 2,
  },
  {
    name: "Resuming and starting over",
    args: [...cliTrain, "--resume", "--overwrite"],
    sentence: "error: resume and overwrite are both given: continue the run that is there, or start over",
    code: 2,
  },
  {
    name: "No text to continue",
    args: ["lowrank", "generate", "--model", "model"],
    sentence: "error: no text is given: put it at the end, in quotes",
    code: 2,
  },
  {
    name: "An empty stop text",
    args: ["lowrank", "generate", "--model", "model", "--stop", "", "a"],
    sentence: "error: --stop is empty: give a text",
    code: 2,
  },
  {
    name: "Activations of an unknown type",
    args: ["lowrank", "generate", "--model", "model", "--activations", "int4", "a"],
    sentence: "error: --activations is int4: give one of f32, int8",
    code: 2,
  },
  {
    name: "No model",
    args: ["lowrank", "train", "--data", "rows.jsonl", "--device", "cpu"],
    sentence: "error: no model is named: give --model with a folder, a .gguf file or a name on the hub",
    code: 1,
  },
  {
    name: "No data",
    args: ["lowrank", "train", "--model", "model"],
    sentence: "error: no data is named: give --data with a file or a folder",
    code: 1,
  },
];

/** Mistakes in a configuration file. */
export const configuration = [
  {
    name: "A key that does not exist",
    args: [...cliTrain, "--config", "run.yaml"],
    files: file("run.yaml", new TextEncoder().encode("lr: 0.001\nbatch_size: 2\n")),
    sentence: "error: run.yaml line 2: there is no option batch_size",
    code: 1,
  },
  {
    name: "A key that is nearly right",
    args: [...cliTrain, "--config", "run.yaml"],
    files: file("run.yaml", new TextEncoder().encode("mask_prompt: true\n")),
    sentence: "error: run.yaml line 1: there is no option mask_prompt; did you mean mask-prompt?",
    code: 1,
  },
  {
    name: "A value of the wrong kind",
    args: [...cliTrain, "--config", "run.yaml"],
    files: file("run.yaml", new TextEncoder().encode("# a run\n\nsteps: many\n")),
    sentence: "error: run.yaml line 3: steps is many: give a whole number of at least 1",
    code: 1,
  },
  {
    name: "A configuration that is not YAML",
    args: [...cliTrain, "--config", "run.yaml"],
    files: file("run.yaml", new TextEncoder().encode("targets: [c_attn\n")),
    sentence: "error: run.yaml line … is not YAML (…).",
    code: 1,
  },
  {
    name: "No such configuration",
    args: [...cliTrain, "--config", "absent.yaml"],
    sentence: "error: There is no file absent.yaml: check the path.",
    code: 1,
  },
];

const aRun = [...cliTrain, "--steps", "2"];

/** Runs that can't be taken up again. */
export const resuming = [
  {
    name: "An output folder that holds a run",
    before: aRun,
    args: aRun,
    sentence:
      "error: out/adapter holds a run with a checkpoint of step 2: add --resume to continue it, --overwrite to start " +
      "over, or choose another --out.",
    code: 1,
  },
  {
    name: "Nothing to resume from",
    args: [...aRun, "--resume"],
    sentence: "error: There is no checkpoint in out/adapter/checkpoints to resume from: leave --resume out to start.",
    code: 1,
  },
  {
    name: "Resuming with other options",
    before: aRun,
    args: [...aRun, "--resume", "--lr", "0.01", "--steps", "4"],
    sentence: "error: The run in out/adapter/checkpoints/step-00000002 can't be resumed with other values: " +
      "lr was 0.0002 and is 0.01. Use the same ones, or start a new run in another folder.",
    code: 1,
  },
  {
    name: "Resuming with other data",
    before: aRun,
    files: (folder: string) => Deno.writeTextFile(`${folder}/other.jsonl`, '{"text":"another row"}\n'),
    args: [...aRun, "--resume", "--data", "other.jsonl"],
    sentence: 'error: …can\'t be resumed with other values: data rows was 2 and is 1; data sha256 was "…" and is "…"',
    code: 1,
  },
  {
    name: "Resuming on another base",
    before: aRun,
    files: (folder: string) =>
      writeTinyModel(`${folder}/other`, {
        weights: (tensors) => (tensors.get("wte.weight")!.data as Float32Array).fill(0.01, 0, 1),
      }),
    args: [...aRun, "--resume", "--model", "other"],
    sentence: 'error: …can\'t be resumed with other values: base sha256 was "…" and is "…"',
    code: 1,
  },
];

/** Runs of `lowrank` that end before their last step. */
export const interrupted = [
  {
    name: "Ctrl-C in lowrank train",
    args: [...cliTrain, "--steps", "1000000"],
    interrupt: true,
    sentence: "Interrupted: finishing this step and saving; press Ctrl-C again to stop at once.…" +
      "lowrank train --resume --out out/adapter continues after step …Stopped after step … of 1000000; the adapter is saved in out/adapter.",
    code: 130,
  },
];
