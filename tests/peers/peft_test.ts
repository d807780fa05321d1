/** Real PEFT loads the folders that we save, and transformers the models that we merge: the same logits as ours. */
import { assert, assertEquals } from "@std/assert";
import type { Model } from "../../core/model.ts";
import { type HostTensor, type Tensor, tensor, upload } from "../../core/tensor.ts";
import { mapTree } from "../../core/tree.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import type { Device } from "../../kernels/device/device.ts";
import { evaluate, read } from "../../kernels/runtime/read.ts";
import { lora, pissa, type Tuned } from "../../lora/mod.ts";
import { llama } from "../../models/mod.ts";
import { pathKind } from "../../models/load/files/byte_source.ts";
import { loadAnyModel } from "../../models/load/load_model.ts";
import type { Loaded } from "../../models/load/loader.ts";
import { saveAdapter } from "../../formats/adapter.ts";
import { loadAdapter } from "../../formats/tuned_model.ts";
import { mergeParams } from "../../formats/merge.ts";
import { rngFrom } from "../../data/rng.ts";
import { saveModel } from "../../formats/save_model.ts";
import { smollm2 } from "../real/real_case.ts";
import { apart, peer, readFloats, runScript } from "./peer.ts";

const cases = `${import.meta.dirname}/../goldens/cases`;
const prompt = [[5, 17, 200, 3, 99, 42, 7, 250, 1, 64]];

/** One comparison: what the script is to compute, and what we did. */
interface Comparison {
  readonly name: string;
  readonly job: {
    readonly model: string;
    readonly adapter?: string;
    readonly kind: string;
    readonly inputs: Record<string, number[][]>;
    readonly out: string;
    /** Whose ids by the folder's own tokenizer must be the inputs. */
    readonly text?: string;
  };
  readonly logits: Float32Array;
}

type AnyModel = Loaded<Model<any, any, any>>;

async function withBase(base: string, body: (model: AnyModel, device: Device) => Promise<void>): Promise<void> {
  using device = await openCpu();
  using model = await loadAnyModel(`${cases}/${base}/model`, { device });
  await body(model as AnyModel, device);
}

const inputsOf = (base: string) => {
  const ids = { input_ids: prompt.map((row) => row.map((id) => id % 200)) };
  return base === "bert-seqcls" ? { ...ids, attention_mask: prompt.map((row) => row.map(() => 1)) } : ids;
};

async function logitsOf(apply: (inputs: any) => any, base: string, device: Device): Promise<Float32Array> {
  const { input_ids, attention_mask } = inputsOf(base) as Record<string, number[][]>;
  const put = (rows: number[][]) => tensor(device, rows, "i32");
  const inputs = { inputIds: put(input_ids), ...(attention_mask && { attentionMask: put(attention_mask) }) };
  return (await evaluate(apply(inputs)) as HostTensor).data as Float32Array;
}

/** Values for every leaf, so that each of them matters: what starts as the base's own moves a little. */
async function moved(tuned: Tuned<any, any, any>, device: Device): Promise<any> {
  const { next } = rngFrom(11);
  const first = await read(mapTree(tuned.trainable, (leaf: any) => leaf)).catch(() => null);
  const host = first ?? await evaluateAll(tuned.trainable);
  return Object.fromEntries(
    Object.entries<any>(host).map(([path, entry]) => [
      path,
      Object.fromEntries(
        Object.entries<HostTensor>(entry).map(([leaf, { shape, data }]) => [
          leaf,
          upload(device, { shape, dtype: "f32", data: Float32Array.from(data, (x) => x + 0.1 * (next() - 0.5)) }),
        ]),
      ),
    ]),
  );
}

async function evaluateAll(tree: any): Promise<any> {
  const entries = await Promise.all(
    Object.entries<any>(tree).map(async ([path, entry]) => [
      path,
      Object.fromEntries(
        await Promise.all(Object.entries<Tensor>(entry).map(async ([leaf, x]) => [leaf, await evaluate(x as any)])),
      ),
    ]),
  );
  return Object.fromEntries(entries);
}

const kindOf = (base: string) => base === "bert-seqcls" ? "classifier" : "causal";

async function compare(comparisons: readonly Comparison[]): Promise<void> {
  const heard = await runScript<Record<string, string[]>>("transformers_logits.py", comparisons.map(({ job }) => job));
  const found = comparisons.map(({ name, job, logits }) => ({
    name,
    apart: apart(readFloats(job.out), logits),
    heard: heard[job.out],
  }));
  for (const { name, apart } of found) console.log(`${name}: ${apart.toExponential(1)} apart`);
  assertEquals(found.filter(({ apart, heard }) => !(apart <= 1e-4) || heard.length > 0), []);
}

const goldens: Record<string, readonly string[]> = {
  "gpt2-base": ["basic", "rslora", "dora", "dora-all", "patterns", "all-linear", "modules-to-save", "bias", "lorabias"]
    .concat(["embedding", "regex", "layers"]).map((name) => `gpt2-lora-${name}`),
  "llama-base": ["qv", "all7", "dora", "embed", "rslora-patterns"].map((name) => `llama-lora-${name}`),
  "bert-seqcls": ["bert-lora"],
};

peer("PEFT gives our logits with every golden adapter that we loaded and saved", async (folder) => {
  const comparisons: Comparison[] = [];
  for (const [base, ids] of Object.entries(goldens)) {
    await withBase(base, async (model, device) => {
      for (const id of ids) {
        const loaded = loadAdapter(`${cases}/${id}/adapter`, model);
        await saveAdapter(`${folder}/${id}`, loaded, { trainable: loaded.trainable });
        const logits = await logitsOf((x) => loaded.apply(loaded.trainable, loaded.frozen, x), base, device);
        const job = { model: `${cases}/${base}/model`, adapter: `${folder}/${id}`, kind: kindOf(base) };
        comparisons.push({ name: id, job: { ...job, inputs: inputsOf(base), out: `${folder}/${id}.logits` }, logits });
      }
    });
  }
  await compare(comparisons);
});

/** Adapters of our own making: an option or two each. */
const made: Record<string, readonly (readonly [string, Record<string, unknown>])[]> = {
  "gpt2-base": [
    ["plain", { targets: ["c_attn", "c_proj"] }],
    ["rsLoRA, ranks and alphas", {
      ...{ targets: "all-linear", rslora: true },
      ...{ rankPattern: { c_fc: 2 }, alphaPattern: { "h.1.attn.c_attn": 3 } },
    }],
    ["DoRA", { targets: ["c_attn", "c_fc"], dora: true }],
    ["low-rank bias", { targets: ["c_attn"], loraBias: true }],
    ["biases of adapted modules", { targets: ["c_attn"], bias: "lora" }],
    ["all biases", { targets: ["c_attn"], bias: "all" }],
    ["a saved norm and head", { targets: ["c_attn"], modulesToSave: ["ln_f", "lm_head"] }],
    ["tokens", { targets: ["c_attn"], trainableTokens: [1, 5, 17] }],
    ["an embedding", { targets: ["c_attn", "wte"] }],
    ["every use of the embedding", { targets: ["c_attn", "wte"], tie: "all" }],
    ["a whole embedding in every use", { targets: ["c_attn"], modulesToSave: ["wte"], tie: "all" }],
    ["parts of a projection", { targets: ["c_attn[q,v]"] }],
    ["one layer", { targets: ["c_attn"], layers: [1] }],
    ["but one", { targets: "all-linear", exclude: ["c_fc"] }],
  ],
  "llama-base": [
    ["plain", { targets: ["q_proj", "v_proj"] }],
    ["DoRA and rsLoRA", { targets: "all-linear", dora: true, rslora: true }],
    ["an embedding", { targets: ["embed_tokens", "q_proj"] }],
    ["every use of the embedding", { targets: ["q_proj", "embed_tokens"], tie: "all" }],
    ["a whole embedding in every use", { targets: ["q_proj"], modulesToSave: ["embed_tokens"], tie: "all" }],
    ["tokens", { targets: ["q_proj"], trainableTokens: [2, 42] }],
  ],
  "bert-seqcls": [["a classifier", { targets: ["query", "value"], modulesToSave: ["classifier"] }]],
};

peer("PEFT gives our logits with adapters of our own, of every option", async (folder) => {
  const comparisons: Comparison[] = [];
  for (const [base, all] of Object.entries(made)) {
    await withBase(base, async (model, device) => {
      for (const [i, [what, options]] of all.entries()) {
        const tuned = lora<any, any, any>(model, { r: 4, alpha: 8, ...options } as any);
        const values = await moved(tuned, device);
        const place = `${folder}/${base}-${i}`;
        await saveAdapter(place, tuned, { trainable: values });
        const logits = await logitsOf((x) => tuned.apply(values, tuned.frozen, x), base, device);
        const job = { model: `${cases}/${base}/model`, adapter: place, kind: kindOf(base) };
        const name = `${base}, ${what}`;
        comparisons.push({ name, job: { ...job, inputs: inputsOf(base), out: `${place}.logits` }, logits });
      }
    });
  }
  await withBase("gpt2-base", async (model, device) => {
    const tuned = await pissa<any, any, any>(model, { r: 4, alpha: 8, targets: ["c_attn"] });
    const values = await moved(tuned, device);
    await saveAdapter(`${folder}/pissa`, tuned, { trainable: values });
    const logits = await logitsOf((x) => tuned.apply(values, tuned.frozen, x), "gpt2-base", device);
    const job = { model: `${cases}/gpt2-base/model`, adapter: `${folder}/pissa`, kind: "causal" };
    comparisons.push({ name: "PiSSA", job: { ...job, inputs: inputsOf(""), out: `${folder}/pissa.logits` }, logits });
  });
  await compare(comparisons);
});

peer("transformers gives our logits with models that we merged and wrote in shards", async (folder) => {
  const comparisons: Comparison[] = [];
  const merged = [["gpt2-base", "gpt2-lora-dora"], ["gpt2-base", "gpt2-lora-embedding"], [
    "llama-base",
    "llama-lora-all7",
  ]];
  for (const [base, id] of [...merged, ["bert-seqcls", "bert-lora"]]) {
    await withBase(base, async (model, device) => {
      const loaded = loadAdapter(`${cases}/${id}/adapter`, model);
      const params = mergeParams(loaded, loaded.trainable);
      const files = await saveModel(`${folder}/${id}`, model, { params, shardBytes: 150_000 });
      assert(files.filter((name) => name.endsWith(".safetensors")).length > 1, "it is in shards");
      const logits = await logitsOf((x) => loaded.apply(loaded.trainable, loaded.frozen, x), base, device);
      const job = {
        model: `${folder}/${id}`,
        kind: kindOf(base),
        inputs: inputsOf(base),
        out: `${folder}/${id}.logits`,
      };
      comparisons.push({ name: id, job, logits });
    });
  }
  await compare(comparisons);
});

const noModel = pathKind(smollm2) === null ? `${smollm2} is not here (./task model:smollm2 brings it)` : null;

peer("transformers gives our logits with SmolLM2 merged out of its GGUF, and reads its tokenizer", async (folder) => {
  using device = await openCpu();
  using model = await llama.load(smollm2, { device });
  const tuned = lora<any, any, any>(model as any, { r: 4, alpha: 8, targets: ["q_proj", "v_proj"] });
  const values = await moved(tuned, device);
  await saveModel(`${folder}/merged`, model, { params: mergeParams(tuned, values), shardBytes: 200e6 });
  const text = "The capital of France is";
  const ids = [model.tokenizer().encode(text)];
  const logits = await evaluate(
    tuned.apply(values, tuned.frozen, { inputIds: tensor(device, ids, "i32") }),
  ) as HostTensor;
  const job = { model: `${folder}/merged`, kind: "causal", inputs: { input_ids: ids }, out: `${folder}/logits`, text };
  await compare([{ name: "SmolLM2", job, logits: logits.data as Float32Array }]);
}, noModel);
