/** A few steps on the letters, the same in Deno and in a page. */
import type { Device } from "../../kernels/device/device.ts";
import { lora } from "../../lora/mod.ts";
import { loadModel } from "../../models/mod.ts";
import { train } from "../../train/loop.ts";
import { lettersTask } from "../../examples/letters/tasks.ts";

/** The losses of four steps of two letters each. `place` is where the embedded model is. */
export async function sampleLosses(device: Device, place: string): Promise<readonly number[]> {
  using model = await loadModel(place, { device });
  const { examples } = lettersTask(model.tokenizer());
  const tuned = lora(model, { r: 4, alpha: 8, targets: "all-linear" });
  const { losses } = await train(tuned, { data: examples, steps: 4, batch: 2, lr: 5e-3 });
  return losses;
}
