/** The commands on adapters and models as files, on the golden ones. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { FileError } from "../core/errors.ts";
import { readAdapter } from "../formats/peft/files.ts";
import { type Command, type Terminal, UsageError } from "./command.ts";
import { command as combine } from "./combine.ts";
import { command as convert } from "./convert.ts";
import { command as diff } from "./diff.ts";
import { command as inspect } from "./inspect.ts";
import { openSafetensors } from "../models/load/safetensors/safetensors.ts";
import { command as merge } from "./merge.ts";
import { command as verify } from "./verify.ts";
import { inFolder } from "../tests/folder.ts";

const cases = `${import.meta.dirname}/../tests/goldens/cases`;
const cpu = ["--device", "cpu", "--threads", "1"];

/** Runs a command; what it printed, its object, and what it warned of. */
async function run(command: Command, ...args: string[]): Promise<{ text: string; result: any; warnings: string[] }> {
  const found = { text: "", result: null as any, warnings: [] as string[] };
  const terminal: Terminal = {
    ...{ json: false, quiet: false, color: false, columns: 80, say: () => {} },
    print: (text) => found.text += `${text}\n`,
    write: (piece) => (found.text += piece) !== "",
    result: (value) => found.result = JSON.parse(JSON.stringify(value)),
    warn: (line) => found.warnings.push(line),
  };
  await command.run(args, terminal);
  return found;
}

Deno.test("inspect tells a model's tree, and what targets match, without reading a weight", async () => {
  const { text, result } = await run(inspect, `${cases}/gpt2-base/model`, "--targets", "c_attn,mlp.c_proj", "--r", "4");
  assertStringIncludes(text, "gpt2, 120,640 parameters in 483 kB");
  assertStringIncludes(text, "transformer.h.*.mlp.c_proj.weight   256 x 64  F32  2 layers");
  assertStringIncludes(text, "trainable 4,608 of 125,248");
  assertEquals(result.matched.map((m: any) => m.path).slice(0, 2), ["h.0.attn.c_attn", "h.0.mlp.c_proj"]);
  for (const line of text.split("\n").slice(1)) assert(line.length <= 80, line);
  const gguf = await run(inspect, `${cases}/llama-gguf/llama-Q4_1.gguf`, "--targets", "all-linear");
  assertStringIncludes(gguf.text, "Q4_1  2 layers");
  assertEquals(gguf.result.matched.length, 14);
});

Deno.test("inspect tells an adapter's modules, ranks and scalings, and whether it fits a model", async () => {
  const adapter = `${cases}/llama-lora-rslora-patterns/adapter`;
  const { text, result } = await run(inspect, adapter, "--model", `${cases}/llama-base/model`);
  assertStringIncludes(text, "model.layers.*.self_attn.q_proj  A B  r 2  scaling 2.82843  2 layers");
  assertStringIncludes(text, "keys       base_model.model.model.layers.0.mlp.down_proj…");
  assertEquals([result.kind, result.format, result.parameters, result.modules.length], ["adapter", "peft", 14400, 12]);
  await assertRejects(() => run(inspect, adapter, "--model", `${cases}/gpt2-base/model`), FileError, "is not for this");
  const whole = await run(inspect, `${cases}/bert-lora/adapter`, "--model", `${cases}/bert-seqcls/model`);
  assertStringIncludes(whole.text, "bias weight");
});

Deno.test("verify shows each layer's difference beside its bound", async () => {
  const { text, result } = await run(
    verify,
    ...[`${cases}/gpt2-lora-patterns/adapter`, "--model", `${cases}/gpt2-base/model`, ...cpu],
  );
  const row = text.split("\n").find((line) => line.startsWith("h.1.mlp.c_fc"))!;
  assert(/^h\.1\.mlp\.c_fc +2 +8 +\d\.\de-\d+ +\d\.\de-\d+ +0\.\d{3}$/.test(row), row);
  assertEquals([result.layers.length, result.holds], [8, true]);
  for (const { difference, bound, ratio } of result.layers) assert(difference <= bound && ratio <= 1 && difference > 0);
});

Deno.test("merge writes a model that differs from its base by the adapter alone", () =>
  inFolder(async (folder) => {
    const [base, out] = [`${cases}/llama-base/model`, `${folder}/merged`];
    const args = [`${cases}/llama-lora-embed/adapter`, "--model", base, "--out", out, ...cpu];
    const split = await run(merge, ...args, "--shard-bytes", "100000");
    assertStringIncludes(
      split.text,
      "files of weights, model.safetensors.index.json, generation_config.json, config.json",
    );
    assertEquals(split.warnings, [
      "note: lm_head gets a weight of its own, since only one use of embed_tokens is adapted",
    ]);
    const { result } = await run(diff, base, out);
    assertEquals([result.onlyB, result.options.map((o: any) => o.key)], [["lm_head.weight"], ["tie_word_embeddings"]]);
    const changed = result.tensors.filter((t: any) => t.difference > 0).map((t: any) => t.name);
    assertEquals(changed.sort(), [
      "model.embed_tokens.weight",
      "model.layers.0.self_attn.q_proj.weight",
      "model.layers.1.self_attn.q_proj.weight",
    ]);
    await assertRejects(() => run(merge, ...args), FileError, "add --overwrite");
    await run(merge, ...args, "--tied", "peft", "--dtype", "bf16", "--overwrite");
    assertEquals((await run(diff, base, out)).result.onlyB, []);
    await assertRejects(() => run(merge, args[0], "--model", base), UsageError, "no --out is given");
  }));

Deno.test("merging into a quantised base says which weights the adapter belongs to, and writes f32 or f16", () =>
  inFolder(async (folder) => {
    const [base, out] = [`${folder}/base.gguf`, `${folder}/merged`];
    Deno.copyFileSync(`${cases}/llama-gguf/llama-Q4_1.gguf`, base);
    Deno.copyFileSync(`${import.meta.dirname}/../assets/letters-base/tokenizer.json`, `${folder}/tokenizer.json`);
    const args = [`${cases}/llama-lora-qv/adapter`, "--model", base, "--out", out];
    for (const dtype of ["f32", "f16"]) {
      const { warnings } = await run(merge, ...args, ...(dtype === "f32" ? [] : ["--dtype", dtype, "--overwrite"]));
      assertEquals(warnings, [
        "note: the base is quantised (Q4_1): the adapter belongs to the values that its codes stand for, and is merged into " +
        "these; it does not belong to the model before it was quantised",
      ]);
      using merged = openSafetensors(`${out}/model.safetensors`);
      assertEquals(merged.entry("model.layers.0.self_attn.q_proj.weight").dtype, dtype);
    }
  }));

Deno.test("convert goes from format to format, and PiSSA becomes the plain adapter that PEFT makes of it", () =>
  inFolder(async (folder) => {
    const at = (name: string) => `${folder}/${name}`;
    const model = ["--model", `${cases}/llama-base/model`];
    const adapter = `${cases}/llama-lora-all7/adapter`;
    await run(convert, adapter, "--to", "gguf", "--out", at("a.gguf"), ...model);
    await run(convert, at("a.gguf"), "--to", "mlx", "--out", at("mlx"), ...model);
    await run(convert, at("mlx"), "--to", "peft", "--out", at("peft"), ...model);
    const { result } = await run(diff, adapter, at("peft"));
    assertEquals(result.tensors.map((t: any) => t.difference), result.tensors.map(() => 0));
    assertEquals(result.options.map((o: any) => o.key), ["base_model_name_or_path", "target_modules"]);
    await assertRejects(
      () => run(convert, adapter, "--to", "mlx", "--out", at("peft"), ...model),
      FileError,
      "holds an adapter of another format",
    );

    const [pissa, gpt2] = [`${cases}/gpt2-lora-pissa`, ["--model", `${cases}/gpt2-base/model`]];
    const plain = [`${pissa}/pissa_trained`, "--to", "plain", ...gpt2];
    await run(convert, ...plain, "--out", at("plain"), "--initial", `${pissa}/pissa_init`);
    assertEquals((await run(diff, at("plain"), `${pissa}/converted`)).result.tensors.map((t: any) => t.difference), [
      ...[0, 0, 0, 0],
    ]);
    // Without the folder of its start the singular vectors are computed anew: the same change, as near as goldens are.
    await run(convert, ...plain, "--out", at("anew"));
    const [a, b] = [at("anew"), at("plain")].map((path) => change(path));
    const size = Math.max(...b.map(Math.abs));
    a.forEach((x, i) => assert(Math.abs(x - b[i]) <= 1e-4 * size, `${i}: ${x} and ${b[i]}`));
  }));

Deno.test("convert --to lora says how far the adapter of that rank is from what it stands for", () =>
  inFolder(async (folder) => {
    const args = [`${cases}/gpt2-ia3/adapter`, "--to", "lora", "--model", `${cases}/gpt2-base/model`];
    const whole = await run(convert, ...args, "--rank", "64", "--out", `${folder}/whole`);
    assert(whole.result.error < 1e-6 && whole.result.modules.length === 4, whole.text);
    const few = await run(convert, ...args, "--rank", "4", "--out", `${folder}/few`);
    assertStringIncludes(few.text, "error of all changes together 0.8");
    assertEquals(readAdapter(`${folder}/few`).config.r, 4);
    // A bias that IA3 rescales becomes the branch's own.
    assertEquals(readAdapter(`${folder}/few`).config.lora_bias, true);
  }));

Deno.test("combine writes what PEFT's add_weighted_adapter does, without a base", () =>
  inFolder(async (folder) => {
    const place = `${cases}/gpt2-combine/adapters`;
    const two = ["--weights", "1,-0.5", "--method", "linear", "--out", `${folder}/linear`];
    const { text, result } = await run(combine, `${place}/one`, `${place}/three`, ...two);
    assertStringIncludes(text, "by linear, rank 4, 4 modules");
    assertEquals([result.r, result.modules, result.weights], [4, 4, [1, -0.5]]);
    const compared = await run(diff, `${folder}/linear`, `${place}/linear_negative`);
    for (const { name, difference } of compared.result.tensors) assert(difference < 1e-6, `${name}: ${difference}`);
    const others = compared.result.options.map((o: any) => o.key);
    assert(!others.includes("r") && !others.includes("lora_alpha") && !others.includes("fan_in_fan_out"), `${others}`);
    await assertRejects(
      () => run(combine, `${place}/one`, `${place}/three`, "--weights", "1,1", "--method", "most", "--out", folder),
      UsageError,
      "--method is most: give one of",
    );
  }));

/** B·A of the first layer. */
function change(path: string): number[] {
  const { tensors } = readAdapter(path);
  const [A, B] = ["A", "B"].map((side) =>
    tensors.find(({ key }) => key.includes(`h.0.attn.c_attn.lora_${side}`))!.tensor
  );
  const [r, width] = A.shape;
  return Array.from({ length: B.shape[0] * width }, (_, at) => {
    let sum = 0;
    for (let k = 0; k < r; k++) sum += B.data[Math.floor(at / width) * r + k] * A.data[k * width + at % width];
    return sum;
  });
}

Deno.test("diff tells options, tensors and shapes apart, and takes two of a kind", async () => {
  const multi = `${cases}/gpt2-lora-multi/adapters`;
  const { text, result } = await run(diff, `${multi}/one`, `${multi}/two`);
  assertStringIncludes(text, "transformer.h.0.attn.c_attn.lora_A.weight is [4,64] and [6,64]");
  assertEquals(result.options.map((o: any) => o.key), ["fan_in_fan_out", "lora_alpha", "r"]);
  const same = await run(diff, `${multi}/one`, `${multi}/one`, "--all");
  assertEquals([same.result.equal, same.result.tensors.length], [true, 4]);
  await assertRejects(
    () => run(diff, `${multi}/one`, `${cases}/gpt2-base/model`),
    FileError,
    "give two of the same kind",
  );
});
