/**
 * Everything a user can get wrong on the command line, in files or in options: the command, the sentence it ends with, and
 * its exit code. `bad_input_test.ts` runs every entry; docs/errors.md is this table as a page.
 */
import { adapterFiles } from "./bad_adapters.ts";
import {
  adaptingProgram,
  config,
  enormousModel,
  file,
  ggufBytes,
  model,
  rows,
  safetensorsBytes,
  weights,
  without,
} from "./bad_files.ts";
import { commandLine, configuration, folders, interrupted, resuming } from "./bad_runs.ts";

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

const onModel = ["--model", "model", "--data", "rows.jsonl"];
const onGguf = ["--model", "model.gguf", "--data", "rows.jsonl"];

/** As much of a Qwen's configuration as is read before what is wrong with it. */
const tinyQwen = {
  model_type: "qwen2",
  vocab_size: 8,
  hidden_size: 8,
  intermediate_size: 8,
  num_hidden_layers: 1,
  num_attention_heads: 2,
};

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

/** Models that can't be loaded. */
const models: BadInput[] = [
  {
    name: "No such model",
    args: ["--model", "nowhere", "--data", "rows.jsonl"],
    sentence:
      "error: There is no model at nowhere: give a folder with config.json and model.safetensors, or a .gguf file.",
    code: 1,
  },
  {
    name: "A folder without config.json",
    args: onModel,
    files: without("model/config.json"),
    sentence:
      "error: model has no config.json, so it is no model: give the folder that the model was saved or downloaded into.",
    code: 1,
  },
  {
    name: "A config.json that is not JSON",
    args: onModel,
    files: config("{"),
    sentence: "error: model/config.json is not JSON (…): restore it from where it came.",
    code: 1,
  },
  {
    name: "An unknown architecture",
    args: onModel,
    files: config('{"model_type":"gpt3"}'),
    sentence:
      "error: model/config.json is of the architecture gpt3, and known are …gpt2…: choose a model of one of these.",
    code: 1,
  },
  {
    name: "A model that continues no text",
    args: onModel,
    files: config('{"model_type":"bert"}'),
    sentence: "error: model/config.json is of the architecture bert, which reads whole texts and continues none: …",
    code: 1,
  },
  {
    name: "An activation that is not built",
    args: onModel,
    files: config('{"model_type":"mistral","hidden_act":"gelu"}'),
    sentence: "error: model/config.json says hidden_act is gelu, and known is silu.",
    code: 1,
  },
  {
    name: "A scaling of rotations that is not built",
    args: onModel,
    files: config(JSON.stringify({ ...tinyQwen, rope_scaling: { type: "yarn", factor: 4 } })),
    sentence: 'error: model/config.json asks for rope scaling of type "yarn", and known are default, linear, llama3.',
    code: 1,
  },
  {
    name: "Layers of a kind that is not built",
    args: onModel,
    files: config(JSON.stringify({ ...tinyQwen, use_sliding_window: true, layer_types: ["chunked_attention"] })),
    sentence: 'error: model/config.json asks for layer_types of "chunked_attention", and known are full_attention, …',
    code: 1,
  },
  {
    name: "Weights that another tool has quantised",
    args: onModel,
    files: config('{"model_type":"gpt2","quantization_config":{"quant_method":"gptq"}}'),
    sentence: "error: model/config.json says the weights were quantised by gptq, which is not read: …",
    code: 1,
  },
  {
    name: "A configuration with a key missing",
    args: onModel,
    files: config('{"model_type":"gpt2"}'),
    sentence: "error: model/config.json does not say …: bring a whole configuration.",
    code: 1,
  },
  {
    name: "No weights",
    args: onModel,
    files: without("model/model.safetensors"),
    sentence:
      "error: model has neither model.safetensors nor model.safetensors.index.json: bring the model's weights as safetensors.",
    code: 1,
  },
  {
    name: "No tokenizer",
    args: onModel,
    files: without("model/tokenizer.json"),
    sentence: "error: model has no tokenizer.json: bring the model's, it makes the ids that the model was trained on.",
    code: 1,
  },
  {
    name: "Missing, unexpected and wrong-shape weights",
    args: onModel,
    files: model({
      weights(tensors) {
        const bias = tensors.get("ln_f.bias")!;
        tensors.delete("ln_f.bias");
        tensors.set("ln_g.bias", bias);
        tensors.set("wpe.weight", { dtype: "f32", shape: [16, 64], data: new Float32Array(1024) });
      },
    }),
    sentence: "error: The weights in model/model.safetensors do not fit its configuration. Missing (1): ln_f.bias. " +
      "Of the wrong shape (1): wpe.weight is [16,64], expected [64,16]. Unexpected (1): ln_g.bias. " +
      "Bring the weights and config.json of one and the same model.",
    code: 1,
  },
  {
    name: "Weights that can't stay packed",
    args: [...onModel, "--dtype", "packed"],
    sentence:
      "error: no weight of model/model.safetensors can stay packed: give a Llama's .gguf file of the type Q4_0, " +
      "Q4_1, Q8_0, Q4_K, Q6_K, or quantize the weights after loading them",
    code: 1,
  },
  {
    name: "More memory than there is",
    args: [...onModel, "--device", "cpu"],
    files: enormousModel,
    sentence:
      "error: model/model.safetensors needs 5.0 GB, one memory of cpu … holds 4.0 GB: use --dtype bf16 (2.5 GB)",
    code: 1,
  },
];

const oneTensor = '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}';
const overlapping = `${oneTensor.slice(0, -1)},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`;
const damaged = "error: model/model.safetensors is no whole safetensors file: ";

/** Weight files that are damaged. */
const weightFiles: BadInput[] = [
  {
    name: "A safetensors file cut short within its data",
    args: onModel,
    files: weights((bytes) => bytes.subarray(0, bytes.length - 100)),
    sentence: `${damaged}its tensors end at byte … and the file has …; …`,
    code: 1,
  },
  {
    name: "A safetensors file cut short within its header",
    args: onModel,
    files: weights((bytes) => bytes.subarray(0, 100)),
    sentence: `${damaged}its header should end at byte … and the file has 100; …`,
    code: 1,
  },
  {
    name: "A safetensors file of three bytes",
    args: onModel,
    files: weights((bytes) => bytes.subarray(0, 3)),
    sentence: `${damaged}it has 3 bytes and the header's length alone takes 8; …`,
    code: 1,
  },
  {
    name: "A safetensors header that claims to be enormous",
    args: onModel,
    files: file("model/model.safetensors", new Uint8Array(16).fill(0x7f)),
    sentence: `${damaged}it claims a header of … bytes and … are allowed; …`,
    code: 1,
  },
  {
    name: "A safetensors header that is not JSON",
    args: onModel,
    files: file("model/model.safetensors", safetensorsBytes("{a", 0)),
    sentence: `${damaged}its header is not JSON (…); …`,
    code: 1,
  },
  {
    name: "A hole between two tensors",
    args: onModel,
    files: file("model/model.safetensors", safetensorsBytes(oneTensor.replace("[0,8]", "[8,16]"), 16)),
    sentence: `${damaged}…hole…; …`,
    code: 1,
  },
  {
    name: "Two tensors that overlap",
    args: onModel,
    files: file("model/model.safetensors", safetensorsBytes(overlapping, 12)),
    sentence: `${damaged}b begins inside a…; …`,
    code: 1,
  },
  {
    name: "A tensor whose bytes do not fit its shape",
    args: onModel,
    files: file("model/model.safetensors", safetensorsBytes(oneTensor.replace("[2]", "[3]"), 8)),
    sentence: `${damaged}a is F32 [3], 12 bytes, and its data_offsets span 8; …`,
    code: 1,
  },
  {
    name: "A GGUF file that is something else",
    args: onGguf,
    files: file("model.gguf", new TextEncoder().encode("this is no model, only a line of text\n")),
    sentence: "error: model.gguf is no …GGUF file…",
    code: 1,
  },
  {
    name: "A GGUF file cut short",
    args: onGguf,
    files: file("model.gguf", ggufBytes(3).subarray(0, 20)),
    sentence: "error: model.gguf is no whole GGUF file: it has 20 bytes and its first fields take 24; …",
    code: 1,
  },
  {
    name: "A GGUF file of an old version",
    args: onGguf,
    files: file("model.gguf", ggufBytes(1)),
    sentence: "error: model.gguf is no whole GGUF file: it is of version 1, and 2 and 3 are read; …",
    code: 1,
  },
];

/** Data that can't be learned from. */
const data: BadInput[] = [
  {
    name: "No such data",
    args: ["--model", "model", "--data", "absent.jsonl"],
    sentence: "error: There is no file absent.jsonl: check the path.",
    code: 1,
  },
  {
    name: "Data of an unknown kind",
    args: ["--model", "model", "--data", "rows.csv"],
    sentence: "error: Cannot read data from rows.csv: its name must end in .jsonl (a row a line) or .txt (plain text).",
    code: 1,
  },
  {
    name: "Empty data",
    args: onModel,
    files: rows("\n"),
    sentence: "error: rows.jsonl is empty: there is nothing to learn from.",
    code: 1,
  },
  {
    name: "A row that is too short",
    args: onModel,
    files: rows('{"text":""}\n'),
    sentence: "error: rows.jsonl line 1 has nothing to learn (1 tokens): it needs at least one token after the first.",
    code: 1,
  },
  {
    name: "Data that is not UTF-8",
    args: onModel,
    files: file(
      "rows.jsonl",
      new Uint8Array([...new TextEncoder().encode('{"text":"ab"}\n{"text":"'), 0xff, 0x22, 0x7d]),
    ),
    sentence: "error: rows.jsonl line 2 is not UTF-8: convert the file to UTF-8.",
    code: 1,
  },
  {
    name: "A row that is not JSON",
    args: onModel,
    files: rows('{"text":"fine"}\n{"text":"cut\n'),
    sentence: "error: rows.jsonl line 2 is not JSON (…): mend the line or take it out.",
    code: 1,
  },
  {
    name: "A row with other keys",
    args: onModel,
    files: rows('{"text":"fine"}\n{"txt":"not"}\n'),
    sentence: 'error: rows.jsonl line 2 is an object with the keys ["txt"]: a row is {"text": …',
    code: 1,
  },
  {
    name: "A chat that ends with the user",
    args: onModel,
    files: rows('{"messages":[{"role":"user","content":"Hello?"}]}\n'),
    sentence:
      'error: rows.jsonl line 1: a chat to learn from must end with an "assistant" message, and this one ends with "user".',
    code: 1,
  },
  {
    name: "A row longer than the context",
    args: onModel,
    files: rows(`{"text":"fine"}\n{"text":"${"long ".repeat(20)}"}\n`),
    sentence:
      "error: rows.jsonl line 2 has 101 tokens and the model's context holds 64: shorten the row or cut it into several.",
    code: 1,
  },
];

/** Options of an adapter that can't be. */
const adapters: BadInput[] = [
  {
    name: "A target that matches nothing",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_atn"] }`),
    sentence: "error: …c_atn…did you mean …c_attn…",
    code: 1,
  },
  {
    name: "A rank of 0",
    args: [],
    program: adaptingProgram(`{ r: 0, alpha: 8, targets: ["c_attn"] }`),
    sentence: "error: …r …0…",
    code: 1,
  },
  {
    name: "A negative rank",
    args: [],
    program: adaptingProgram(`{ r: -2, alpha: 8, targets: ["c_attn"] }`),
    sentence: "error: …r …-2…",
    code: 1,
  },
  {
    name: "A rank larger than the layer",
    args: [],
    program: adaptingProgram(`{ r: 17, alpha: 8, targets: ["c_attn"] }`),
    sentence: "error: …17…16…",
    code: 1,
  },
  {
    name: "PEFT's name of an option",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_attn"], use_dora: true } as never`),
    sentence: "error: there is no option use_dora: it is called dora here",
    code: 1,
  },
  {
    name: "An option of PEFT's that is not built",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_attn"], alora_invocation_tokens: [1] } as never`),
    sentence: "error: the option alora_invocation_tokens of PEFT is not taken: …",
    code: 1,
  },
  {
    name: "A start that would have to be computed",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_attn"], init: "eva" as never }`),
    sentence: 'error: init "eva": EVA is not computed here: make the first values with PEFT and load the folder',
    code: 1,
  },
  {
    name: "Everything excluded",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_attn"], exclude: /.*/ }`),
    sentence: "error: exclude leaves none of the … modules that targets names",
    code: 1,
  },
  {
    name: "A layer that there is none of",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_attn"], layers: [9] }`),
    sentence: "error: layers has 9, but what targets names is in layers 0…",
    code: 1,
  },
  {
    name: "A part that a projection has not",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_attn[x]"] }`),
    sentence: 'error: target "c_attn[x]" matches no module of this model: did you mean "c_attn[…"?',
    code: 1,
  },
  {
    name: "A module that is adapted and trained in full",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_attn", "c_fc"], modulesToSave: ["c_fc"] }`),
    sentence: 'error: "h.0.mlp.c_fc" is in targets and, by modulesToSave, trained in full: name it in one of them',
    code: 1,
  },
  {
    name: "A token that the vocabulary has not",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_attn"], trainableTokens: [100000] }`),
    sentence: 'error: trainableTokens of "wte" has 100000: it takes row numbers from 0 to …, each once',
    code: 1,
  },
];

/** Runs that end before their last step. */
const runs: BadInput[] = [
  {
    name: "A loss that is not finite",
    args: [...onModel, "--steps", "3"],
    files: model({
      weights(tensors) {
        (tensors.get("ln_f.weight")!.data as Float32Array).fill(3e38);
      },
    }),
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
  "Runs": [...runs, ...interrupted],
  "Resuming": resuming,
};
