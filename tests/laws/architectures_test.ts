/**
 * What every architecture of the list must hold, on a small random model of it. Another one is tested by being in the list:
 * its configuration is made of its own keys, with its `example`'s.
 */
import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { formatAval } from "../../core/aval.ts";
import { FileError } from "../../core/errors.ts";
import type { Leaf } from "../../core/model.ts";
import { normalAt } from "../../core/random.ts";
import { type HostTensor, type Tensor, upload } from "../../core/tensor.ts";
import { flatten } from "../../core/tree.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import { read } from "../../kernels/runtime/read.ts";
import { lora } from "../../lora/lora.ts";
import { saveAdapter } from "../../formats/adapter.ts";
import { loadAdapter } from "../../formats/tuned_model.ts";
import { readGgufAdapter, writeGgufAdapter } from "../../formats/gguf.ts";
import { readMlxAdapter, writeMlxAdapter } from "../../formats/mlx.ts";
import { type AdapterFiles, readAdapter } from "../../formats/peft/files.ts";
import { saveModel } from "../../formats/save_model.ts";
import { type Family, variantsOf } from "../../models/families/family.ts";
import type { DecoderFamily } from "../../models/families/language_model.ts";
import { families } from "../../models/families/mod.ts";
import { memoryBytes } from "../../models/load/files/byte_source.ts";
import { configFromGguf } from "../../models/load/gguf/config.ts";
import { ggufKey } from "../../models/load/gguf/keys.ts";
import type { GgufFamily } from "../../models/load/gguf/names.ts";
import { openGguf } from "../../models/load/gguf/source.ts";
import { loaderOf } from "../../models/load/loader.ts";
import { encodeSafetensors } from "../../models/load/safetensors/safetensors.ts";
import { oracleRuntime as oracle } from "../runtimes.ts";
import { configOf, ggufOf, layersOf, vocabulary, weightsOf } from "../small_models.ts";

/** A folder that holds a small model. */
function writeModel(folder: string, family: Family, changes: Record<string, unknown> = {}): void {
  const config = { ...configOf(family), ...changes };
  Deno.mkdirSync(folder, { recursive: true });
  Deno.writeTextFileSync(`${folder}/config.json`, JSON.stringify(config));
  using file = Deno.openSync(`${folder}/model.safetensors`, { write: true, create: true });
  for (const part of encodeSafetensors(weightsOf(family, config))) file.writeSync(part);
}

async function inFolder(body: (folder: string) => Promise<void> | void): Promise<void> {
  const folder = Deno.makeTempDirSync();
  try {
    await body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

/** Loads a model of a family; where is nothing that the tests of one know of its type. */
const load = (family: Family, folder: string, device = oracle.home): Promise<any> =>
  loaderOf<any, any, any>(family).load(folder, { device });

const ids = (rows: readonly (readonly number[])[]): Tensor =>
  upload(oracle.home, { shape: [rows.length, rows[0].length], dtype: "i32", data: Int32Array.from(rows.flat()) });
const text = (length: number, from = 3) => Array.from({ length }, (_, i) => (from + 7 * i) % vocabulary);

/** What a model gives, computed in float64: rounded to f32 once. */
async function given(model: any, inputs: Record<string, Tensor>): Promise<HostTensor> {
  return await oracle.read(oracle.jit((params: any, inputs: any) => model.apply(params, inputs))(model.params, inputs));
}

/** Rows `from` … `to` of the tokens of the one sequence. */
const tokens = ({ shape: [, , width], data }: HostTensor, from: number, to: number) =>
  [...data.subarray(from * width, to * width)] as number[];

/**
 * Two ways of computing the same in float64 differ by far less than a rounding to f32, which each was rounded by once: half a
 * unit in the last place each, 2⁻²⁴ of the largest.
 */
function assertSame(what: string, found: ArrayLike<number>, expected: ArrayLike<number>): void {
  assertEquals(found.length, expected.length, what);
  const size = Math.max(...Array.from(expected, Math.abs));
  assert(size > 0, `${what} is not all zeros`);
  Array.from(expected).forEach((x, i) => {
    assert(Math.abs(found[i] - x) <= 2 * 2 ** -24 * size, `${what}: ${found[i]} at ${i}, where ${x} is expected`);
  });
}

const isDecoder = (family: Family): family is DecoderFamily => "over" in family;

Deno.test("the list is of architectures that are told apart", () => {
  const types = families.map(({ modelType }) => modelType);
  assertEquals(types, [...new Set(types)]);
});

for (const family of families.flatMap(variantsOf)) {
  const law = (what: string, body: (folder: string) => Promise<void> | void) =>
    Deno.test(`${family.className}: ${what}`, () => inFolder(body));

  law("what is saved is what was loaded, byte for byte", async (folder) => {
    writeModel(`${folder}/a`, family);
    using device = await openCpu({ threads: 1, blas: false });
    using model = await load(family, `${folder}/a`, device);
    await saveModel(`${folder}/b`, model);
    const [a, b] = ["a", "b"].map((name) => Deno.readFileSync(`${folder}/${name}/model.safetensors`));
    assertEquals(a, b);
    using again = await load(family, `${folder}/b`, device);
    assertEquals(again.sizes, model.sizes);
    assertEquals(again.config.raw.architectures, [family.className]);
  });

  law("padding changes nothing", async (folder) => {
    writeModel(folder, family);
    using model = await load(family, folder);
    const alone = await given(model, { inputIds: ids([text(7)]) });
    const pad = [0, 0, 0], ones = text(7).map(() => 1);
    // Positions of an encoder count from the row's beginning.
    for (const left of isDecoder(family) ? [true, false] : [false]) {
      const [row, mask] = [text(7), ones].map((x) => left ? [...pad, ...x] : [...x, ...pad]);
      const padded = await given(model, { inputIds: ids([row]), attentionMask: ids([mask]) });
      const found = padded.shape.length === 2 ? padded.data : tokens(padded, left ? 3 : 0, left ? 10 : 7);
      assertSame(left ? "padding on the left" : "padding on the right", found as ArrayLike<number>, [...alone.data]);
    }
  });

  law("all-linear is every matrix of the layers, and what is looked up and the head can be named", async (folder) => {
    writeModel(folder, family);
    using model = await load(family, folder);
    const { paths, leaves } = flatten<Leaf>(model.params);
    const named = (targets: any): string[] =>
      lora<any, any, any>(model, { r: 2, alpha: 4, targets }).matched.map(({ path }) => path);
    const outer = [...family.tables, family.head, "pooler.dense"];
    const inside = paths.filter((path, i) =>
      leaves[i].shape.length === 2 &&
      !outer.some((module) => module && `.${path}`.endsWith(`.${module}.weight`))
    );
    const linear = named("all-linear").filter((path) => !outer.includes(path));
    assertEquals(linear, inside.map((path) => path.replace(/\.weight$/, "")));
    for (const module of [family.tables[0], ...(family.head ? [family.head] : [])]) {
      assertEquals(named([module]).map((path) => path.split(".").at(-1)), [module.split(".").at(-1)]);
    }
    for (const [module, of] of Object.entries<any>(model.parts ?? {})) {
      for (const part of Array.isArray(of) ? of : Object.keys(of)) {
        assertEquals(named([`${module}[${part}]`]).length, layersOf(family));
      }
    }
  });

  law("an adapter goes to every format that there is, and back as the same", async (folder) => {
    writeModel(`${folder}/base`, family);
    using device = await openCpu({ threads: 1, blas: false });
    using model = await load(family, `${folder}/base`, device);
    const tuned = lora<any, any, any>(model, { r: 2, alpha: 4, targets: "all-linear" });
    const flat = flatten<Tensor>(tuned.trainable);
    const host = flat.leaves.map(({ shape }, n): HostTensor => {
      const data = Float32Array.from({ length: shape[0] * shape[1] }, (_, i) => normalAt([n, 5], i));
      return { shape, dtype: "f32", data };
    });
    const trainable = flat.unflatten(host.map((x) => upload(device, x))) as any;
    await saveAdapter(`${folder}/peft`, tuned, { trainable });
    const back = flatten<Tensor>(loadAdapter(`${folder}/peft`, model).trainable);
    assertEquals(back.paths, flat.paths);
    assertEquals(await read(back.leaves), host);
    const files = readAdapter(`${folder}/peft`);
    const { prefix, headModules = [family.head] } = family;
    for (const { module } of files.tensors) {
      assert(module.startsWith(prefix) || headModules.includes(module.split(".")[0]), module);
    }
    const contents = ({ tensors }: AdapterFiles) =>
      tensors.map(({ key, tensor }) => [key, formatAval(tensor), [...tensor.data]] as const)
        .sort(([a], [b]) => a < b ? -1 : 1);
    if (family.gguf !== undefined) {
      writeGgufAdapter(`${folder}/a.gguf`, files, model.config);
      assertEquals(contents(readGgufAdapter(`${folder}/a.gguf`, model.config)), contents(files));
    }
    if (family.mlx !== undefined) {
      writeMlxAdapter(`${folder}/mlx`, files, model.config);
      assertEquals(contents(readMlxAdapter(`${folder}/mlx`, model.config)), contents(files));
    }
  });

  if (!isDecoder(family)) continue;

  law("steps over a cache give what the whole sequence gives", async (folder) => {
    writeModel(folder, family);
    using model = await load(family, folder);
    const [length, rows] = [12, [text(12), text(12, 11)]];
    const whole = await given(model, { inputIds: ids(rows) });
    const zeros = model.cacheAvals(2, length).map((one: any) =>
      Object.fromEntries(
        Object.entries(one).map(([name, { shape }]: [string, any]) => {
          const data = new Float32Array(shape.reduce((a: number, b: number) => a * b, 1));
          return [name, upload(oracle.home, { shape, dtype: "f32", data })];
        }),
      )
    );
    const step = oracle.jit((params: any, inputs: any) => model.step(params, inputs));
    let cache = zeros;
    // The prompt at once, then token by token.
    for (const [from, to] of [[0, 5], ...Array.from({ length: length - 5 }, (_, i) => [i + 5, i + 6])]) {
      const some = (row: readonly number[]) => row.slice(from, to);
      const positions = text(length).map((_, i) => i);
      const out: any = step(model.params, {
        inputIds: ids(rows.map(some)),
        positionIds: ids([some(positions), some(positions)]),
        mask: ids(rows.map((row) => row.map((_, i) => i < to ? 1 : 0))),
        index: upload(oracle.home, { shape: [], dtype: "i32", data: Int32Array.of(from) }),
        cache,
      });
      cache = out.cache;
      const logits: HostTensor = await oracle.read(out.logits);
      const expected = rows.flatMap((_, n) => tokens(whole, n * length + to - 1, n * length + to));
      assertSame(`the logits after ${to} tokens`, [...logits.data], expected);
    }
  });

  law("documents packed in one row are computed as each alone", async (folder) => {
    writeModel(folder, family);
    using model = await load(family, folder);
    const documents = [text(8), text(9, 20)];
    const packed = await given(model, {
      inputIds: ids([documents.flat()]),
      documentStart: ids([[...documents[0].map(() => 0), ...documents[1].map(() => 8)]]),
    });
    for (const [n, [from, to]] of [[0, 8], [8, 17]].entries()) {
      const alone = await given(model, { inputIds: ids([documents[n]]) });
      assertSame(`document ${n}`, tokens(packed, from, to), [...alone.data]);
    }
  });

  if (family.gguf === undefined) continue;
  const ggufFamily = family as DecoderFamily & GgufFamily;

  for (const [key, own] of Object.entries(ggufFamily.gguf.keys ?? {})) {
    law(`the GGUF key ${key} is config.json's ${own.config}`, () => {
      const config = configOf(family), named = `${ggufFamily.gguf.name}.${key}`;
      const read = (without?: string) => {
        using source = openGguf(memoryBytes("a.gguf", ggufOf(ggufFamily, config, without)));
        return [configFromGguf(source).raw[own.config], ...source.notes];
      };
      assertEquals(read(), [config[own.config]]);
      assert(ggufKey(named, ggufFamily.gguf.name)?.here.includes(own.config), "it has a row");
      if (own.absent === undefined) assertThrows(() => read(key), FileError, `does not say ${named}`);
      else {
        assertEquals(read(key), [own.absent]);
        assertNotEquals(config[own.config], own.absent, "the example's value is what absence means");
      }
    });
  }

  law("a GGUF file of the same weights is the same model", async (folder) => {
    // Such a file says nothing of windows, unless that is a key of the architecture: all tokens are seen.
    const { keys = {} } = ggufFamily.gguf, windowed = Object.hasOwn(keys, "attention.sliding_window");
    const [reads] = families.filter(({ gguf }) => gguf?.name === ggufFamily.gguf.name);
    for (const tie_word_embeddings of [true, false]) {
      const config = { ...configOf(family), tie_word_embeddings };
      writeModel(`${folder}/a`, family, config);
      Deno.writeFileSync(`${folder}/a.gguf`, ggufOf(ggufFamily, config));
      using model = await load(family, `${folder}/a`);
      using fromGguf = await load(reads, `${folder}/a.gguf`);
      const [a, b] = [model, fromGguf].map((one) => flatten<Tensor>(one.params));
      assertEquals(b.paths, a.paths);
      assertEquals(await oracle.read(b.leaves), await oracle.read(a.leaves));
      const seesAll = windowed ? model : family.over({ ...model.sizes, windows: undefined }, model.params);
      const inputs = { inputIds: ids([text(9)]) };
      assertSame("the logits", [...(await given(fromGguf, inputs)).data], [...(await given(seesAll, inputs)).data]);
    }
  });
}
