import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DataError, FileError, OptionError } from "../core/errors.ts";
import { type HostTensor, type Tensor, tensor } from "../core/tensor.ts";
import { flatten, mapTree } from "../core/tree.ts";
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import { evaluate, read } from "../kernels/runtime/read.ts";
import { quantize } from "../kernels/runtime/quantize.ts";
import { lora, type LoraOptions } from "../lora/mod.ts";
import { loadModel } from "../models/load/load_model.ts";
import type { LoadedModel, LoadOptions } from "../models/load/loader.ts";
import { openSafetensors } from "../models/load/safetensors/safetensors.ts";
import { writeTinyModel } from "../tests/e2e/tiny_model.ts";
import { saveAdapter } from "./adapter.ts";
import { loadAdapter } from "./tuned_model.ts";
import { readAdapter } from "./peft/files.ts";
import { fromMetadata } from "./base_record.ts";
import { checkMerge, mergeParams, mergeSafely, unmergeParams } from "./merge.ts";
import { saveModel } from "./save_model.ts";

type Options = Omit<LoraOptions, "targets"> & { targets: string[] };
const plain: Options = { r: 2, alpha: 4, targets: ["c_attn", "c_proj"] };

async function withModel(
  body: (folder: string, model: LoadedModel, device: LoadOptions["device"]) => Promise<void>,
  dtype?: "f16",
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await writeTinyModel(`${folder}/model`);
    using device = await openCpu({ threads: 1 });
    using model = await loadModel(`${folder}/model`, { device, dtype });
    await body(folder, model, device);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** An adapter whose every leaf is filled with numbers, so that it changes something. */
function filled(tuned: { trainable: any }, device: any, value = 0.01): any {
  let i = 0;
  return mapTree(tuned.trainable, ({ aval: { shape } }: Tensor) => {
    const row = (n: number): any => Array.from({ length: n }, () => value * Math.sin(++i));
    return tensor(device, shape.length === 1 ? row(shape[0]) : Array.from({ length: shape[0] }, () => row(shape[1])));
  });
}

const leaves = async (tree: unknown) => (await read(flatten<Tensor>(tree).leaves)) as HostTensor[];

Deno.test("a merged adapter is taken out again, also one with more than A and B", () =>
  withModel(async (_, model, device) => {
    for (const more of [{}, { dora: true }, { loraBias: true }, { modulesToSave: ["ln_f"] }] as Partial<Options>[]) {
      const tuned = lora(model as any, { ...plain, ...more }) as any;
      const trainable = filled(tuned, device);
      const lost = Object.keys(more).length > 0 ? tuned.overwritten(trainable, tuned.frozen) : undefined;
      const merged = mergeParams(tuned, trainable);
      const [before, after] = [await leaves(model.params), await leaves(unmergeParams(tuned, trainable, merged, lost))];
      before.forEach((x, i) => x.data.forEach((v, j) => assert(Math.abs(v - after[i].data[j]) <= 1e-6)));
    }
  }));

Deno.test("merging safely refuses what is not finite, by name, and lets the rest pass", () =>
  withModel(async (_, model, device) => {
    const tuned = lora(model as any, plain) as any;
    assertEquals(
      Object.keys(await mergeSafely(tuned, filled(tuned, device)) as object),
      Object.keys(model.params as any),
    );
    // Fine as f32, but not as f16.
    await assertRejects(
      () => mergeSafely(tuned, filled(tuned, device, 1e4)),
      DataError,
      "h.0.attn.c_attn.weight, h.0.attn.c_proj.weight, h.0.mlp.c_proj.weight would hold values that are not finite",
    );
  }, "f16"));

Deno.test("a model in shards is the same model, and its base's other files come along", () =>
  withModel(async (folder, model, device) => {
    Deno.writeTextFileSync(`${folder}/model/generation_config.json`, "{}");
    const place = `${folder}/merged`;
    const files = await saveModel(place, model, { shardBytes: 6000 });
    assert(
      files.includes("model-00003-of-00005.safetensors") && files.includes("generation_config.json"),
      files.join(),
    );
    for (const file of files.filter((name) => name.endsWith(".safetensors"))) {
      const size = Deno.statSync(`${place}/${file}`).size;
      using source = openSafetensors(`${place}/${file}`);
      assert(size < 6000 + 1000 || source.names.length === 1, `${file} has ${size} bytes`);
    }
    using shards = await loadModel(place, { device });
    assertEquals(await leaves(shards.params), await leaves(model.params));
    // Written again as one file: nothing of the shards stays.
    await saveModel(place, model, { dtype: "bf16" });
    assertEquals([...Deno.readDirSync(place)].map(({ name }) => name).sort(), [
      ...["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"],
    ]);
    assertEquals(JSON.parse(Deno.readTextFileSync(`${place}/config.json`)).dtype, "bfloat16");
    await assertRejects(() => saveModel(`${folder}/model`, model), FileError, "is the folder of the base model");
    await assertRejects(() => saveModel(place, model, { shardBytes: 0 }), OptionError, "shardBytes is 0");
  }));

Deno.test("a model with values that are not finite is not saved, and the folder keeps what it had", () =>
  withModel(async (folder, model, device) => {
    const place = `${folder}/merged`;
    await saveModel(place, model);
    const params = model.params as any;
    const bad = { ...params, ln_f: { ...params.ln_f, bias: tensor(device, Array(16).fill(Infinity)) } };
    await assertRejects(
      () => saveModel(place, model, { params: bad }),
      FileError,
      "transformer.ln_f.bias holds values that are not",
    );
    using whole = await loadModel(place, { device });
    assertEquals(await leaves(whole.params), await leaves(params));
  }));

Deno.test("an adapter knows its base: another is refused with both names, the same elsewhere is not", () =>
  withModel(async (folder, model, device) => {
    const tuned = lora(model as any, plain);
    await saveAdapter(`${folder}/adapter`, tuned, { trainable: tuned.trainable });
    const record = fromMetadata(readAdapter(`${folder}/adapter`).metadata)!;
    const bytes = Deno.readFileSync(`${folder}/model/model.safetensors`);
    assertEquals(record.sha256, new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex());
    assertEquals([record.name, record.stored, record.dtype, record.quantization], ["model", "F32", "f32", "none"]);
    Deno.renameSync(`${folder}/model`, `${folder}/moved`);
    using moved = await loadModel(`${folder}/moved`, { device });
    assertEquals(loadAdapter(`${folder}/adapter`, moved).notes, []);
    using half = await loadModel(`${folder}/moved`, { device, dtype: "f16" });
    assertEquals(loadAdapter(`${folder}/adapter`, half).notes, [
      "it was trained on the base held as f32, and here it is held as f16",
    ]);
    await writeTinyModel(`${folder}/other`, { weights: (all) => all.get("ln_f.bias")!.data.fill(1) });
    using other = await loadModel(`${folder}/other`, { device });
    assertThrows(
      () => loadAdapter(`${folder}/adapter`, other),
      FileError,
      `was trained on model (F32, sha256 ${
        record.sha256.slice(0, 12)
      }…), and this base is ${folder}/other (F32, sha256 `,
    );
    assertEquals(loadAdapter(`${folder}/adapter`, other, { anyBase: true }).notes, []);
  }));

Deno.test("an adapter knows that its base was quantised when it was loaded", () =>
  withModel(async (folder, model) => {
    const quantised = { ...model, params: await quantize(model.params, { type: "nf4" }) };
    const tuned = lora(quantised as any, plain);
    await saveAdapter(`${folder}/adapter`, tuned, { trainable: tuned.trainable });
    assertEquals(fromMetadata(readAdapter(`${folder}/adapter`).metadata)!.quantization, "nf4");
    assertEquals(loadAdapter(`${folder}/adapter`, quantised).notes, []);
    assertThrows(
      () => loadAdapter(`${folder}/adapter`, model),
      FileError,
      "was trained on model (F32 quantised to nf4,",
    );
  }));

Deno.test("an adapter on packed weights is merged into f32 ones, which a folder holds", () =>
  withModel(async (folder, model, device) => {
    const quantised = { ...model, params: await quantize(model.params, { type: "nf4" }) };
    const tuned = lora(quantised as any, plain) as any;
    const trainable = filled(tuned, device);
    const merged = await mergeSafely(tuned, trainable);
    for (const { ratio } of await checkMerge(tuned, trainable, merged)) assert(ratio <= 1);
    await saveModel(`${folder}/merged`, quantised as any, { params: merged });
    using loaded = await loadModel(`${folder}/merged`, { device });
    const ids = { inputIds: tensor(device, [[1, 2, 3]], "i32") };
    const [a, b] = await Promise.all([
      evaluate(tuned.apply(trainable, tuned.frozen, ids)),
      evaluate(loaded.apply(loaded.params, ids)),
    ]) as any[];
    a.data.forEach((x: number, i: number) => assert(Math.abs(x - b.data[i]) <= 1e-5, `${i}`));
  }));
