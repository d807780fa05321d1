import { assert, assertEquals } from "@std/assert";
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import { methods } from "../lora/mod.ts";
import { loadModel } from "../models/load/load_model.ts";
import { loadAdapter, tune } from "./tuned_model.ts";

Deno.test("a model that another method adapts than LoRA writes texts and is saved, too", async () => {
  using device = await openCpu({ threads: 1 });
  using model = await loadModel("assets/letters-base", { device });
  const tuned = tune(model, methods.ia3, { targets: ["c_attn"] });
  const folder = await Deno.makeTempDir();
  try {
    await tuned.save(folder);
    const texts = [];
    for (const one of [tuned, loadAdapter(folder, model)]) {
      let text = "";
      for await (const piece of one.generate("Dear", { maxNewTokens: 4 })) text += piece;
      texts.push(text);
    }
    assert(texts[0].length > 0);
    assertEquals(texts[0], texts[1]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
