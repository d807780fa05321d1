/** Adapters and GGUF weights of the golden cases as files; what they compute is the other test's part. */
import { assert, assertEquals } from "@std/assert";
import type { Model } from "../../core/model.ts";
import type { Device } from "../../kernels/device/device.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import { pathKind } from "../../models/load/files/byte_source.ts";
import { loadAnyModel, loadRewardModel } from "../../models/mod.ts";
import type { Loaded } from "../../models/load/loader.ts";
import { saveAdapter } from "../../formats/adapter.ts";
import { loadAdapter } from "../../formats/tuned_model.ts";
import { readAdapter, tensorsByKey, writeAdapter } from "../../formats/peft/files.ts";
import { checkGgufWeights } from "./file_cases.ts";
import { casesUnder, type GoldenCase } from "./golden_case.ts";
import { reasonToSkip } from "./kinds.ts";
import { notBuilt } from "./not_built.ts";
import { inFolder } from "../folder.ts";

const folder = Deno.args[0] ?? `${import.meta.dirname}/cases`;
const isCase = pathKind(`${folder}/case.json`) !== null;
/** Adapters on SmolLM2 are small, so they are here though the model is not. */
const real = isCase || Deno.args[0] !== undefined ? [] : casesUnder(`${import.meta.dirname}/real`);

for (const golden of casesUnder(folder)) {
  if (golden.has("weights_sample.safetensors")) {
    Deno.test(`${golden.id}: weights in Hugging Face's order`, () => checkGgufWeights(golden));
  }
}
for (const golden of [...casesUnder(folder), ...real]) {
  if (notBuilt(golden) !== null) continue;
  for (const adapter of adaptersUnder(golden.folder)) {
    const name = `${golden.id}${adapter.slice(golden.folder.length)}`;
    Deno.test(`${name}: read and written, the same bytes`, () =>
      inAdapter((copy) => {
        const { raw, tensors, shared, metadata } = readAdapter(adapter);
        writeAdapter(copy, { config: raw, tensors: tensorsByKey(tensors, shared), metadata });
        assertSameAdapter(copy, adapter);
      }));
    const base = baseOf(golden, adapter);
    if (base === null || reasonToSkip(golden) !== null) continue;
    Deno.test(`${name}: put on its model and saved, the same bytes`, () =>
      inAdapter(async (copy) => {
        using device = await openCpu();
        using model = await open(base, adapter, device);
        const loaded = loadAdapter(adapter, model, { residual: true });
        assertEquals(loaded.notes, []);
        await saveAdapter(copy, loaded, { trainable: loaded.trainable });
        assertSameAdapter(copy, adapter);
      }));
  }
}

/** The model of an adapter, as its file says what it is; with a head of its own where the adapter brings one for a decoder. */
async function open(base: string, adapter: string, device: Device): Promise<Loaded<Model<any, any, any>>> {
  const model = await loadAnyModel(base, { device });
  const scores = (model as { task?: string }).task !== "SEQ_CLS" && readAdapter(adapter).config.task_type === "SEQ_CLS";
  if (!scores) return model as unknown as Loaded<Model<any, any, any>>;
  model[Symbol.dispose]();
  return await loadRewardModel(base, { device }) as unknown as Loaded<Model<any, any, any>>;
}

/** Every folder below that holds an adapter in PEFT's files. */
function adaptersUnder(place: string): string[] {
  const below = [...Deno.readDirSync(place)].filter((entry) => entry.isDirectory)
    .flatMap((entry) => adaptersUnder(`${place}/${entry.name}`)).sort();
  const files = ["adapter_config.json", "adapter_model.safetensors"];
  return files.every((file) => pathKind(`${place}/${file}`) !== null) ? [place, ...below] : below;
}

/** The base that an adapter names, where it is among the cases. */
function baseOf(golden: GoldenCase, adapter: string): string | null {
  const { base_model_name_or_path: name } = readAdapter(adapter).config;
  return pathKind(`${golden.root}/${name}`) === "folder" ? `${golden.root}/${name}` : null;
}

/** Weights of the same bytes, and the same configuration but for the order of its keys. */
function assertSameAdapter(copy: string, adapter: string): void {
  const weights = (place: string) => Deno.readFileSync(`${place}/adapter_model.safetensors`).toHex();
  assert(weights(copy) === weights(adapter), `${adapter}: the weights have PEFT's bytes`);
  const config = (place: string) => JSON.parse(Deno.readTextFileSync(`${place}/adapter_config.json`));
  assertEquals(config(copy), config(adapter));
}

const inAdapter = <T>(use: (folder: string) => T) => inFolder((folder) => use(`${folder}/adapter`));
