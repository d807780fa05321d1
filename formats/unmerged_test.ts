import { assertEquals, assertStringIncludes } from "@std/assert";
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import { generator } from "../models/generate/generate.ts";
import { lora } from "../lora/mod.ts";
import { loadModel } from "../models/load/load_model.ts";
import { loadAdapter } from "./tuned_model.ts";
import { mergeParams } from "./merge.ts";
import { unmergedSteps } from "./unmerged.ts";

const cases = `${import.meta.dirname}/../tests/goldens/cases`;

Deno.test("an adapter that is not merged generates what the merged model does, and not what the base does", async () => {
  using device = await openCpu({ threads: 1 });
  using model = await loadModel(`${cases}/gpt2-base/model`, { device });
  const tuned = loadAdapter(`${cases}/gpt2-lora-basic/adapter`, model);
  const options = { maxNewTokens: 6 };
  const prompts = [[5, 17, 90], [44]];
  const { trainable, frozen } = tuned;
  const beside = await generator(unmergedSteps(model, tuned))({ trainable, frozen }, prompts, options);
  const plain = generator(model);
  assertEquals(beside, await plain(mergeParams(tuned, trainable), prompts, options));
  const base = await plain(model.params, prompts, options);
  assertEquals(beside.some(({ ids }, i) => ids.join() !== base[i].ids.join()), true);
});

Deno.test("an adapter that acts from its invocation on says why it is generated with beside its base", async () => {
  using device = await openCpu({ threads: 1 });
  using model = await loadModel(`${cases}/gpt2-base/model`, { device });
  const options = { r: 2, alpha: 4, targets: ["c_attn"] } as const;
  assertEquals(lora<any, any, any>(model, options).unmergeable, null);
  const { unmergeable } = lora<any, any, any>(model, { ...options, aloraInvocationTokens: [7] });
  assertStringIncludes(unmergeable!, "only from its invocation on");
});
