/** What the table of bad inputs fills its folders with. Every function but the byte makers gives a change of a folder. */
import { type TinyModelEdits, tinyShapes, writeTinyModel } from "./tiny_model.ts";

/** What most rows ask for. */
export const onModel = ["--model", "model", "--data", "rows.jsonl"];

type Change = (folder: string) => Promise<void>;

/** The tiny model, with something wrong in it. */
export function model(edits: TinyModelEdits): Change {
  return (folder) => writeTinyModel(`${folder}/model`, edits);
}

/** The text of the model's config.json. */
export function config(text: string): Change {
  return (folder) => Deno.writeTextFile(`${folder}/model/config.json`, text);
}

/** The model's weights, rewritten. */
export function weights(edit: (bytes: Uint8Array) => Uint8Array): Change {
  return async (folder) => {
    const path = `${folder}/model/model.safetensors`;
    await Deno.writeFile(path, edit(await Deno.readFile(path)));
  };
}

/** The text of rows.jsonl. */
export function rows(text: string): Change {
  return (folder) => Deno.writeTextFile(`${folder}/rows.jsonl`, text);
}

/** A file of the given bytes. */
export function file(name: string, bytes: Uint8Array): Change {
  return (folder) => Deno.writeFile(`${folder}/${name}`, bytes);
}

/** Takes a file away. */
export function without(name: string): Change {
  return (folder) => Deno.remove(`${folder}/${name}`);
}

/** A model of 5 GB, of which the disk holds only the header: its weights are a hole in the file. */
export async function enormousModel(folder: string): Promise<void> {
  const [tokens, width] = [1_342_000, 1000];
  let end = 0;
  const entries = Object.entries(tinyShapes(width, tokens)).map(([name, shape]) => {
    const start = end;
    end += 4 * shape.reduce((size, d) => size * d, 1);
    return [name, { dtype: "F32", shape, data_offsets: [start, end] }];
  });
  const header = JSON.stringify(Object.fromEntries(entries));
  const path = `${folder}/model/model.safetensors`;
  await Deno.writeFile(path, safetensorsBytes(header, 0));
  await Deno.truncate(path, 8 + header.length + end);
  await writeTinyConfig(folder, { n_embd: width, vocab_size: tokens });
}

async function writeTinyConfig(folder: string, entries: Record<string, unknown>): Promise<void> {
  const path = `${folder}/model/config.json`;
  await Deno.writeTextFile(path, JSON.stringify({ ...JSON.parse(await Deno.readTextFile(path)), ...entries }));
}

/** A safetensors file with a header of one's own and `size` zero bytes of data. */
export function safetensorsBytes(header: string, size: number): Uint8Array {
  const text = new TextEncoder().encode(header);
  const bytes = new Uint8Array(8 + text.length + size);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  return bytes;
}

/** A GGUF file of the given version with no tensors and no metadata. */
export function ggufBytes(version: number): Uint8Array {
  const bytes = new Uint8Array(24);
  bytes.set(new TextEncoder().encode("GGUF"));
  new DataView(bytes.buffer).setUint32(4, version, true);
  return bytes;
}

/** A program that loads the tiny model and asks for an adapter. */
export function adaptingProgram(options: string): string {
  return modelProgram("lora", `lora(model, ${options});`);
}

/** The same by a method. */
export function tuningProgram(method: string, options: string, then = ""): string {
  return modelProgram(
    "methods, tune",
    `const tuned = tune(model, methods.${method}, ${options});\n  ${then}`.trimEnd(),
  );
}

function modelProgram(names: string, body: string): string {
  return `import { ${[...names.split(", "), "openDevice"].sort().join(", ")} } from "@lowrank/lowrank";
import { loadModel } from "@lowrank/lowrank/models";
import { reportErrors } from "@lowrank/lowrank/train";

await reportErrors(async () => {
  using device = await openDevice("cpu");
  const model = await loadModel("model", { device });
  ${body}
});`;
}
