import { assert, assertEquals, assertRejects } from "@std/assert";
import { byteSize, type HostArray } from "../../core/dtype.ts";
import { DeviceError, FileError, OptionError } from "../../core/errors.ts";
import type { Leaf } from "../../core/model.ts";
import { lora } from "../../lora/lora.ts";
import type { Tensor, TensorHome } from "../../core/tensor.ts";
import { formatBytes } from "../../core/host/format.ts";
import { flatten } from "../../core/tree.ts";
import { writeTinyModel } from "../../tests/e2e/tiny_model.ts";
import { openModelFiles } from "./model_files.ts";
import { anyLoader, architectures, gpt2, llama, loadModel, outlineModel } from "./load_model.ts";

const cases = `${import.meta.dirname}/../../tests/goldens/cases`;

/** A place for tensors that counts what it is given. */
function home(capacity?: number) {
  const counted = { held: 0, writes: 0 };
  const place: TensorHome = {
    description: "a place for tests",
    capacity,
    allocate: (bytes) => (counted.held += bytes, { bytes }),
    write: (_, data: HostArray) => void (counted.writes += data.byteLength),
    free: ({ bytes }) => void (counted.held -= bytes),
  };
  return { ...counted, place, counted };
}

Deno.test("loading holds what the file stores, vectors as f32, and disposing frees it", async () => {
  const { place, counted } = home();
  const steps: number[] = [];
  {
    using model = await loadModel(`${cases}/llama-bf16-sharded/model`, {
      device: place,
      onProgress: (held, total) => steps.push(held / total),
    });
    assertEquals(model.architecture, "llama");
    const params = flatten<Tensor>(model.params);
    params.leaves.forEach((t, i) => assertEquals(t.dtype, t.shape.length > 1 ? "bf16" : "f32", params.paths[i]));
    const bytes = params.leaves.reduce((n, t) => n + t.size * byteSize[t.dtype], 0);
    assertEquals([counted.held, counted.writes], [bytes, bytes]);
  }
  assertEquals(counted.held, 0);
  assert(steps.every((x, i) => x > (steps[i - 1] ?? 0)) && steps.at(-1) === 1);
});

Deno.test("an outline is the model on placeholders, of which nothing was read", async () => {
  const { place, counted } = home();
  for (const model of ["gpt2-base/model", "llama-bf16-sharded/model", "bert-base/model"]) {
    const open = () => openModelFiles(`${cases}/${model}`, architectures);
    const files = open();
    const unread = { ...files.source, read: () => assert(false, "a weight was read") as never };
    using opened = anyLoader(files.config).outline({ ...files, source: unread }, { device: place });
    assertEquals(opened.heldAs("packed"), null, "no weight of it is in blocks");
    const planned = lora<any, any, any>(opened.outline as any, { r: 2, alpha: 4, targets: "all-linear" });
    assert(planned.matched.length > 0);
    assertEquals(counted.held, 0);
    using loaded = await anyLoader(files.config).fromFiles(open(), { device: place });
    const shapes = (params: unknown) => flatten<Leaf>(params).leaves.map(({ aval }) => aval);
    assertEquals(shapes(opened.outline.params), shapes(loaded.params));
  }
  using packed = await outlineModel(`${cases}/llama-gguf/llama-Q4_1.gguf`, { device: place });
  const types = (params: unknown) => new Set(flatten<Leaf>(params).leaves.map(({ aval }) => aval.dtype));
  assertEquals(types(packed.outline.params), new Set(["f32"]));
  assert(types(packed.heldAs("packed")!.params).has("q4_1"));
});

Deno.test("a dtype is honoured, and an unknown one is refused", async () => {
  const { place } = home();
  using model = await gpt2.load(`${cases}/gpt2-base/model`, { device: place, dtype: "f16" });
  assertEquals(model.params.wte.weight.dtype, "f16");
  await assertRejects(
    () => gpt2.load(`${cases}/gpt2-base/model`, { device: place, dtype: "f64" as "f32" }),
    OptionError,
    "weights can't be held as f64: choose f32, f16, bf16 or packed",
  );
});

Deno.test("a head of its own in the file of a tied model is used where it differs, and is a copy where not", async () => {
  const folder = Deno.makeTempDirSync();
  try {
    for (const difference of [0, 1]) {
      await writeTinyModel(folder, {
        weights: (all) => {
          const { data, ...aval } = all.get("wte.weight")!;
          all.set("lm_head.weight", { ...aval, data: data.map((x, i) => x + (i === 7 ? difference : 0)) });
        },
      });
      using model = await gpt2.load(folder, { device: home().place });
      const untied = difference !== 0;
      assertEquals([model.params.lm_head !== undefined, Object.keys(model.tied ?? {}).length], [
        untied,
        untied ? 0 : 1,
      ]);
      assertEquals(model.config.flag("tie_word_embeddings"), !untied);
    }
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

/** A .gguf file's bytes with some tensors declared as another type, whose blocks must be no larger. */
function retyped(path: string, names: readonly string[], type: number): Uint8Array<ArrayBuffer> {
  const bytes = Deno.readFileSync(path);
  const text = new TextDecoder("latin1").decode(bytes);
  const view = new DataView(bytes.buffer);
  for (const name of names) {
    const after = text.indexOf(name) + name.length;
    view.setUint32(after + 4 + 8 * view.getUint32(after, true), type, true);
  }
  return bytes;
}

Deno.test("weights that can't stay packed are reported: which, of what type, and what that costs", async () => {
  const file = `${cases}/llama-gguf/llama-Q8_0.gguf`;
  const q5 = 6; // the format's number of Q5_0
  const path = Deno.makeTempFileSync({ suffix: ".gguf" });
  try {
    Deno.writeFileSync(
      path,
      retyped(file, ["blk.0.ffn_down.weight", "blk.1.ffn_down.weight", "blk.1.attn_q.weight"], q5),
    );
    const { place } = home();
    using packed = await llama.load(path, { device: place, dtype: "packed" });
    const [{ self_attn: { q_proj } }, { mlp: { down_proj } }] = packed.params.layers;
    const values = (q_proj.weight as Tensor).size + 2 * (down_proj.weight as Tensor).size;
    assertEquals(packed.notes, [
      `3 weights of type Q5_0 can't stay packed and are held as f32, ${
        formatBytes(values * (4 - 22 / 32))
      } more than in ` +
      "the file: layers.*.mlp.down_proj.weight (2), layers.*.self_attn.q_proj.weight",
    ]);
    using whole = await loadModel(file, { device: place, dtype: "packed" });
    using plain = await loadModel(path, { device: place });
    assertEquals([whole.notes, plain.notes], [[], []]);
  } finally {
    Deno.removeSync(path);
  }
});

Deno.test("too little memory is reported before a weight is read, with what would fit", async () => {
  const { place, counted } = home(300_000);
  await assertRejects(
    () => llama.load(`${cases}/llama-base/model`, { device: place }),
    DeviceError,
    "needs 423 kB, one memory of a place for tests holds 300 kB: use --dtype bf16 (212 kB)",
  );
  const small = home(1000);
  await assertRejects(
    () => llama.load(`${cases}/llama-base/model`, { device: small.place }),
    DeviceError,
    "choose a smaller model or a device with more memory",
  );
  assertEquals([counted.writes, small.counted.writes], [0, 0]);
});

Deno.test("a loader of one architecture refuses another, naming both", async () => {
  await assertRejects(
    () => gpt2.load(`${cases}/llama-base/model`, { device: home().place }),
    FileError,
    "is of the architecture llama; supported: gpt2",
  );
});
