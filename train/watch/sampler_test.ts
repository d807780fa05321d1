import { assert, assertEquals } from "@std/assert";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import { read } from "../../kernels/runtime/read.ts";
import { lora } from "../../lora/mod.ts";
import { loadModel } from "../../models/load/load_model.ts";
import { writeTinyModel } from "../../tests/e2e/tiny_model.ts";
import { sampleBytes, sampler } from "./sampler.ts";
import { unmergedSteps } from "../../formats/unmerged.ts";
import { causalLM } from "../objectives/causal_lm.ts";
import { encodeRow } from "../objectives/mod.ts";

Deno.test("prompts are continued with the parameters given; memory and parameters are as before", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await writeTinyModel(folder);
    using device = await openCpu({ threads: 1 });
    using model = await loadModel(folder, { device });
    const tokenizer = model.tokenizer();
    const tuned = lora<any, any, any>(model as any, { r: 2, alpha: 4, targets: ["c_attn"] });
    const prompts = [{ prompt: "ask ", completion: "told" }, { text: "a text of words" }].map((row) =>
      causalLM.prompt!(encodeRow(row, tokenizer))
    );
    const before = await read(model.params);
    const { frozen, trainable } = tuned;
    const sample = sampler<any>({
      ...{ model: unmergedSteps(model, tuned), tokenizer, prompts, maxNewTokens: 5 },
      params: (trainable) => ({ trainable, frozen }),
    });
    const made = await sample(trainable);
    // A prompt is what is not learned; of a text that is learned whole, its first third.
    assertEquals(made.map(({ prompt }) => prompt), ["ask ", "a tex"]);
    assert(made.every(({ text }) => typeof text === "string"));
    // The tiny model has 1 layer of width 16; a prompt goes in by 32 tokens, the cache has a multiple of 64 places.
    assertEquals(sampleBytes(model, prompts), 2 * 128 * 16 * 4 * 2);
    const held = device.memory.current;
    assertEquals(await sample(trainable), made);
    assertEquals(device.memory.current, held);
    assertEquals(await read(model.params), before);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
