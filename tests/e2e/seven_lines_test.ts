/** The program that the README begins with, as a user runs it: typed, in a folder of its own, on the model that ships here. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { loadAdapter, loadModel, lora, openDevice, train } from "../../mod.ts";
import { DataError, DeviceError, OptionError } from "../../core/errors.ts";
import { assertAllClose } from "../../testing/all_close.ts";
import { evaluate } from "../../kernels/runtime/read.ts";
import { tensor } from "../../core/tensor.ts";
import { outlineModel } from "../../models/load/load_model.ts";

const base = new URL("../../assets/letters-base", import.meta.url).pathname.replace(/^\/(?=[A-Za-z]:)/, "");
const chat = (user: string, assistant: string) =>
  JSON.stringify({ messages: [{ role: "user", content: user }, { role: "assistant", content: assistant }] });
const rows = ["kettle", "lamp", "chair"].map((thing) => chat(`My ${thing} leaks.`, ` ${thing}`)).join("\n") + "\n";

/** The first program of a page. */
const programOf = (page: string) =>
  /```ts ignore\n(import \{ loadModel[^`]*)```/.exec(
    Deno.readTextFileSync(new URL(`../../${page}`, import.meta.url)),
  )![1];

Deno.test("the seven lines of the README and the quick start are one program, which runs as it stands", async () => {
  const program = programOf("README.md");
  assertEquals(programOf("docs/quick_start.md"), program);
  assertEquals(program.trimEnd().split("\n").length, 7);
  const here = Deno.makeTempDirSync({ prefix: "lowrank-seven-" });
  try {
    // Another model, since a test brings none from the hub, and its names of modules.
    const small = program
      .replace('"HuggingFaceTB/SmolLM2-135M-Instruct"', JSON.stringify(base))
      .replace('["q_proj", "v_proj"]', '["c_attn"]')
      .replace("steps: 100", "steps: 8");
    Deno.writeTextFileSync(join(here, "program.ts"), small);
    Deno.writeTextFileSync(join(here, "rows.jsonl"), rows);
    const map = new URL("../../offline.json", import.meta.url).pathname;
    const args = ["run", "--check", "--quiet", "--no-lock", `--import-map=${map}`, "--allow-read", "--allow-write=out"];
    const { success, stdout, stderr } = await new Deno.Command("deno", {
      args: [...args, "program.ts"],
      cwd: here,
      env: { NO_COLOR: "1" },
    }).output();
    assert(success, new TextDecoder().decode(stderr));
    assert(stdout.length > 0, "it answers");
    const config = JSON.parse(Deno.readTextFileSync(join(here, "out/rows/adapter_config.json")));
    assertEquals([config.r, config.base_model_name_or_path], [8, base]);
  } finally {
    Deno.removeSync(here, { recursive: true });
  }
});

const textOf = async (pieces: AsyncIterable<string>) => {
  let text = "";
  for await (const piece of pieces) text += piece;
  return text;
};

Deno.test("what was trained is saved, loaded, merged and talked to, and what it began as stays as it was", async () => {
  using device = await openDevice("cpu");
  using model = await loadModel(base, { device });
  const here = Deno.makeTempDirSync({ prefix: "lowrank-seven-" });
  try {
    const data = join(here, "rows.jsonl");
    Deno.writeTextFileSync(data, rows);
    const tuned = lora(model, { r: 8, alpha: 16, targets: ["c_attn", "c_fc"], dropout: 0.1 });
    const run = await train(tuned, { data, steps: 40, lr: 1e-2 });
    assertEquals(run.tuned.trainable, run.trainable);
    const short = { maxNewTokens: 12 };
    const learned = await textOf(run.tuned.chat("My lamp leaks.", short));
    assert(learned.startsWith(" lamp"), learned);
    // Of the adapter that it began with, and of the base, the function is the same: B is zero.
    const plain = await textOf(model.chat("My lamp leaks.", short));
    assertEquals(await textOf(tuned.chat("My lamp leaks.", short)), plain);
    assert(plain !== learned);
    assertEquals(
      await textOf(model.chat([{ role: "user", content: "My lamp leaks." }], short)),
      plain,
      "a message alone is a conversation of one",
    );
    assert(await textOf(model.generate("Dear ", { maxNewTokens: 1 })) !== "");

    await run.tuned.save(join(here, "adapter"));
    const config = JSON.parse(Deno.readTextFileSync(join(here, "adapter/adapter_config.json")));
    assertEquals([config.base_model_name_or_path, config.lora_dropout], [base, 0.1]);
    const loaded = loadAdapter(join(here, "adapter"), model);
    assertEquals(await textOf(loaded.chat("My lamp leaks.", short)), learned);

    const inputs = { inputIds: tensor(device, [model.tokenizer().encode("My lamp leaks.")], "i32") };
    const merged = run.tuned.merge();
    assertEquals(await textOf({ ...model, params: merged }.chat("My lamp leaks.", short)), learned);
    const want = await evaluate(run.tuned.apply(run.trainable, tuned.frozen, inputs));
    assertAllClose(await evaluate(model.apply(merged, inputs)), want, { rtol: 1e-3, atol: 1e-3 });
    assertAllClose(await evaluate(loaded.apply(loaded.trainable, loaded.frozen, inputs)), want);
    const again = run.tuned.with(run.trainable);
    assertAllClose(await evaluate(again.apply(again.params, inputs)), want);
  } finally {
    Deno.removeSync(here, { recursive: true });
  }
});

Deno.test("what can't be done by fewer lines says so", async () => {
  using device = await openDevice("cpu");
  using opened = await outlineModel(base, { device });
  await assertRejects(() => textOf(opened.outline.chat("Hello")), DeviceError, "load the model first");
  using model = await loadModel(base, { device });
  const tuned = lora(model, { r: 2, alpha: 4, targets: ["c_attn"] });
  await assertRejects(() => train(tuned, { data: [] }), DataError, "there are no rows to learn from");
  const { trainable, frozen, apply } = tuned;
  const bare = { trainable, frozen, apply };
  const error = await assertRejects(() => train(bare, { data: "rows.jsonl" }), OptionError);
  assertStringIncludes(error.message, "has no tokenizer to read it with");
  await assertRejects(() => textOf(model.generate("a", { maxNewTokens: 0 })), OptionError, "can't generate 0 tokens");
});
