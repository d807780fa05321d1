import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { DeviceError } from "../core/errors.ts";
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import { outlineModel } from "../models/load/load_model.ts";
import { resolveConfig } from "../train/options/config.ts";
import { chooseOptimiser, chooseTrainee } from "./choose_trainee.ts";
import type { Terminal } from "./command.ts";
import { planMemory } from "./train_watch.ts";
import { causalLM } from "../train/objectives/causal_lm.ts";

const quiet = { say: () => {} } as unknown as Terminal;

Deno.test("a run that does not fit is answered with the cheapest change that makes it fit, by its estimate", async () => {
  using device = await openCpu({ threads: 1 });
  const config = resolveConfig({}, { targets: ["all-linear"] });
  using opened = await outlineModel("tests/goldens/cases/llama-gguf/llama-Q4_1.gguf", { device });
  const traineeOf = (held: unknown, byBlocks: boolean) =>
    chooseTrainee(held as never, { ...config, checkpointBlocks: byBlocks });
  const { trainee, tuned } = traineeOf(opened.outline, false);
  const optimiser = chooseOptimiser(tuned, config);
  /** The change that is named where there is a memory of so many bytes; null where the run fits. */
  const changeAt = (capacity: number): string | null => {
    const plan = () =>
      planMemory({
        trainee,
        byBlocks: true,
        otherwise: ({ packed, byBlocks }) =>
          traineeOf(packed ? opened.heldAs("packed") : opened.outline, byBlocks).trainee,
        plan: {
          objective: causalLM,
          ...{ device, optimiser, clip: 1, batch: 1, accumulate: 1, lengths: [16], keepBest: true, samples: 40e3 },
        },
        device: { description: device.description, capacity },
        terminal: quiet,
      });
    try {
      plan();
      return null;
    } catch {
      const { message } = assertThrows(plan, DeviceError);
      return message.match(/: use (.*) \(about [\d.]+ [kM]B\)\.$/)?.[1] ?? message;
    }
  };
  const { total } = planMemory({
    ...{ trainee, byBlocks: false, otherwise: () => null, device, terminal: quiet },
    plan: {
      objective: causalLM,
      device,
      optimiser,
      clip: 1,
      batch: 1,
      accumulate: 1,
      lengths: [16],
      keepBest: true,
      samples: 40e3,
    },
  });
  assertEquals(changeAt(total), null);
  assertEquals(changeAt(total - 1), "--samples 0");
  // Without samples it is too much still; packed, the weights take a fifth.
  assertEquals(changeAt(total - 41e3), "--dtype packed");
  assertMatch(changeAt(10e3)!, /shorten the rows with --seq, or choose a smaller model/);
});
