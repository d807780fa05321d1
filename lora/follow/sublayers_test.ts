/** Bottleneck layers where a model adds to its stream, whatever its blocks look like. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { OptionError } from "../../core/errors.ts";
import { type HostTensor, tensor } from "../../core/tensor.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import { evaluate } from "../../kernels/runtime/read.ts";
import { checkpointBlocks } from "../../models/families/checkpoint_blocks.ts";
import { loadClassifier, loadModel } from "../../models/load/load_model.ts";
import { lora, methods, together, tune } from "../mod.ts";

const cases = `${import.meta.dirname}/../../tests/goldens/cases`;
const tuneAny = (model: any, options: any) => tune<any, any, any, any>(model, methods.bottleneck, options);
const paths = (tuned: { matched: readonly { path: string }[] }) => tuned.matched.map(({ path }) => path);

Deno.test("layers stand after attention and feed-forward parts of every block, or after the latter alone", async () => {
  using device = await openCpu();
  using gpt2 = await loadModel(`${cases}/gpt2-base/model`, { device });
  using llama = await loadModel(`${cases}/llama-base/model`, { device });
  using bert = await loadClassifier(`${cases}/bert-seqcls/model`, { device });
  const both = (...ends: string[]) => [0, 1].flatMap((i) => ends.map((end) => end.replace("*", `${i}`)));
  assertEquals(paths(tuneAny(gpt2, {})), both("h.*.attn.c_proj", "h.*.mlp.c_proj"));
  assertEquals(paths(tuneAny(llama, {})), both("layers.*.self_attn.o_proj", "layers.*.mlp.down_proj"));
  const ofBert = both("encoder.layer.*.attention.output.dense", "encoder.layer.*.output.dense");
  assertEquals(paths(tuneAny(bert, {})), ofBert);
  const pfeiffer = { architecture: "pfeiffer" };
  assertEquals(paths(tuneAny(gpt2, pfeiffer)), both("h.*.mlp.c_proj"));
  assertEquals(paths(tuneAny(bert, pfeiffer)), both("encoder.layer.*.output.dense"));
  assertEquals(paths(tuneAny(llama, { ...pfeiffer, layers: [1] })), ["layers.1.mlp.down_proj"]);
  const inputs = { inputIds: tensor(device, [[5, 6, 7]], "i32") };
  for (const options of [{ reductionFactor: 4 }, { ...pfeiffer, scaling: 2 }]) {
    for (const model of [gpt2, llama, bert]) {
      const tuned = tuneAny(model, options);
      const run = async (of: any) => await evaluate(of.apply(tuned.trainable, tuned.frozen, inputs)) as HostTensor;
      const [own, blocks] = [await run(tuned), await run(tuneAny(checkpointBlocks(model as any), options))];
      const scale = Math.max(...Array.from(own.data, Math.abs));
      own.data.forEach((x, i) =>
        assert(Math.abs(x - blocks.data[i]) <= 2 ** -18 * scale, `${x} and ${blocks.data[i]}`)
      );
      const base = await evaluate((model as any).apply(model.params, inputs)) as HostTensor;
      assert(own.data.some((x, i) => x !== base.data[i]), "the layers do nothing");
    }
  }
});

Deno.test("beside an adapter of the same modules, the layers read what that makes of them", async () => {
  using device = await openCpu();
  using model = await loadModel(`${cases}/llama-base/model`, { device });
  const inputs = { inputIds: tensor(device, [[5, 6, 7]], "i32") };
  const layers = tuneAny(model, { reductionFactor: 4 });
  const pair = lora<any, any, any>(model, { r: 2, alpha: 4, targets: ["o_proj", "down_proj"], init: false });
  const both = together<any, any, any, string>({ layers, pair });
  const over = tuneAny({ ...model, params: pair.merge(pair.trainable, pair.frozen) }, { reductionFactor: 4 });
  const [a, b] = [
    await evaluate(both.apply(both.trainable, both.frozen, inputs)) as HostTensor,
    await evaluate(over.apply(layers.trainable, over.frozen, inputs)) as HostTensor,
  ];
  const scale = Math.max(...Array.from(b.data, Math.abs));
  a.data.forEach((x, i) => assert(Math.abs(x - b.data[i]) <= 2 ** -16 * scale, `${x} and ${b.data[i]}`));
});

Deno.test("what bottleneck layers can't be is refused by name", async () => {
  using device = await openCpu();
  using model = await loadModel(`${cases}/gpt2-base/model`, { device });
  const refuses = (options: any, word: string) => assertThrows(() => tuneAny(model, options), OptionError, word);
  refuses({ architecture: "parallel" }, "houlsby");
  refuses({ nonLinearity: "tanh" }, "swish");
  refuses({ reductionFactor: 0 }, "reductionFactor");
  refuses({ targets: ["c_attn"] }, "targets");
  const tuned = tuneAny(model, {});
  assertThrows(() => tuned.merge(tuned.trainable, tuned.frozen), OptionError, "can't be merged");
});
