/** Mistakes in adapters' files, as rows of the table of bad inputs. The tiny model lies in `model`, adapters in `adapter`. */
import type { HostTensor } from "../../core/tensor.ts";
import { methods } from "../../lora/methods/mod.ts";
import { encodeSafetensors } from "../../models/load/safetensors/safetensors.ts";
import { f32Tensor, makeGguf } from "../../testing/make_gguf.ts";
import { file } from "./bad_files.ts";

export const key = (side: string) => `base_model.model.transformer.h.0.attn.c_attn.lora_${side}.weight`;
export const zeros = (...shape: number[]): HostTensor => ({
  shape,
  dtype: "f32",
  data: new Float32Array(shape.reduce((n, d) => n * d, 1)),
});

/** The kinds of adapters that are read. */
const peftTypes = [
  ...new Set(Object.values(methods).flatMap(({ peftType }) => peftType ? [JSON.stringify(peftType)] : [])),
].join(", ");

/** Writes an adapter of `c_attn`, with something wrong in it. */
export function adapter(
  change: (tensors: Map<string, HostTensor>, config: Record<string, unknown>) => void = () => {},
  { place = "adapter", metadata = {} }: { place?: string; metadata?: Record<string, string> } = {},
) {
  return async (folder: string) => {
    const tensors = new Map([[key("A"), zeros(2, 16)], [key("B"), zeros(48, 2)]]);
    const config: Record<string, unknown> = {
      ...{ peft_type: "LORA", base_model_name_or_path: "model", fan_in_fan_out: true },
      ...{ r: 2, lora_alpha: 4, target_modules: ["c_attn"] },
    };
    change(tensors, config);
    await Deno.mkdir(`${folder}/${place}`, { recursive: true });
    await Deno.writeTextFile(`${folder}/${place}/adapter_config.json`, JSON.stringify(config));
    const parts = encodeSafetensors(tensors, { format: "pt", ...metadata });
    await Deno.writeFile(
      `${folder}/${place}/adapter_model.safetensors`,
      new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer()),
    );
  };
}

/** Does several things to a folder in turn. */
export function all(...changes: ((folder: string) => Promise<void>)[]) {
  return async (folder: string) => {
    for (const change of changes) await change(folder);
  };
}

const without = (name: string) => (folder: string) => Deno.remove(`${folder}/${name}`);
const text = (name: string, contents: string) => file(name, new TextEncoder().encode(contents));

const verify = ["lowrank", "verify", "adapter", "--device", "cpu"];
const merge = ["lowrank", "merge", "adapter", "--device", "cpu"];
export const weights = "adapter/adapter_model.safetensors";
const config = "adapter/adapter_config.json";

const ggufHeader = {
  "general.architecture": { text: "gpt2" },
  "general.type": { text: "adapter" },
  "adapter.type": { text: "lora" },
};
const inspectGguf = ["lowrank", "inspect", "a.gguf", "--model", "model"];

/** The rows. */
export const adapterFiles = [
  {
    name: "No such adapter",
    args: ["lowrank", "verify", "nowhere"],
    sentence: "error: There is no adapter at nowhere: give the folder that holds adapter_config.json.",
    code: 1,
  },
  {
    name: "A folder that holds no adapter",
    args: ["lowrank", "verify", "model"],
    sentence: "error: model has no adapter_config.json, so it holds no adapter: give the folder that has one.",
    code: 1,
  },
  {
    name: "A folder of several adapters",
    args: verify,
    files: all(adapter(undefined, { place: "adapter/one" }), adapter(undefined, { place: "adapter/two" })),
    sentence: "error: adapter holds adapters in folders of their own. Adapters (2): one, two. Give one: adapter/one.",
    code: 1,
  },
  {
    name: "An adapter without its weights",
    args: verify,
    files: all(adapter(), without(weights)),
    sentence: "error: adapter has no adapter_model.safetensors: add the adapter's weights.",
    code: 1,
  },
  {
    name: "An adapter as a pickle",
    args: verify,
    files: all(adapter(), without(weights), text("adapter/adapter_model.bin", "")),
    sentence:
      "error: adapter has adapter_model.bin, a pickle, which can run code when it is read, and is not opened: " +
      "save the adapter as adapter_model.safetensors (PEFT's save_pretrained does).",
    code: 1,
  },
  {
    name: "An adapter_config.json that is not JSON",
    args: verify,
    files: all(adapter(), text(config, "{")),
    sentence: `error: ${config} is not JSON (…): restore it from its source.`,
    code: 1,
  },
  {
    name: "An adapter of another kind",
    args: verify,
    files: adapter((_, config) => config.peft_type = "BOFT"),
    sentence:
      `error: ${config} is of the peft_type "BOFT", and only ${peftTypes} are read: choose one of these, or merge ` +
      "this one with PEFT (merge_and_unload) where its method can be.",
    code: 1,
  },
  {
    name: "An option of an adapter with an impossible value",
    args: verify,
    files: adapter((_, config) => config.r = 0),
    sentence: `error: ${config} says r is 0, where a positive integer is expected.`,
    code: 1,
  },
  {
    name: "A rank far from that of the adapter's tensors",
    args: verify,
    files: adapter((_, config) => config.r = 1_000_000),
    sentence: `error: ${weights} does not fit its own configuration. Of the wrong shape (1): ${
      key("A")
    } is [2,16], and its rank is to be 1000000. Nothing is loaded: use the files that were saved together.`,
    code: 1,
  },
  {
    name: "A pattern of ranks that is no expression",
    args: verify,
    files: adapter((_, config) => config.rank_pattern = { "c_attn(": 4 }),
    sentence:
      `error: ${config} has the rank_pattern "c_attn(", which is not a valid regular expression (RE2's syntax): fix it.`,
    code: 1,
  },
  {
    name: "An adapter that names no base",
    args: verify,
    files: adapter((_, config) => config.base_model_name_or_path = null),
    sentence: "error: adapter does not say which model it belongs to: give it with --model",
    code: 1,
  },
  {
    name: "An adapter cut short",
    args: verify,
    files: async (folder: string) => {
      await adapter()(folder);
      await Deno.truncate(`${folder}/${weights}`, 400);
    },
    sentence: `error: ${weights} is not a complete safetensors file: …`,
    code: 1,
  },
  {
    name: "Keys that are no adapter's",
    args: verify,
    files: adapter((tensors) => tensors.set("h.0.attn.c_attn.weight", zeros(16, 48))),
    sentence:
      `error: ${weights} has keys that PEFT's files of peft_type LORA do not have. Unknown keys (1): h.0.attn.c_attn.weight. Save it again.`,
    code: 1,
  },
  {
    name: "A configuration of another method than the tensors",
    args: ["lowrank", "convert", "adapter", "--to", "peft", "--out", "out/copy"],
    files: adapter((_, config) => {
      for (const name of ["r", "lora_alpha"]) delete config[name];
      Object.assign(config, { peft_type: "IA3", feedforward_modules: [] });
    }),
    sentence: `error: ${weights} has keys that PEFT's files of peft_type IA3 do not have. Unknown keys (2): …`,
    code: 1,
  },
  {
    name: "Missing, unexpected and wrong-shape keys of an adapter",
    args: verify,
    files: adapter((tensors, config) => {
      tensors.set(key("B"), zeros(48, 3));
      tensors.set(key("A").replace("h.0", "h.7"), zeros(2, 16));
      config.target_modules = ["c_attn", "c_fc"];
    }),
    sentence: `error: ${weights} does not fit the model and its own configuration. ` +
      `Missing (1): ${key("A").replace("attn.c_attn", "mlp.c_fc")} and its B. ` +
      `Unexpected (1): ${key("A").replace("h.0", "h.7")}. Of the wrong shape (1): ${
        key("B")
      } is [48,3], expected [48,2]. ` +
      `Nothing is loaded: …`,
    code: 1,
  },
  {
    name: "Half of a pair",
    args: verify,
    files: adapter((tensors) => tensors.delete(key("B"))),
    sentence: `error: ${weights} does not fit the model and its own configuration. Missing (1): ${key("B")}. …`,
    code: 1,
  },
  {
    name: "Magnitudes that the configuration does not mention",
    args: verify,
    files: adapter((tensors) => tensors.set(key("A").replace("lora_A.weight", "lora_magnitude_vector"), zeros(48))),
    sentence: `error: ${weights} does not fit …Unexpected (1): …c_attn.lora_magnitude_vector. …`,
    code: 1,
  },
  {
    name: "Tokens that the model does not have",
    args: verify,
    files: adapter((tensors, config) => {
      tensors.set("base_model.model.transformer.wte.token_adapter.trainable_tokens_delta", zeros(1, 16));
      config.trainable_token_indices = { wte: [999] };
    }),
    sentence: `error: ${weights} can't be put on this model: trainableTokens of "wte" has 999: …`,
    code: 1,
  },
  {
    name: "An adapter of another model",
    args: verify,
    files: adapter((tensors) => {
      tensors.clear();
      tensors.set("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", zeros(2, 16));
    }),
    sentence: `error: ${weights} is not for this model. Modules that the model does not have (1): ` +
      `model.layers.0.self_attn.q_proj. Use the model that it was trained on.`,
    code: 1,
  },
  {
    name: "An adapter that was trained on another base",
    args: verify,
    files: adapter(undefined, {
      metadata: {
        "base.name": "other",
        "base.sha256": "0".repeat(64),
        "base.stored": "Q4_1",
        "base.quantization": "none",
      },
    }),
    sentence:
      `error: ${weights} was trained on other (Q4_1, sha256 000000000000…), and this base is model (F32, sha256 ` +
      `…): use the first, or allow any base (anyBase: true, --any-base) if the two are meant to be the same.`,
    code: 1,
  },
  {
    name: "An adapter that PiSSA initialised",
    args: verify,
    files: adapter((_, config) => config.init_lora_weights = "pissa"),
    sentence:
      `error: ${weights} was initialised by PiSSA and belongs to the base's weights as that changed them: make it a ` +
      `plain adapter of the base first (lowrank convert ADAPTER --to plain).`,
    code: 1,
  },
  {
    name: "An adapter that OLoRA initialised",
    args: verify,
    files: adapter((_, config) => config.init_lora_weights = "olora"),
    sentence:
      `error: ${weights} was initialised by OLoRA and belongs to the base's weights as that changed them: make it a ` +
      `plain adapter of the base first (lowrank convert ADAPTER --to plain --initial FOLDER, the adapter before training).`,
    code: 1,
  },
  {
    name: "Merging an activated LoRA",
    args: merge.concat("--out", "out/merged"),
    files: adapter((_, config) => config.alora_invocation_tokens = [5, 6]),
    sentence: `error: "h.0.attn.c_attn" can't be merged: it acts only from its invocation on, and merged weights act ` +
      `everywhere`,
    code: 1,
  },
  {
    name: "An adapter with a key of a later PEFT",
    args: verify,
    files: adapter((_, config) => config.use_next = true),
    sentence: `error: ${config} says use_next is true, which is not known here and may change what the adapter ` +
      `computes: take the key out if it does not.`,
    code: 1,
  },
  {
    name: "An adapter that diverged",
    args: [...merge, "--out", "out/merged"],
    files: adapter((tensors) => {
      for (const tensor of tensors.values()) tensor.data.fill(3e38);
    }),
    sentence:
      "error: the adapter is not merged: h.0.attn.c_attn.weight would hold values that are not finite; use an " +
      "earlier adapter, or a wider dtype",
    code: 1,
  },
  {
    name: "A plain adapter made plain",
    args: ["lowrank", "convert", "adapter", "--to", "plain", "--out", "out/plain"],
    files: adapter((_, config) => delete config.init_lora_weights),
    sentence: `error: ${weights} was not initialised by PiSSA: it is plain.`,
    code: 1,
  },
  {
    name: "Merging over the base",
    args: [...merge, "--out", "model"],
    files: adapter(),
    sentence: "error: model is the folder of the base model, which is not overwritten: choose another folder.",
    code: 1,
  },
  {
    name: "Merging over another model",
    args: [...merge, "--out", "other"],
    files: all(adapter(), async (folder) => {
      await Deno.mkdir(`${folder}/other`);
      await text("other/config.json", "{}")(folder);
    }),
    sentence: "error: other holds a model: add --overwrite to replace it, or choose another --out.",
    code: 1,
  },
  {
    name: "Merging without an output folder",
    args: merge,
    files: adapter(),
    sentence: "error: no --out is given: name the folder to write the model into",
    code: 2,
  },
  {
    name: "A .gguf file that is a model's, not an adapter's",
    args: ["lowrank", "verify", "a.gguf", "--model", "model"],
    files: file("a.gguf", makeGguf({ "general.architecture": { text: "gpt2" } }, {})),
    sentence: "error: a.gguf is of the general.type (none) and the adapter.type (none), where a LoRA adapter has " +
      '"adapter" and "lora": give an adapter\'s file.',
    code: 1,
  },
  {
    name: "A .gguf adapter of another architecture",
    args: inspectGguf,
    files: file("a.gguf", makeGguf({ ...ggufHeader, "general.architecture": { text: "llama" } }, {})),
    sentence:
      "error: a.gguf is for the architecture llama, and model/config.json is gpt2: give the model that it was " +
      "trained on.",
    code: 1,
  },
  {
    name: "Half of a pair in a .gguf adapter",
    args: inspectGguf,
    files: file(
      "a.gguf",
      makeGguf(ggufHeader, { "blk.0.attn_qkv.weight.lora_a": f32Tensor([2, 16], new Float32Array(32)) }),
    ),
    sentence:
      "error: a.gguf is not a complete adapter for model/config.json. Missing (1): blk.0.attn_qkv.weight.lora_b. …",
    code: 1,
  },
  {
    name: "What another tool's format can't express",
    args: ["lowrank", "convert", "adapter", "--to", "gguf", "--out", "out/a.gguf"],
    files: adapter((tensors) => tensors.set("base_model.model.lm_head.weight", zeros(257, 16))),
    sentence: `error: ${weights} has what llama.cpp's adapter format can't express. Without a place there (1): ` +
      `base_model.model.lm_head.weight. Merge it into its base (lowrank merge) and convert the merged model.`,
    code: 1,
  },
  {
    name: "An mlx-lm folder that is no adapter",
    args: ["lowrank", "inspect", "adapter", "--model", "model"],
    files: all(
      adapter(),
      (folder) => Deno.rename(`${folder}/${weights}`, `${folder}/adapter/adapters.safetensors`),
      text(config, '{"fine_tune_type":"full","num_layers":1}'),
    ),
    sentence: `error: ${config} says fine_tune_type is "full", and only "lora" and "dora" are read.`,
    code: 1,
  },
  {
    name: "Comparing an adapter with a model",
    args: ["lowrank", "diff", "adapter", "model"],
    files: adapter(),
    sentence: "error: adapter is an adapter and model is not: give two of the same kind.",
    code: 1,
  },
];
