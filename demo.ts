/**
 * What train.ts does, with a real chat model: SmolLM2-135M-Instruct learns to answer letters with JSON. The adapter is merged,
 * the merged model saved and loaded again, and that one is measured. `deno task model:smollm2` brings the model first.
 */
import { letterInstruction, realLettersTask } from "./examples/letters/mod.ts";
import { teach } from "./train.ts";

await teach({
  model: ".cache/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
  out: "out/smollm2",
  seed: "1",
  targets: ["q_proj", "v_proj"],
  task: realLettersTask,
  system: letterInstruction,
  saveMerged: true,
});
