/**
 * Configurations that mean harm: of a model, a tokenizer, an adapter, a GGUF. What is opened is used as `lowrank generate`
 * uses it; it is that or one sentence, in bounded memory. `deno task test:fuzz` draws a tenth of its number of each, anew each
 * time; without a number some are tried, always the same.
 */
import { assert } from "@std/assert";
import fc from "fast-check";
import { LowrankError } from "../../core/errors.ts";
import { openDevice } from "../../kernels/device/open.ts";
import { tokenStream } from "../../models/generate/generate.ts";
import { loadAnyModel, loadModel } from "../../models/load/load_model.ts";
import { loadAdapter } from "../../formats/tuned_model.ts";
import { mergeParams } from "../../formats/merge.ts";
import { f32Tensor, makeGguf, type Meta, wholeLlama } from "../../testing/make_gguf.ts";
import { writeTinyModel } from "../e2e/tiny_model.ts";
import { type Change, changesOf, hostile, templates, withChanges } from "./hostile.ts";

const wanted = Deno.args[0] === undefined ? null : Number(Deno.args[0]);
const runs = wanted === null ? 60 : Math.ceil(wanted / 10);

/** The most that opening files of some kilobytes may add to the process. */
const maxMemory = 2 ** 30;

const root = await Deno.makeTempDir();
const device = await openDevice("cpu", { threads: 1, blas: false });
globalThis.addEventListener("unload", () => {
  device[Symbol.dispose]();
  Deno.removeSync(root, { recursive: true });
});

const cases = new URL("../goldens/cases/", import.meta.url).pathname;
const copy = (from: string, to: string) => {
  Deno.mkdirSync(to, { recursive: true });
  for (const { name } of Deno.readDirSync(from)) Deno.copyFileSync(`${from}/${name}`, `${to}/${name}`);
  return to;
};
const json = (path: string) => JSON.parse(Deno.readTextFileSync(path));

await writeTinyModel(`${root}/gpt2`);
const llama = copy(`${cases}llama-base/model`, `${root}/llama`);
const bert = copy(`${cases}bert-seqcls/model`, `${root}/bert`);
const adapted = copy(`${cases}gpt2-base/model`, `${root}/adapted`);
const adapter = copy(`${cases}gpt2-lora-patterns/adapter`, `${root}/adapter`);

/** Loads the model at a path and makes two tokens. */
async function generate(path: string, text?: string): Promise<void> {
  using model = await loadModel(path, { device });
  const prompt = text === undefined ? [1, 2, 3] : model.tokenizer().encode(text);
  const ids: number[] = [];
  for await (const { id } of tokenStream(model)(model.params, [prompt], { maxNewTokens: 2 })) {
    if (id !== null) ids.push(id);
  }
  if (text !== undefined) assert(typeof model.tokenizer().decode(ids) === "string");
}

/** A file of JSON, what is added to it, and its use. */
function jsonCase(name: string, path: string, keys: readonly string[], use: () => Promise<void>, values = hostile) {
  const whole = json(path);
  return {
    name,
    changes: changesOf(keys, values) as fc.Arbitrary<unknown>,
    use: async (changes: unknown) => {
      Deno.writeTextFileSync(path, JSON.stringify(withChanges(whole, changes as readonly Change[])));
      try {
        await use();
      } finally {
        Deno.writeTextFileSync(path, JSON.stringify(whole));
      }
    },
  };
}

const modelKeys = [
  ...[
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "head_dim",
    "num_key_value_heads",
    "attention_bias",
    "hidden_act",
  ],
  ...[
    "eos_token_id",
    "n_inner",
    "quantization_config",
    "id2label",
    "tie_word_embeddings",
    "architectures",
    "torch_dtype",
  ],
  ...[
    "layer_types",
    "partial_rotary_factor",
    "rope_parameters",
    "n_layer",
    "num_hidden_layers",
    "max_position_embeddings",
  ],
];
const tokenizerKeys = ["normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens", "merges", "pattern"];
const prompt = "a letter — of 12 words, aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!";

const ggufWhole: Record<string, Meta> = {
  ...wholeLlama("llama"),
  "llama.attention.head_count_kv": { u32: 2 },
  "llama.rope.dimension_count": { u32: 4 },
  "llama.rope.freq_base": { f32: 10000 },
};
const filled = (shape: number[]) => f32Tensor(shape, new Float32Array(shape.reduce((a, b) => a * b)).fill(0.01));
const ggufTensors = Object.fromEntries([
  ["token_embd.weight", filled([12, 8])],
  ["output_norm.weight", filled([8])],
  ...["attn_norm", "ffn_norm"].map((name) => [`blk.0.${name}.weight`, filled([8])]),
  ...["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"].map((name) => [
    `blk.0.${name}.weight`,
    filled([8, 8]),
  ]),
]);
const keys = [...Object.keys(ggufWhole), "llama.attention.key_length", "llama.attention.sliding_window", "split.count"];
/** A value as a GGUF holds it, where it has a type for it. */
function asMeta(value: unknown): Meta {
  if (typeof value === "number") return Number.isInteger(value) && value < 2 ** 32 ? { u32: value } : { f32: value };
  if (typeof value === "boolean") return { bool: value };
  if (Array.isArray(value) && typeof value[0] === "number") return { i32s: value };
  if (Array.isArray(value) && (value.length === 0 || typeof value[0] === "string")) return { texts: value };
  return { text: typeof value === "string" ? value : "x" };
}

const all: readonly { name: string; changes: fc.Arbitrary<unknown>; use(changes: unknown): Promise<void> }[] = [
  jsonCase("config.json of GPT-2", `${root}/gpt2/config.json`, modelKeys, () => generate(`${root}/gpt2`)),
  jsonCase("config.json of Llama", `${llama}/config.json`, modelKeys, () => generate(llama)),
  jsonCase("config.json of BERT", `${bert}/config.json`, modelKeys, async () => {
    using _ = await loadAnyModel(bert, { device });
  }),
  jsonCase(
    "tokenizer.json",
    `${root}/gpt2/tokenizer.json`,
    tokenizerKeys,
    () => generate(`${root}/gpt2`, prompt),
  ),
  jsonCase(
    "tokenizer_config.json",
    `${root}/gpt2/tokenizer_config.json`,
    ["chat_template", "bos_token", "eos_token", "pad_token", "added_tokens_decoder", "model_max_length"],
    async () => {
      using model = await loadModel(`${root}/gpt2`, { device });
      const tokenizer = model.tokenizer();
      tokenizer.decode(tokenizer.encode(prompt));
      if (tokenizer.hasChatTemplate) tokenizer.applyChatTemplate([{ role: "user", content: prompt }]);
    },
    fc.oneof(hostile, templates),
  ),
  jsonCase(
    "adapter_config.json",
    `${adapter}/adapter_config.json`,
    ["rank_pattern", "alpha_pattern", "target_modules", "layers_to_transform", "trainable_token_indices", "use_dora"],
    async () => {
      using model = await loadModel(adapted, { device });
      const tuned = loadAdapter<any, any, any>(adapter, model as any);
      mergeParams(tuned as any, tuned.trainable as any);
    },
  ),
  {
    name: "metadata of a GGUF",
    changes: fc.array(fc.tuple(fc.constantFrom(...keys), hostile), { minLength: 1, maxLength: 3 }),
    use: async (changes) => {
      const metadata = { ...ggufWhole };
      for (const [key, value] of changes as [string, unknown][]) metadata[key] = asMeta(value);
      Deno.writeFileSync(`${root}/model.gguf`, makeGguf(metadata, ggufTensors));
      await generate(`${root}/model.gguf`, "ab a");
    },
  },
];

for (const { name, changes, use } of all) {
  Deno.test(`${name}: used or refused in one sentence, for ${runs} that mean harm`, async () => {
    const before = Deno.memoryUsage().rss;
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(changes, async (changes) => {
        try {
          await use(changes);
        } catch (error) {
          if (!(error instanceof LowrankError)) throw error;
          assert(error.message.length < 2000 && !error.message.includes("\n"), error.message.slice(0, 4000));
          refused++;
        }
        const grown = Deno.memoryUsage().rss - before;
        assert(grown < maxMemory, `${grown} bytes more than before`);
      }),
      wanted === null ? { numRuns: runs, seed: 1 } : { numRuns: runs },
    );
    assert(refused > 0, "nothing was refused");
  });
}
