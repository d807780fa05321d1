import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { FileError, OptionError } from "../core/errors.ts";
import { type HostTensor, type Tensor, tensor } from "../core/tensor.ts";
import type { Leaf } from "../core/model.ts";
import { flatten, mapTree } from "../core/tree.ts";
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import type { Device } from "../kernels/device/device.ts";
import { evaluate, read } from "../kernels/runtime/read.ts";
import { lora, type LoraOptions, pissa } from "../lora/mod.ts";
import { loadModel, outlineModel } from "../models/load/load_model.ts";
import type { LoadedModel } from "../models/load/loader.ts";
import { writeTinyModel } from "../tests/e2e/tiny_model.ts";
import { saveAdapter } from "./adapter.ts";
import { loadAdapter } from "./tuned_model.ts";
import { adapterNames, readAdapter, tensorsByKey, writeAdapter } from "./peft/files.ts";

/** A tiny model with an adapter saved beside it. */
async function withAdapter(
  body: (folder: string, model: LoadedModel, device: Device) => Promise<void> | void,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await writeTinyModel(`${folder}/model`);
    using device = await openCpu({ threads: 1 });
    using model = await loadModel(`${folder}/model`, { device });
    const tuned = lora(model, { r: 2, alpha: 4, targets: ["c_attn", "mlp.c_proj"], rankPattern: { c_attn: 3 } });
    await saveAdapter(`${folder}/adapter`, tuned, { trainable: tuned.trainable, baseModel: "model" });
    await body(folder, model, device);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("an adapter is checked on a model of which no weight was read, and is placeholders there", () =>
  withAdapter(async (folder, model, device) => {
    using opened = await outlineModel(`${folder}/model`, { device });
    const planned = loadAdapter<any, any, any>(`${folder}/adapter`, opened.outline);
    const tuned = loadAdapter<any, any, any>(`${folder}/adapter`, model);
    const shapes = ({ trainable }: { trainable: unknown }) => flatten<Leaf>(trainable).leaves.map(({ aval }) => aval);
    assertEquals(shapes(planned), shapes(tuned));
    assertEquals(planned.matched, tuned.matched);
    edit(`${folder}/adapter`, (tensors) => tensors.delete(key("attn.c_attn", "A")));
    assertThrows(() => loadAdapter<any, any, any>(`${folder}/adapter`, opened.outline), FileError);
  }));

/** Changes the saved adapter: its tensors by key, its configuration. */
function edit(folder: string, change: (tensors: Map<string, HostTensor>, config: any) => void): void {
  const { raw, tensors } = readAdapter(folder);
  const byKey = tensorsByKey(tensors), config = { ...raw };
  change(byKey, config);
  writeAdapter(folder, { config, tensors: byKey });
}

const key = (module: string, side: string) => `base_model.model.transformer.h.0.${module}.lora_${side}.weight`;

Deno.test("missing, unexpected and wrong-shape keys are listed together", () =>
  withAdapter((folder, model) => {
    edit(`${folder}/adapter`, (tensors, config) => {
      tensors.set(key("attn.c_attn", "B"), { shape: [48, 2], dtype: "f32", data: new Float32Array(96) });
      tensors.delete(key("mlp.c_proj", "A"));
      tensors.set("base_model.model.transformer.h.7.mlp.c_proj.lora_A.weight", {
        shape: [1],
        dtype: "f32",
        data: new Float32Array(1),
      });
      tensors.set("base_model.model.transformer.ln_f.bias", { shape: [16], dtype: "f32", data: new Float32Array(16) });
      config.target_modules = ["c_attn", "mlp.c_proj", "c_fc"];
    });
    assertThrows(
      () => loadAdapter(`${folder}/adapter`, model),
      FileError,
      `${folder}/adapter/adapter_model.safetensors does not fit the model and its own configuration. ` +
        `Missing (2): ${key("mlp.c_fc", "A")} and its B, ${key("mlp.c_proj", "A")}. ` +
        `Unexpected (2): base_model.model.transformer.h.7.mlp.c_proj.lora_A.weight, base_model.model.transformer.ln_f.bias. ` +
        `Of the wrong shape (1): ${key("attn.c_attn", "B")} is [48,2], expected [48,3]. Nothing is loaded: `,
    );
  }));

Deno.test("a rank that the configuration does not say is of the wrong shape, not a smaller adapter", () =>
  withAdapter((folder, model) => {
    edit(`${folder}/adapter`, (_, config) => config.r = 4);
    assertThrows(
      () => loadAdapter(`${folder}/adapter`, model),
      FileError,
      "c_attn.lora_A.weight is [3,16], expected [4,16], ",
    );
  }));

Deno.test("both spellings of the prefix are read, and the notes say which", () =>
  withAdapter(async (folder, model) => {
    const plain = loadAdapter(`${folder}/adapter`, model);
    assertEquals(plain.notes, []);
    edit(`${folder}/adapter`, (tensors) => {
      for (const [key, tensor] of [...tensors]) {
        tensors.delete(key);
        tensors.set(key.replace("model.transformer.", "model."), tensor);
      }
    });
    const loaded = loadAdapter(`${folder}/adapter`, model);
    assertEquals(await read(loaded.trainable), await read(plain.trainable));
    assertEquals(loaded.notes, [
      "its keys are spelled base_model.model.h.0.attn.c_attn…, as another class of the same model saves them, where this " +
      "model's own spelling is base_model.model.transformer.h.0.attn.c_attn…; both are read",
    ]);
    // Saved again, it keeps the spelling that it had.
    await saveAdapter(`${folder}/again`, loaded, { trainable: loaded.trainable });
    assertEquals(
      Deno.readFileSync(`${folder}/again/adapter_model.safetensors`),
      Deno.readFileSync(`${folder}/adapter/adapter_model.safetensors`),
    );
  }));

Deno.test("every key of PEFT's configuration is used, says nothing of the result, or is refused by its name", () =>
  withAdapter((folder, model) => {
    const path = `${folder}/adapter/adapter_config.json`;
    const plain = JSON.parse(Deno.readTextFileSync(path));
    const say = (key: string, value: unknown) =>
      Deno.writeTextFileSync(path, JSON.stringify({ ...plain, [key]: value }));
    const load = () => loadAdapter(`${folder}/adapter`, model);
    const refused: [key: string, value: unknown, words: string][] = [
      ["init_lora_weights", "olora", "was initialised by OLoRA and belongs to the base"],
      ["init_lora_weights", "corda", "was initialised by CorDA"],
      ["init_lora_weights", "lora_ga", "was initialised by LoRA-GA"],
      ["init_lora_weights", "loftq", "was initialised by LoftQ"],
      ["init_lora_weights", "pissa_niter_4", "was initialised by PiSSA"],
      ["init_lora_weights", "better", 'init_lora_weights is "better", which is not known here'],
      ["alora_invocation_tokens", ["a"], 'alora_invocation_tokens is ["a"], where a list of token ids is expected'],
      ["layer_replication", [[0, 1]], "layer_replication is [[0,1]]"],
      ["target_parameters", ["mlp.experts"], "target_parameters is"],
      ["megatron_config", { tp: 2 }, "megatron_config is"],
      ["use_qalora", true, "use_qalora is true"],
      ["use_bdlora", { nblocks: 2 }, "use_bdlora is"],
      ["arrow_config", { top_k: 3 }, "arrow_config is"],
      ["monteclora_config", { num_samples: 8 }, "monteclora_config is"],
      ["velora_config", { num_groups: 64 }, "velora_config is"],
      ["kasa_config", { beta: 1 }, "kasa_config is"],
      ["enable_lora", [true, false, true], "enable_lora is [true,false,true], which is not known here"],
      ["use_next_year", true, "use_next_year is true, which is not known here"],
      ["strength", 0.5, "strength is 0.5, which is not known here"],
    ];
    for (const [key, value, words] of refused) {
      say(key, value);
      assertThrows(load, FileError, words);
    }
    const taken: [key: string, value: unknown][] = [
      ...[true, false, null, "gaussian", "orthogonal", "eva", "mica"].map((v) =>
        ["init_lora_weights", v] as [string, unknown]
      ),
      ["loftq_config", { loftq_bits: 4 }],
      ["eva_config", { rho: 2 }],
      ["megatron_core", "megatron.core"],
      ["qalora_group_size", 16],
      ["fan_in_fan_out", false],
      ["layer_replication", []],
      ["use_next_year", false],
    ];
    for (const [key, value] of taken) {
      say(key, value);
      assertEquals(load().notes, []);
    }
  }));

Deno.test("an adapter of a name lies in a folder of its own", () =>
  withAdapter(async (folder, model) => {
    const loaded = loadAdapter(`${folder}/adapter`, model);
    await saveAdapter(`${folder}/many`, loaded, { trainable: loaded.trainable, name: "letters" });
    assertEquals(adapterNames(`${folder}/many`), ["letters"]);
    assertEquals(loadAdapter(`${folder}/many/letters`, model).matched, loaded.matched);
    for (const name of ["../up", "..", ""]) {
      await assertRejects(
        () => saveAdapter(folder, loaded, { trainable: loaded.trainable, name }),
        OptionError,
        "named",
      );
    }
  }));

Deno.test("every option is stored in the files, and read back as it was", () =>
  withAdapter(async (folder, model, device) => {
    const params = model.params as any;
    const more: Partial<LoraOptions>[] = [
      { rslora: true, alphaPattern: { "mlp.c_proj": 8 } },
      { dora: true },
      { loraBias: true },
      { bias: "lora" },
      { bias: "all" },
      { modulesToSave: ["ln_f"] } as Partial<LoraOptions>,
      { modulesToSave: ["lm_head"] } as Partial<LoraOptions>,
      { trainableTokens: [1, 5] },
      { targets: ["c_attn", "wte"] },
      { targets: ["wte"], tie: "all" },
      { exclude: ["mlp.c_proj"], targets: ["c_attn", "c_proj"] },
    ];
    for (const options of more) {
      const tuned = lora(model as any, { r: 2, alpha: 4, targets: ["c_attn", "mlp.c_proj"], ...options } as any);
      const trainable = filled(tuned, device);
      await saveAdapter(`${folder}/each`, tuned, { trainable });
      const loaded = loadAdapter(`${folder}/each`, model);
      const what = JSON.stringify(options);
      assertEquals([loaded.notes, loaded.matched, loaded.saved], [[], tuned.matched, tuned.saved], what);
      assertEquals(await read(loaded.trainable), await read(trainable), what);
      assert(loaded.frozen === params, what);
    }
  }));

Deno.test("parts of a fused projection are saved as the whole one, with zeros between, and mean the same", () =>
  withAdapter(async (folder, model, device) => {
    const tuned = lora(model as any, { r: 2, alpha: 4, targets: ["c_attn[q,v]"] } as any) as any;
    const trainable = filled(tuned, device);
    await saveAdapter(`${folder}/parts`, tuned, { trainable });
    const loaded = loadAdapter(`${folder}/parts`, model) as any;
    assertEquals(loaded.matched.map((m: any) => [m.path, m.r, m.scaling]), [["h.0.attn.c_attn", 4, 2]]);
    const { B } = (await read(loaded.trainable))["h.0.attn.c_attn"];
    assert(B.data.subarray(16 * 4, 32 * 4).every((x: number) => x === 0), "the keys are not adapted");
    const logits = async (t: any, values: any) => {
      const inputIds = tensor(device, [[1, 2, 3]], "i32");
      return (await evaluate(t.apply(values, t.frozen, { inputIds })) as HostTensor).data;
    };
    const [a, b] = [await logits(tuned, trainable), await logits(loaded, loaded.trainable)];
    a.forEach((x, i) => assert(Math.abs(x - b[i]) <= 1e-6, `${i}`));
  }));

Deno.test("a PiSSA adapter is saved as the plain one that it is on the base", () =>
  withAdapter(async (folder, model, device) => {
    const tuned = await pissa(model as any, { r: 2, alpha: 4, targets: ["c_attn"] } as any) as any;
    const trainable = filled(tuned, device);
    await saveAdapter(`${folder}/pissa`, tuned, { trainable });
    const loaded = loadAdapter(`${folder}/pissa`, model) as any;
    assertEquals(loaded.matched.map((m: any) => [m.r, m.scaling]), [[4, 2]]);
    const inputIds = tensor(device, [[1, 2, 3]], "i32");
    const [a, b] = await Promise.all(
      [[tuned, trainable], [loaded, loaded.trainable]].map(([t, values]) =>
        evaluate(t.apply(values, t.frozen, { inputIds })) as Promise<HostTensor>
      ),
    );
    a.data.forEach((x, i) => assert(Math.abs(x - b.data[i]) <= 1e-5, `${i}`));
  }));

Deno.test("an adapter of every use of a tied weight is under both names, as PEFT has it, and they must agree", () =>
  withAdapter(async (folder, model, device) => {
    const tuned = lora(model as any, { r: 2, alpha: 4, targets: ["wte"], tie: "all" } as any) as any;
    const values = filled(tuned, device);
    await saveAdapter(`${folder}/tied`, tuned, { trainable: values });
    const { config, tensors } = readAdapter(`${folder}/tied`);
    assertEquals([config.ensure_weight_tying, config.target_modules], [true, ["lm_head", "wte"]]);
    const part = (name: string) => tensors.find(({ key }) => key.endsWith(name))!.tensor;
    assertEquals([part("lm_head.lora_A.weight").shape, part("lm_head.lora_B.weight").shape], [[2, 16], [257, 2]]);
    assertEquals(part("lm_head.lora_A.weight").data[1], part("wte.lora_embedding_B").data[2]);
    edit(`${folder}/tied`, (all) => (all.get("base_model.model.lm_head.lora_A.weight")!.data[0] = 9));
    assertThrows(
      () => loadAdapter(`${folder}/tied`, model),
      FileError,
      "says ensure_weight_tying, but base_model.model.lm_head.lora_A.weight is not base_model.model.transformer.wte.lora_",
    );
  }));

Deno.test("a whole weight of every use is under both names; of one name or two scalings, each use is its own", () =>
  withAdapter(async (folder, model, device) => {
    const place = `${folder}/tied`, head = "base_model.model.lm_head.";
    const load = () => loadAdapter(place, model);
    const save = async (options: object) => {
      const tuned = lora(model as any, { r: 2, alpha: 4, targets: ["c_attn"], tie: "all", ...options } as any) as any;
      await saveAdapter(place, tuned, { trainable: filled(tuned, device) });
    };
    await save({ modulesToSave: ["wte"] });
    const keys = () => readAdapter(place).tensors.map(({ key }) => key);
    assert([`${head}weight`, "base_model.model.transformer.wte.weight"].every((name) => keys().includes(name)));
    assertEquals(load().saved.map((s) => s.path), ["wte"]);
    edit(place, (all) => all.get(`${head}weight`)!.data[3] += 1);
    assertThrows(load, FileError, "lm_head.weight is not base_model.model.transformer.wte.weight: save");
    edit(place, (all) => all.delete(`${head}weight`));
    assertEquals(load().unties, [{ module: "lm_head", from: "wte" }]);

    await save({ targets: ["wte"] });
    assertEquals(load().matched.map((m) => m.path), ["wte"]);
    assertEquals(load().unties, []);
    edit(place, (_, config) => config.alpha_pattern = { wte: 3 });
    assertEquals(load().matched.map((m) => [m.path, m.scaling]), [["wte", 1.5], ["lm_head", 2]]);
    // The tensors are one pair; PEFT scales each use by the rank that its own name has.
    edit(place, (_, config) => Object.assign(config, { alpha_pattern: {}, rank_pattern: { lm_head: 4 } }));
    assertEquals(load().matched.map((m) => [m.path, m.r, m.scaling]), [["wte", 2, 2], ["lm_head", 2, 1]]);
    edit(place, (_, config) => config.rank_pattern = { lm_head: 4, wte: 8 });
    assertThrows(load, FileError, "wte");
    edit(place, (_, config) => config.rank_pattern = {});
    edit(place, (all) => ["A", "B"].forEach((side) => all.delete(`${head}lora_${side}.weight`)));
    edit(place, (_, config) => config.target_modules = ["wte"]);
    assertEquals(load().unties, [{ module: "lm_head", from: "wte" }]);
  }));

Deno.test("biases that PEFT saves once more inside its wrappers are not read, and are saved again", () =>
  withAdapter(async (folder, model, device) => {
    const place = `${folder}/wrapped`, more = { bias: "all", modulesToSave: ["ln_f", "h.0.mlp"] };
    const tuned = lora(model as any, { r: 2, alpha: 4, targets: ["c_attn"], ...more } as any) as any;
    await saveAdapter(place, tuned, { trainable: filled(tuned, device) });
    const first = await read(loadAdapter(place, model).trainable as any);
    const copies = ["ln_f.modules_to_save", "ln_f.original_module", "h.0.mlp.modules_to_save.default.c_fc"];
    const key = (module: string) => `base_model.model.transformer.${module}.bias`;
    edit(place, (all) =>
      copies.forEach((copy) => {
        const own = all.get(key(copy.replace(/[.](modules_to_save([.]default)?|original_module)/, "")))!;
        all.set(key(copy), { ...own, data: copy.includes("original") ? own.data.map(() => 7) : own.data } as any);
      }));
    const loaded = loadAdapter(place, model);
    assertEquals(await read(loaded.trainable as any), first);
    const before = Deno.readFileSync(`${place}/adapter_model.safetensors`);
    await saveAdapter(`${folder}/again`, loaded, { trainable: loaded.trainable });
    const sorted = (path: string) => readAdapter(path).tensors.toSorted((a, b) => a.key < b.key ? -1 : 1);
    assertEquals(sorted(`${folder}/again`), sorted(place));
    assertEquals(before.length, Deno.readFileSync(`${folder}/again/adapter_model.safetensors`).length);
  }));

/** An adapter whose every leaf is filled with numbers. */
function filled(tuned: { trainable: any }, device: Device): any {
  let i = 0;
  return mapTree(tuned.trainable, ({ aval: { shape } }: Tensor) => {
    const row = (n: number): any => Array.from({ length: n }, () => 0.1 * Math.sin(++i));
    return tensor(device, shape.length === 1 ? row(shape[0]) : Array.from({ length: shape[0] }, () => row(shape[1])));
  });
}
