/** Real PEFT loads what every method here saves, and gives our logits. */
import { assert, assertEquals } from "@std/assert";
import { type HostTensor, tensor, upload } from "../../core/tensor.ts";
import { mapTree } from "../../core/tree.ts";
import { rngFrom } from "../../data/rng.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import type { Device } from "../../kernels/device/device.ts";
import { evaluate, read } from "../../kernels/runtime/read.ts";
import { saveAdapter } from "../../formats/adapter.ts";
import { type Method, methods, type Trainable, tune, type Tuned } from "../../lora/mod.ts";
import { loadClassifier, loadModel } from "../../models/load/load_model.ts";
import { optionsLike } from "../laws/merge_subjects.ts";
import { apart, peer, readFloats, runScript } from "./peer.ts";

const base = `${import.meta.dirname}/../goldens/cases/llama-base/model`;
const prompt = [[5, 17, 200, 3, 99, 42, 7, 250, 1, 64]];

/** The first values, each a little off. */
async function moved(tuned: Tuned<any, any, any>, device: Device): Promise<Trainable> {
  const { next } = rngFrom(11);
  const isHost = (x: unknown) => (x as HostTensor | null)?.data !== undefined;
  return mapTree<HostTensor, unknown>(
    await read(tuned.trainable),
    ({ shape, data }) =>
      upload(device, { shape, dtype: "f32", data: Float32Array.from(data, (x) => x + 0.2 * (next() - 0.5)) }),
    isHost,
  ) as Trainable;
}

const own = Object.entries<Method<any, any>>(methods).filter(([, { peftType }]) =>
  peftType !== undefined && peftType !== methods.lora.peftType
)
  .flatMap(([name, method]) =>
    [{}, ...method.samples ?? []].map((sample, i) => [i === 0 ? name : `${name}-${i}`, method, sample] as const)
  );

peer("PEFT gives our logits with an adapter of every method that is not LoRA's", async (folder) => {
  using device = await openCpu();
  using model = await loadModel(base, { device });
  const made = [];
  for (const [name, method, sample] of own) {
    const targets = ["q_proj", "v_proj", "down_proj"];
    const options = { ...optionsLike(method, { targets }), ...(!method.whole && { targets }), ...sample };
    const tuned = tune<any, any, any, any>(model, method, options);
    const trainable = await moved(tuned, device);
    const adapter = `${folder}/${name}`, out = `${adapter}.logits`;
    await saveAdapter(adapter, tuned, { trainable });
    const logits = await evaluate(
      tuned.apply(trainable, tuned.frozen, { inputIds: tensor(device, prompt, "i32") }, { whole: true }),
    ) as HostTensor;
    made.push({ name, out, logits, job: { model: base, adapter, kind: "causal", inputs: { input_ids: prompt }, out } });
  }
  const heard = await runScript<Record<string, string[]>>("transformers_logits.py", made.map(({ job }) => job));
  for (const { name, out, logits } of made) {
    const distance = apart(readFloats(out), logits.data);
    console.log(`${name}: ${distance.toExponential(1)} apart`);
    assert(distance <= 1e-5, `${name}: ${distance} apart`);
    assertEquals(heard[out], [], name);
  }
});

peer("PEFT gives our logits of a classifier that tokens are put in front of", async (folder) => {
  const base = `${import.meta.dirname}/../goldens/cases/bert-seqcls/model`;
  using device = await openCpu();
  using model = await loadClassifier(base, { device });
  const inputs = {
    input_ids: prompt.map((row) => row.map((id) => id % 90)),
    attention_mask: [[1, 1, 1, 1, 1, 1, 1, 1, 0, 0]],
  };
  const made = [];
  for (const method of [methods.prefix, methods.prompt, methods.ptuning] as Method<any, any>[]) {
    const tuned = tune<any, any, any, any>(model, method, { numVirtualTokens: 3, modulesToSave: ["classifier"] });
    const trainable = await moved(tuned, device);
    const adapter = `${folder}/${method.name}`, out = `${adapter}.logits`;
    await saveAdapter(adapter, tuned, { trainable });
    const [inputIds, attentionMask] = [inputs.input_ids, inputs.attention_mask].map((x) => tensor(device, x, "i32"));
    const { data } = await evaluate(tuned.apply(trainable, tuned.frozen, { inputIds, attentionMask })) as HostTensor;
    made.push({ name: method.name, out, data, job: { model: base, adapter, kind: "classifier", inputs, out } });
  }
  const heard = await runScript<Record<string, string[]>>("transformers_logits.py", made.map(({ job }) => job));
  for (const { name, out, data } of made) {
    const distance = apart(readFloats(out), data);
    console.log(`a classifier, ${name}: ${distance.toExponential(1)} apart`);
    assert(distance <= 1e-5, `${name}: ${distance} apart`);
    assertEquals(heard[out], [], name);
  }
});
