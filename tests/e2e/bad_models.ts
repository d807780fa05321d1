/** Models and files of weights that can't be loaded, as rows of the table of bad inputs. */
import {
  config,
  enormousModel,
  file,
  ggufBytes,
  model,
  onModel,
  safetensorsBytes,
  weights,
  without,
} from "./bad_files.ts";

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

/** Models that can't be loaded. */
export const models = [
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
      "error: model has no config.json, so it is not a model: give the folder that the model was saved or downloaded into.",
    code: 1,
  },
  {
    name: "A config.json that is not JSON",
    args: onModel,
    files: config("{"),
    sentence: "error: model/config.json is not JSON (…): restore it from its source.",
    code: 1,
  },
  {
    name: "A config.json that nests without end",
    args: onModel,
    files: config(`{"a":${"[".repeat(100_000)}${"]".repeat(100_000)}}`),
    sentence:
      "error: model/config.json nests 100001 lists and objects in each other, and at most 200 are read: it is not " +
      "what its name says.",
    code: 1,
  },
  {
    name: "More layers than the weights can have",
    args: onModel,
    files: config(`{"model_type":"gpt2","n_layer":10000000}`),
    sentence:
      "error: model/config.json says n_layer is 10000000, and the number of tensors in model/model.safetensors is …: " +
      "use the configuration and the weights of the same model.",
    code: 1,
  },
  {
    name: "An unknown architecture",
    args: onModel,
    files: config('{"model_type":"gpt3"}'),
    sentence:
      "error: model/config.json is of the architecture gpt3; supported: …gpt2…: choose a model of one of these.",
    code: 1,
  },
  {
    name: "A model that continues no text",
    args: onModel,
    files: config('{"model_type":"bert"}'),
    sentence: "error: model/config.json is of the architecture bert, which reads whole texts and generates none: …",
    code: 1,
  },
  {
    name: "An activation that is not supported",
    args: onModel,
    files: config('{"model_type":"mistral","hidden_act":"gelu"}'),
    sentence: "error: model/config.json says hidden_act is gelu; supported: silu.",
    code: 1,
  },
  {
    name: "A scaling of rotations that is not supported",
    args: onModel,
    files: config(JSON.stringify({ ...tinyQwen, rope_scaling: { type: "su", factor: 4 } })),
    sentence:
      'error: model/config.json asks for rope scaling of type "su"; supported: default, linear, dynamic, yarn, longrope, llama3.',
    code: 1,
  },
  {
    name: "Layers of a kind that is not supported",
    args: onModel,
    files: config(JSON.stringify({ ...tinyQwen, use_sliding_window: true, layer_types: ["chunked_attention"] })),
    sentence: 'error: model/config.json asks for layer_types of "chunked_attention"; supported: full_attention, …',
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
    sentence: "error: model/config.json does not say …: use a complete configuration.",
    code: 1,
  },
  {
    name: "No weights",
    args: onModel,
    files: without("model/model.safetensors"),
    sentence:
      "error: model has neither model.safetensors nor model.safetensors.index.json: add the model's weights as safetensors.",
    code: 1,
  },
  {
    name: "No tokenizer",
    args: onModel,
    files: without("model/tokenizer.json"),
    sentence:
      "error: model has no tokenizer.json: add the model's own, which makes the ids that the model was trained on.",
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
      "Use the weights and config.json of the same model.",
    code: 1,
  },
  {
    name: "Weights that can't stay packed",
    args: [...onModel, "--dtype", "packed"],
    sentence:
      "error: no weight of model/model.safetensors can stay packed: give a Llama's .gguf file of the type Q4_0, " +
      "Q4_1, Q8_0, Q4_K, Q6_K, or what bitsandbytes saved in 4 bits, or quantize the weights after loading them",
    code: 1,
  },
  {
    name: "More memory than there is",
    args: [...onModel, "--device", "cpu"],
    files: enormousModel,
    sentence:
      "error: model/model.safetensors needs 5.42 GB, one memory of cpu … holds 4.29 GB: use --dtype bf16 (2.71 GB)",
    code: 1,
  },
];

const oneTensor = '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}';
const overlapping = `${oneTensor.slice(0, -1)},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`;
const damaged = "error: model/model.safetensors is not a complete safetensors file: ";

/** Weight files that are damaged. */
export const weightFiles = [
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
    sentence: "error: model.gguf is not a …GGUF file…",
    code: 1,
  },
  {
    name: "A GGUF file cut short",
    args: onGguf,
    files: file("model.gguf", ggufBytes(3).subarray(0, 20)),
    sentence: "error: model.gguf is not a complete GGUF file: it has 20 bytes and its first fields take 24; …",
    code: 1,
  },
  {
    name: "A GGUF file of an old version",
    args: onGguf,
    files: file("model.gguf", ggufBytes(1)),
    sentence: "error: model.gguf is not a complete GGUF file: it is of version 1, and 2 and 3 are read; …",
    code: 1,
  },
];
