/** Real mlx-lm on adapters that we convert: the same logits as ours. */
import { assert } from "@std/assert";
import { type HostTensor, tensor } from "../../core/tensor.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import { evaluate } from "../../kernels/runtime/read.ts";
import { loadModel } from "../../models/load/load_model.ts";
import { uploadAdapter } from "../../formats/adapter.ts";
import { loadAdapter } from "../../formats/tuned_model.ts";
import { readAdapter } from "../../formats/peft/files.ts";
import { readMlxAdapter, writeMlxAdapter } from "../../formats/mlx.ts";
import { apart, peer, readFloats, runScript } from "./peer.ts";

const cases = `${import.meta.dirname}/../goldens/cases`;
const adapters = {
  "llama-base": ["qv", "all7", "dora", "rslora-patterns"].map((name) => `llama-lora-${name}`),
  "gpt2-base": ["basic", "dora", "dora-all", "patterns", "rslora", "layers", "exclude"].map((name) =>
    `gpt2-lora-${name}`
  ),
  "mistral-base": ["mistral-lora"],
  "qwen2-base": ["qwen2-lora"],
  "qwen3-base": ["qwen3-lora"],
};

peer(
  "mlx-lm gives our logits with adapters that we convert, of one rank and of several, and they are read back",
  async (folder) => {
    const ids = [5, 17, 9, 3, 42]; // within the shortest window, of which mlx-lm's models know nothing
    const jobs: { model: string; adapter: string; ids: number[]; out: string }[] = [];
    const ours: Float32Array[] = [];
    using device = await openCpu();
    for (const [base, list] of Object.entries(adapters)) {
      using model = await loadModel(`${cases}/${base}/model`, { device });
      for (const id of list) {
        const adapter = `${folder}/${id}`;
        writeMlxAdapter(adapter, readAdapter(`${cases}/${id}/adapter`), model.config);
        for (
          const { apply, trainable, frozen } of [
            loadAdapter(`${cases}/${id}/adapter`, model),
            uploadAdapter(readMlxAdapter(adapter, model.config), model),
          ]
        ) {
          const logits = await evaluate(
            apply(trainable, frozen, { inputIds: tensor(device, [ids], "i32") }),
          ) as HostTensor;
          ours.push(logits.data as Float32Array);
        }
        jobs.push({ model: `${cases}/${base}/model`, adapter, ids, out: `${folder}/${id}.logits` });
      }
    }
    await runScript("mlx_logits.py", jobs);
    jobs.forEach(({ adapter, out }, i) => {
      const [written, back] = [ours[2 * i], ours[2 * i + 1]], theirs = readFloats(out);
      const [first, second] = [apart(theirs, written), apart(back, written)];
      console.log(
        `${adapter.slice(folder.length + 1)}: ${first.toExponential(1)} and ${second.toExponential(1)} apart`,
      );
      assert(first <= 2e-4 && second <= 1e-5, `${adapter}: ${first}, ${second}`);
    });
  },
);
