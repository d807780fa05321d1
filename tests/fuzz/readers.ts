/** Everything that reads a file of the user's, with real files to begin from. */
import { assert } from "@std/assert";
import { sizeOf } from "../../core/aval.ts";
import { LowrankError } from "../../core/errors.ts";
import { llama } from "../../models/families/llama.ts";
import { memoryBytes, parseJsonObject } from "../../models/load/files/byte_source.ts";
import { parseConfig } from "../../models/load/config.ts";
import { openModelFiles } from "../../models/load/model_files.ts";
import { openSafetensors } from "../../models/load/safetensors/safetensors.ts";
import { readTokenizer } from "../../models/load/tokenizer.ts";
import type { WeightSource } from "../../models/load/weights.ts";
import { readAdapter } from "../../formats/peft/files.ts";
import { byteTokenizerConfig, byteTokenizerFile } from "../../data/byte_tokenizer.ts";
import { checkpointStore } from "../../train/checkpoint/checkpoint.ts";
import { readConfig, resolveConfig } from "../../train/options/config.ts";
import { parseMetrics } from "../../train/watch/metrics.ts";
import { openData } from "../../train/objectives/mod.ts";

/** A reader and a file that it reads. */
export interface ReaderCase {
  readonly name: string;
  readonly bytes: Uint8Array;
  /** Reads a mutation of the file; throws where the result is neither right nor refused. */
  read(bytes: Uint8Array): void | Promise<void>;
}

const cases = new URL("../goldens/cases/", import.meta.url);
const golden = (path: string) => Deno.readFileSync(new URL(path, cases));
const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** The cases; `folder` is where those that read paths have their files. */
export async function readerCases(folder: string): Promise<ReaderCase[]> {
  const write = (name: string, bytes: Uint8Array) => {
    Deno.writeFileSync(`${folder}/${name}`, bytes);
    return `${folder}/${name}`;
  };
  const tokenizerOf = (tokenizer: Uint8Array, config: Uint8Array) =>
    readTokenizer(
      "fuzzed",
      (file) =>
        file === "tokenizer.json" ? decode(tokenizer) : file === "tokenizer_config.json" ? decode(config) : null,
    )!;
  const file = encode(JSON.stringify(byteTokenizerFile()));
  const template =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
  const config = encode(JSON.stringify({ ...byteTokenizerConfig(), chat_template: template }));
  const whole = tokenizerOf(file, config);
  const tryTokenizer = ({ encode, decode }: typeof whole) => {
    const ids = encode("a letter — of 12 words");
    assert(ids.every((id) => Number.isInteger(id) && id >= 0), `ids ${ids}`);
    assert(typeof decode(ids) === "string");
  };

  return [
    {
      name: "configuration",
      bytes: encode(
        "model: base\ndata: rows.jsonl\nr: 8\nlr: 0.001\ntargets: [q_proj, v_proj]\nschedule: cosine\nsteps: 12\n",
      ),
      read: (bytes) => void resolveConfig(readConfig(write("config.yaml", bytes)), {}),
    },
    ...["prompt and completion", "chat", "label"].map((kind): ReaderCase => ({
      name: `rows of ${kind}`,
      bytes: encode(rows[kind].map((row) => JSON.stringify(row)).join("\n")),
      read: (bytes) => {
        for (const streamAbove of [undefined, 0]) {
          const options = { context: 64, streamAbove, classes: kind === "label" ? ["ham", "spam"] : undefined };
          using data = openData(write("rows.jsonl", bytes), whole, options);
          for (let i = 0; i < data.length; i++) {
            const { ids, labels, label } = data.at(i)!;
            assert(ids.length > 0 && ids.length <= 64 && (label !== undefined || ids.length === labels.length));
          }
        }
      },
    })),
    {
      name: "safetensors of every dtype",
      bytes: golden("safetensors-dtypes/all.safetensors"),
      read: (bytes) => {
        using source = openSafetensors(memoryBytes("fuzzed", bytes));
        readAll(source);
      },
    },
    {
      name: "safetensors of an adapter",
      bytes: golden("gpt2-lora-basic/adapter/adapter_model.safetensors"),
      read: (bytes) => {
        using source = openSafetensors(memoryBytes("fuzzed", bytes));
        readAll(source);
      },
    },
    {
      name: "an adapter's configuration",
      bytes: golden("gpt2-lora-patterns/adapter/adapter_config.json"),
      read: (bytes) => {
        Deno.mkdirSync(`${folder}/adapter`, { recursive: true });
        write("adapter/adapter_config.json", bytes);
        write("adapter/adapter_model.safetensors", golden("gpt2-lora-patterns/adapter/adapter_model.safetensors"));
        readAdapter(`${folder}/adapter`);
      },
    },
    {
      name: "GGUF",
      bytes: golden("llama-gguf/llama-Q4_1.gguf"),
      read: (bytes) => {
        using files = openModelFiles(write("model.gguf", bytes), ["llama"]);
        llama.sizes(files.config);
        readAll(files.source);
      },
    },
    {
      name: "a model's configuration",
      bytes: golden("llama-base/model/config.json"),
      read: (bytes) => void llama.sizes(parseConfig(parseJsonObject(decode(bytes), "fuzzed"), "fuzzed")),
    },
    { name: "tokenizer.json", bytes: file, read: (bytes) => tryTokenizer(tokenizerOf(bytes, config)) },
    { name: "tokenizer_config.json", bytes: config, read: (bytes) => tryTokenizer(tokenizerOf(file, bytes)) },
    ...await checkpointCases(folder),
    {
      name: "metrics",
      bytes: encode(metrics.map((event) => JSON.stringify(event)).join("\n") + "\n"),
      read: (bytes) => void parseMetrics(decode(bytes), "fuzzed"),
    },
  ];
}

/** A checkpoint with a broken state or record is refused, never taken. */
async function checkpointCases(folder: string): Promise<ReaderCase[]> {
  const store = () => checkpointStore({ folder: `${folder}/checkpoints`, identity: { steps: 4 } });
  const data = Float32Array.from({ length: 64 }, (_, i) => i / 7);
  const tensors = new Map([["params.A", { shape: [8, 8], dtype: "f32" as const, data }]]);
  await store().save({ step: 1, tokens: 10, cursor: { position: 3, used: 0, open: [] }, tensors }, null, null);
  const at = `${folder}/checkpoints/step-00000001`;
  const files = ["state.safetensors", "run.json"].map((name) => ({ name, bytes: Deno.readFileSync(`${at}/${name}`) }));
  return files.map(({ name, bytes }) => ({
    name: `a checkpoint's ${name}`,
    bytes,
    read: (mutated) => {
      for (const file of files) Deno.writeFileSync(`${at}/${file.name}`, file.name === name ? mutated : file.bytes);
      const { snapshot } = store().newest()!;
      // What is taken is what was saved.
      assert(snapshot.step === 1 && snapshot.cursor.position === 3);
      assert((snapshot.tensors.get("params.A")!.data as Float32Array).every((x, i) => x === data[i]));
    },
  }));
}

/** Reads every tensor of a source and checks it against what the source says of it; some may be refused by themselves. */
function readAll(source: WeightSource): void {
  for (const name of source.names) {
    const size = sizeOf(source.entry(name).shape);
    assert(Number.isSafeInteger(size) && size >= 0, `${name} has ${size} elements`);
    try {
      const { data } = source.read(name);
      assert(data.length === size, `${name} has ${data.length} of ${size} elements`);
    } catch (error) {
      if (!(error instanceof LowrankError)) throw error;
    }
  }
}

const rows: Record<string, readonly unknown[]> = {
  "prompt and completion": [{ prompt: "Where?", completion: "Here." }, { prompt: "Wann — “jetzt”?", completion: "☃" }],
  chat: [
    { messages: [{ role: "user", content: "Hello" }, { role: "assistant", content: "Good day" }] },
    { prompt: "a", completion: "b" },
    { text: "plain" },
  ],
  label: [{ text: "buy now", label: "spam" }, { text: "see you", label: "ham" }],
};

const metrics = [
  {
    ...{ event: "run", started: "2026-01-02T03:04:05Z", steps: 2, from: 0, environment: { device: "cpu" } },
    ...{ configuration: { lr: 0.1 }, adapter: [{ path: "h.0", shape: [2, 2], r: 1, alpha: 1, trainable: 4 }] },
  },
  { event: "step", step: 1, loss: 2.5, gradNorm: 1, lr: 0.1, tokens: 9, seconds: 1, tokensPerSecond: null },
  { event: "samples", step: 1, samples: [{ prompt: "a", text: "b" }] },
  { event: "evaluation", step: 2, loss: 2, perplexity: 7.39, count: 5, best: true, seconds: 1 },
  { event: "end", step: 2, reason: "done" },
];
