import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DataError, FileError, ShapeError } from "../../core/errors.ts";
import { newInput } from "../../core/ir/graph.ts";
import { type HostTensor, upload } from "../../core/tensor.ts";
import { oracleRuntime as runtime } from "../../tests/runtimes.ts";
import { bert } from "../mod.ts";
import { openSafetensors, writeSafetensors } from "../load/safetensors/safetensors.ts";
import { loadAnyModel, loadModel } from "../load/load_model.ts";

const cases = `${import.meta.dirname}/../../tests/goldens/cases`;
const golden = `${cases}/bert-base/model`;
const options = { device: runtime.home };
const ints = (shape: number[], data: number[]) =>
  upload(runtime.home, { shape, dtype: "i32", data: Int32Array.from(data) });

/** Runs `body` on a folder with the golden encoder, its weights under other names; those named null are left out. */
async function rewritten(
  rename: (name: string) => string | null,
  body: (folder: string) => Promise<void>,
  more: Record<string, HostTensor> = {},
): Promise<void> {
  const folder = Deno.makeTempDirSync();
  using source = openSafetensors(`${golden}/model.safetensors`);
  const tensors = source.names.flatMap((name) => {
    const to = rename(name);
    return to === null ? [] : [[to, source.read(name)] as const];
  });
  writeSafetensors(`${folder}/model.safetensors`, new Map([...tensors, ...Object.entries(more)]));
  Deno.copyFileSync(`${golden}/config.json`, `${folder}/config.json`);
  try {
    await body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

const ids = [4, 90, 17, 33, 60];

async function states(path: string, row = ids, mask?: number[]): Promise<HostTensor> {
  using model = await bert.load(path, options);
  const inputs = {
    inputIds: ints([1, row.length], row),
    ...(mask && { attentionMask: ints([1, row.length], mask) }),
  };
  return await runtime.read(runtime.jit(model.apply)(model.params, inputs));
}

Deno.test("old files: gamma and beta, the prefix bert., the heads of pretraining beside the encoder", async () => {
  const old = (name: string) =>
    `bert.${name}`.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
  const head = { "cls.predictions.bias": { dtype: "f32", shape: [2], data: new Float32Array(2) } } as const;
  await rewritten(old, async (folder) => assertEquals(await states(folder), await states(golden)), head);
});

Deno.test("every token sees all others, and none sees padding", async () => {
  const bare = await states(golden);
  const other = await states(golden, [...ids.slice(0, 4), 61]);
  assert(bare.data[0] !== other.data[0], "the first token's state depends on the last token");
  const padded = await states(golden, [...ids, 7, 7], [1, 1, 1, 1, 1, 0, 0]);
  assertEquals(padded.data.slice(0, bare.data.length), bare.data);
});

Deno.test("a file without a pooler gives states and embeddings; its pooler is refused", () =>
  rewritten((name) => name.startsWith("pooler.") ? null : name, async (folder) => {
    using model = await bert.load(folder, options);
    const inputs = { inputIds: ints([1, 5], ids) };
    const embedding: HostTensor = await runtime.read(runtime.jit(model.embed)(model.params, inputs));
    const length = Math.hypot(...embedding.data);
    assert(Math.abs(length - 1) < 2 ** -22, `the embedding's length is ${length}`);
    assertThrows(() => model.pool(model.params, inputs), FileError, "this BERT has no pooler");
  }));

Deno.test("packed documents, rows past the context and unbuilt configurations are refused", async () => {
  using model = await bert.load(golden, options);
  const row = (length: number) => newInput({ shape: [1, length], dtype: "i32" });
  const packed = { inputIds: row(4), documentStart: row(4) };
  assertThrows(() => model.apply(model.params, packed), ShapeError, "documents can't be packed");
  assertThrows(() => model.apply(model.params, { inputIds: row(41) }), DataError, "the model's context is 40");
  const refused = (keys: Record<string, unknown>, sentence: string) =>
    rewritten((name) => name, async (folder) => {
      const config = JSON.parse(Deno.readTextFileSync(`${folder}/config.json`));
      Deno.writeTextFileSync(`${folder}/config.json`, JSON.stringify({ ...config, ...keys }));
      await assertRejects(() => bert.load(folder, options), FileError, sentence);
    });
  await refused({ position_embedding_type: "relative_key" }, "is relative_key; supported: absolute");
  await refused({ hidden_act: "relu" }, "hidden_act is relu; supported: gelu, gelu_new, gelu_pytorch_tanh");
  await refused({ is_decoder: true }, "is_decoder is true, and only models with false can be built");
  await refused({ num_attention_heads: 5 }, "hidden_size is 48 and num_attention_heads 5: heads must divide the width");
  await refused({ quantization_config: { quant_method: "gptq" } }, "were quantised by gptq, which is not read");
});

Deno.test("a model of any kind is loaded as what its file says; an encoder continues no text", async () => {
  using encoder = await loadAnyModel(golden, options);
  using classifier = await loadAnyModel(`${cases}/bert-seqcls/model`, options);
  using language = await loadAnyModel(`${cases}/qwen3-base/model`, options);
  assertEquals("embed" in encoder, true);
  assertEquals("labels" in classifier && classifier.labels, ["LABEL_0", "LABEL_1", "LABEL_2"]);
  assertEquals("step" in language && language.architecture, "qwen3");
  await assertRejects(() => loadModel(golden, options), FileError, "reads whole texts and generates none");
});
