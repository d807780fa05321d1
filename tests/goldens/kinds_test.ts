/** What is reported of golden cases that can't be run: a kind that nothing names is a failure, whatever keys its case.json has. */
import { assertEquals } from "@std/assert";
import { goldenCase } from "./golden_case.ts";
import { kindOf, reasonToSkip } from "./kinds.ts";

Deno.test("a case is run, named as not built, without its base, or of no kind that is known", () => {
  const root = Deno.makeTempDirSync();
  const make = (id: string, files: Record<string, unknown>) => {
    for (const [name, contents] of Object.entries(files)) {
      const path = `${root}/${id}/${name}`;
      Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
      Deno.writeTextFileSync(path, JSON.stringify(contents));
    }
    const golden = goldenCase(root, id);
    return [reasonToSkip(golden), kindOf(golden)?.name ?? null];
  };
  try {
    assertEquals(make("strange", { "case.json": { what: "a new kind", source: "a paper" } }), [null, null]);
    const lora = { "case.json": { base: "b/model" }, "adapter/adapter_config.json": { peft_type: "LORA" } };
    assertEquals(make("alone", lora)[0], "its base b/model is not there");
    assertEquals(
      make("b", { "case.json": {}, "model/config.json": { model_type: "t5" } })[0],
      "the architecture t5 is not supported yet",
    );
    assertEquals(
      make("tokens", { "case.json": {}, "adapter/adapter_config.json": { peft_type: "TRAINABLE_TOKENS" } })[0],
      "the method TRAINABLE_TOKENS is not supported yet",
    );
    assertEquals(make("new", { "case.json": {}, "adapter/adapter_config.json": { peft_type: "NEXT" } }), [null, null]);
    assertEquals(make("obj-grpo-2", { "case.json": { source: "TRL" } })[0], "the objective grpo is not supported yet");
    assertEquals(make("obj-new", { "case.json": { source: "TRL" } }), [null, null]);
    assertEquals(
      make("some-real", { "case.json": { source: { package: "p" } }, "tokens.json": {} })[0]?.slice(0, 21),
      "it needs a real model",
    );
    assertEquals(make("counts", { "case.json": {}, "numbers.json": {} }), [null, "numbers"]);
  } finally {
    Deno.removeSync(root, { recursive: true });
  }
});
