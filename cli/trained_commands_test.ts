/** Every command on every kind of adapter that is trained here: a table of both. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { FileError, OptionError } from "../core/errors.ts";
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import { type Method, methods, tune } from "../lora/mod.ts";
import { chosenBy, familyOf, methodNames } from "../lora/methods/mod.ts";
import { loadAnyModel, loadClassifier } from "../models/mod.ts";
import { saveAdapter } from "../formats/adapter.ts";
import { byteTokenizerFile } from "../data/byte_tokenizer.ts";
import { readAdapter } from "../formats/peft/files.ts";
import type { Command, Terminal } from "./command.ts";
import { command as convert } from "./convert.ts";
import { command as diff } from "./diff.ts";
import { command as evaluate } from "./eval.ts";
import { command as generate } from "./generate.ts";
import { command as inspect } from "./inspect.ts";
import { command as merge } from "./merge.ts";
import { writeLabels } from "./open_model.ts";
import { command as verify } from "./verify.ts";

const base = (name: string) => `${import.meta.dirname}/../tests/goldens/cases/${name}/model`;

async function run(command: Command, ...args: string[]): Promise<any> {
  let found: unknown = null;
  const terminal: Terminal = {
    ...{ json: false, quiet: false, color: false, columns: 80, say: () => {}, print: () => {}, warn: () => {} },
    write: () => true,
    result: (value) => found = value,
  };
  await command.run(args, terminal);
  return found;
}

interface Kind {
  readonly model: string;
  readonly options: Record<string, unknown>;
  /** The classes of a new head. */
  readonly labels?: readonly string[];
  /** The method, where it is not the one of LoRA's that the options switch on. */
  readonly method?: Method<any, any>;
  /** Whether it is a classifier's, which continues no text. */
  readonly reads?: true;
}

const kinds: Record<string, Kind> = {
  ...Object.fromEntries(
    Object.entries<Method<any, any>>(methods).filter(([name]) => methodNames.includes(name)).map(([name, method]) => [
      `one of ${name}`,
      {
        ...{ model: "llama-base", method },
        options: method.whole ? { numVirtualTokens: 3 } : { targets: ["q_proj", "down_proj"] },
      },
    ]),
  ),
  "a plain one": { model: "gpt2-base", options: { targets: ["c_attn"] } },
  "one with magnitudes": { model: "llama-base", options: { targets: ["q_proj"], dora: true } },
  "one with biases": { model: "gpt2-base", options: { targets: ["c_attn"], bias: "all" } },
  "one with whole modules": {
    model: "gpt2-base",
    options: { targets: ["c_attn"], modulesToSave: ["ln_f", "lm_head"] },
  },
  "one with tokens": { model: "llama-base", options: { targets: ["q_proj"], trainableTokens: [3, 5] } },
  "one of an embedding": { model: "llama-base", options: { targets: ["q_proj", "embed_tokens"] } },
  "one of every use": { model: "llama-base", options: { targets: ["q_proj", "embed_tokens"], tie: "all" } },
  "one of parts": { model: "gpt2-base", options: { targets: ["c_attn[q,v]"] } },
  "one of an encoder": { model: "bert-base", options: { targets: ["query"] } },
  "a classifier's with a new head": {
    ...{ model: "bert-base", labels: ["sad", "glad"], reads: true },
    options: { targets: ["query", "pooler.dense"], modulesToSave: ["classifier"] },
  },
  "a classifier's with the file's head": {
    ...{ model: "bert-seqcls", reads: true },
    options: { targets: ["query"], modulesToSave: ["classifier"] },
  },
};

for (const [name, { model: base_, options, labels, reads, method = methods.lora }] of Object.entries(kinds)) {
  Deno.test(`every command knows ${name}`, async () => {
    const folder = await Deno.makeTempDir();
    const path = base(base_), adapter = `${folder}/adapter`, cpu = ["--device", "cpu", "--threads", "1"];
    try {
      {
        using device = await openCpu({ threads: 1 });
        using model = labels ? await loadClassifier(path, { device, labels }) : await loadAnyModel(path, { device });
        const own = Object.entries({ r: 4, alpha: 8 }).filter(([name]) => name in method.options);
        const all: any = { ...Object.fromEntries(own), ...options };
        const tuned = tune<any, any, any, object>(model as any, chosenBy(familyOf(method), all), all);
        await saveAdapter(adapter, tuned, { trainable: tuned.trainable, baseModel: path });
        if (labels) writeLabels(adapter, labels);
      }
      const merges = method.unmergeable === undefined;
      const holds = async (place: string) => {
        if (merges) return assertEquals((await run(verify, place, ...cpu)).holds, true);
        await assertRejects(() => run(verify, place, ...cpu), OptionError, "can't be merged");
      };
      await holds(adapter);
      const merging = () => run(merge, adapter, "--out", `${folder}/merged`, ...cpu);
      if (merges) {
        await merging();
        assertEquals((await run(inspect, `${folder}/merged`)).kind, "model");
      } else await assertRejects(merging, OptionError, "can't be merged");
      assertEquals((await run(inspect, adapter, "--model", path)).notes, []);
      await run(convert, adapter, "--to", "peft", "--out", `${folder}/again`);
      assertEquals((await run(diff, adapter, `${folder}/again`)).equal, true);
      await holds(`${folder}/again`);
      const convertible = readAdapter(adapter).tensors.every(({ part }) => ["A", "B"].includes(part.leaf));
      for (const to of ["gguf", "mlx"]) {
        const converting = () => run(convert, adapter, "--to", to, "--out", `${folder}/${to}.${to}`);
        if (convertible && base_ !== "bert-base") await converting();
        else if (to === "gguf" || name !== "one with magnitudes") await assertRejects(converting, FileError);
      }
      // The golden models have no tokenizer: bytes are their tokens here.
      const model = `${folder}/model`, rows = `${folder}/rows.jsonl`;
      Deno.mkdirSync(model);
      for (const { name } of Deno.readDirSync(path)) Deno.copyFileSync(`${path}/${name}`, `${model}/${name}`);
      Deno.writeTextFileSync(`${model}/tokenizer.json`, JSON.stringify(byteTokenizerFile()));
      const label = labels?.[1] ?? "LABEL_1";
      Deno.writeTextFileSync(rows, JSON.stringify(reads ? { text: "ab", label } : { prompt: "a", completion: "b" }));
      const measuring = () => run(evaluate, "--adapter", adapter, "--model", model, "--data", rows, ...cpu);
      if (name === "one of an encoder") await assertRejects(measuring, FileError, "generates none");
      else assert(Number.isFinite((await measuring()).loss));
      if (reads) {
        await assertRejects(() => run(generate, "--adapter", adapter, ...cpu, "hi"), OptionError, "classifier");
      }
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}
