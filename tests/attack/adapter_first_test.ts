/** An adapter that does not fit is refused before a byte of the weights is read: they may be many. */
import { assert, assertRejects } from "@std/assert";
import { command as evaluate } from "../../cli/eval.ts";
import { command as generate } from "../../cli/generate.ts";
import { command as merge } from "../../cli/merge.ts";
import { command as verify } from "../../cli/verify.ts";
import type { Terminal } from "../../cli/command.ts";
import { LowrankError } from "../../core/errors.ts";
import type { HostTensor } from "../../core/tensor.ts";
import { memoryBytes } from "../../models/load/files/byte_source.ts";
import { openSafetensors, writeSafetensors } from "../../models/load/safetensors/safetensors.ts";
import { attackFolder } from "./command.ts";

const silent: Terminal = {
  ...{ json: false, quiet: true, color: false, columns: 80 },
  ...{ print() {}, write: () => true, result() {}, say() {}, warn() {} },
};

/** How an adapter comes not to fit. */
const amiss: Record<string, (adapter: { config: any; tensors: Map<string, HostTensor> }) => void> = {
  "a tensor of another shape": ({ tensors }) => {
    const [key, { data, shape: [a, b] }] = [...tensors][0];
    tensors.set(key, { dtype: "f32", shape: [a, b / 2], data: data.slice(0, a * b / 2) });
  },
  "a module that the model does not have": ({ tensors }) => {
    const [key, tensor] = [...tensors][0];
    tensors.delete(key);
    tensors.set(key.replace(/h\.0/, "h.7"), tensor);
  },
  "half of a pair": ({ tensors }) => void tensors.delete([...tensors.keys()][0]),
  "another rank than is said": ({ config }) => void (config.r = 4),
};

/** Runs an action; how many bytes of a file it read. */
async function bytesRead(of: string, action: () => Promise<void>): Promise<number> {
  const { openSync, readFileSync } = Deno;
  let count = 0;
  Deno.openSync = (path, options) => {
    const file = openSync(path, options);
    if (!String(path).endsWith(of)) return file;
    const readSync = file.readSync.bind(file);
    file.readSync = (into) => {
      const read = readSync(into);
      count += read ?? 0;
      return read;
    };
    return file;
  };
  Deno.readFileSync = (path) => {
    const bytes = readFileSync(path);
    if (String(path).endsWith(of)) count += bytes.length;
    return bytes;
  };
  try {
    await action();
  } finally {
    Object.assign(Deno, { openSync, readFileSync });
  }
  return count;
}

Deno.test("generate, eval, merge and verify look at the adapter before they read weights", async (t) => {
  await using place = await attackFolder();
  const config = JSON.parse(Deno.readTextFileSync(place.at("adapter/adapter_config.json")));
  config.base_model_name_or_path = place.at("model");
  const tensors = new Map<string, HostTensor>();
  using source = openSafetensors(
    memoryBytes("adapter", Deno.readFileSync(place.at("adapter/adapter_model.safetensors"))),
  );
  for (const name of source.names) tensors.set(name, source.read(name));
  const header = 8 +
    Number(new DataView(Deno.readFileSync(place.at("model/model.safetensors")).buffer).getBigUint64(0, true));
  const adapter = place.at("made");
  const commands = {
    generate: () => generate.run(["--adapter", adapter, "--device", "cpu", "--max-tokens", "1", "hi"], silent),
    eval: () => evaluate.run(["--adapter", adapter, "--device", "cpu", "--data", place.at("rows.jsonl")], silent),
    merge: () => merge.run([adapter, "--device", "cpu", "--out", place.at("merged")], silent),
    verify: () => verify.run([adapter, "--device", "cpu"], silent),
  };
  const write = (change: typeof amiss[string]) => {
    const made = { config: structuredClone(config), tensors: new Map(tensors) };
    change(made);
    Deno.mkdirSync(adapter, { recursive: true });
    Deno.writeTextFileSync(`${adapter}/adapter_config.json`, JSON.stringify(made.config));
    writeSafetensors(`${adapter}/adapter_model.safetensors`, made.tensors);
  };
  for (const [verb, run] of Object.entries(commands)) {
    for (const [name, change] of Object.entries(amiss)) {
      await t.step(`${verb}: ${name}`, async () => {
        write(change);
        const read = await bytesRead(
          "model/model.safetensors",
          async () => void await assertRejects(run, LowrankError),
        );
        assert(read <= 2 * header, `${read} bytes of the weights' file, of which ${header} say what is in it`);
      });
    }
    await t.step(`${verb}: one that fits`, async () => {
      write(() => {});
      const size = Deno.statSync(place.at("model/model.safetensors")).size;
      assert(await bytesRead("model/model.safetensors", run) >= size);
    });
  }
});
