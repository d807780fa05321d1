/** A model is a function and a tree of weights: LoRA knows none by name. */
import { assertEquals, assertMatch } from "@std/assert";
import { filesUnder, textOf } from "../sources.ts";

Deno.test("no code in lora/ names a model, or a module of one", () => {
  // What PEFT's "all-linear" leaves out is a rule of PEFT's about names of heads, whatever the model.
  const names = /gpt|llama|bert|mistral|qwen|c_attn|c_proj|c_fc|_proj\b|wte|embed_tokens/i;
  for (const file of filesUnder("lora/")) {
    if (file.endsWith("_test.ts")) continue;
    const code = textOf(file).replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, "");
    assertEquals(code.split("\n").filter((line) => names.test(line)), [], file);
  }
});

Deno.test("a user's own model is trained, adapted and learns a second rule", async () => {
  const { stdout } = await new Deno.Command("deno", {
    args: ["run", "--quiet", "--no-prompt", "--import-map=offline.json", "examples/own_model.ts"],
    env: { NO_COLOR: "1" },
  }).output();
  const said = new TextDecoder().decode(stdout);
  assertMatch(said, /the base counts in ones: loss 0\.0/);
  assertMatch(said, /mix\.query 64, mix\.value 64, inner\.up 160, inner\.down 160/);
  assertMatch(said, /the adapter counts in threes: loss 0\.0/);
});
