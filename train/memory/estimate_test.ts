import { assert, assertEquals, assertThrows } from "@std/assert";
import { DeviceError } from "../../core/errors.ts";
import { read } from "../../kernels/runtime/read.ts";
import { lora } from "../../lora/mod.ts";
import { checkpointBlocks } from "../../models/families/checkpoint_blocks.ts";
import { loadModel } from "../../models/load/load_model.ts";
import { devices } from "../../tests/devices.ts";
import { writeTinyModel } from "../../tests/e2e/tiny_model.ts";
import type { Example } from "../../data/examples.ts";
import { evaluationBatches, evaluator } from "../evaluate.ts";
import { train } from "../loop.ts";
import { requireMemory, smallerBatches } from "./check.ts";
import { estimateMemory } from "./estimate.ts";
import { causalLM } from "../objectives/causal_lm.ts";
import { adamw } from "../optimiser.ts";
import { wholeModel } from "../trainee.ts";
import { watchRun } from "../watch/watch_run.ts";

/** Rows of so many tokens. */
const rowsOf = (seq: number): Example[] =>
  Array.from({ length: 8 }, (_, i) => {
    const ids = Array.from({ length: seq }, (_, j) => (7 * i + 3 * j) % 250);
    return { ids, labels: ids };
  });

interface Case {
  readonly batch: number;
  readonly seq: number;
  readonly accumulate: number;
  readonly byBlocks: boolean;
  readonly whole?: boolean;
  readonly evaluated?: boolean;
}

const cases: readonly Case[] = [
  { batch: 4, seq: 64, accumulate: 1, byBlocks: false },
  { batch: 4, seq: 64, accumulate: 1, byBlocks: true },
  { batch: 2, seq: 32, accumulate: 3, byBlocks: false, evaluated: true },
  { batch: 2, seq: 48, accumulate: 1, byBlocks: false, whole: true },
];

/** Trains a tiny model of some layers on a device: what was estimated, what was used, and the numbers. */
async function measured(path: string, open: typeof devices[number]["open"], c: Case) {
  using device = await open();
  using loaded = await loadModel(path, { device });
  const model = c.byBlocks ? checkpointBlocks(loaded) : loaded;
  const tuned = c.whole
    ? wholeModel(model as any)
    : lora<any, any, any>(model as any, { r: 4, alpha: 8, targets: "all-linear" });
  const { batch, seq, accumulate, evaluated = false } = c;
  const data = rowsOf(seq);
  const optimiser = adamw({ weightDecay: 0 });
  const [{ shape: [rows, length] }] = evaluationBatches(data);
  const estimate = estimateMemory<any, any>(tuned as any, {
    ...{ objective: causalLM, device, batch, accumulate, lengths: [seq], optimiser, clip: 1, keepBest: evaluated },
    evaluation: evaluated ? { batch: rows, lengths: [length] } : undefined,
  });
  using watch = evaluated
    ? watchRun<any>({ steps: 2, device, evaluate: evaluator<any, any>(tuned as any, data), evaluateEvery: 1 })
    : null;
  const run = await train<any, any>(tuned as any, {
    data,
    steps: 2,
    batch,
    accumulate,
    lr: 1e-3,
    seq,
    watch: watch ?? undefined,
  });
  return { estimate, used: device.memory.peak, losses: run.losses, params: await read(run.trainable) };
}

for (const { name, open } of devices) {
  Deno.test(`${name}: the memory that a run takes is within 15 % of the estimate`, async () => {
    const folder = await Deno.makeTempDir();
    try {
      await writeTinyModel(folder);
      // A software GPU takes half a minute to compile each.
      for (const c of name.startsWith("webgpu") ? [cases[2]] : cases) {
        const { estimate, used } = await measured(folder, open, c);
        const off = estimate.total / used - 1;
        assert(Math.abs(off) <= 0.15, `${JSON.stringify(c)}: ${estimate.total} estimated, ${used} used`);
      }
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}

Deno.test("blocks that are computed twice take less memory and change no bit", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await writeTinyModel(folder);
    const [{ open }] = devices;
    const [plain, blocks] = [await measured(folder, open, cases[0]), await measured(folder, open, cases[1])];
    assertEquals([blocks.losses, blocks.params], [plain.losses, plain.params]);
    assert(blocks.used < plain.used && blocks.estimate.activations < plain.estimate.activations);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a run that does not fit is refused with the first change that makes it fit", () => {
  const of = (total: number) => ({ weights: 100e6, trained: 1e6, optimiser: 1e6, activations: total - 102e6, total });
  const device = { description: "cpu (wasm simd, 2 threads)", capacity: 500e6 };
  const remedies = [
    { change: "--checkpoint-blocks", estimate: () => of(600e6) },
    { change: "--checkpoint-blocks --batch 2 --accumulate 2", estimate: () => of(400e6) },
    { change: "never planned", estimate: (): never => assert(false, "planned in vain") as never },
  ];
  assertThrows(
    () => requireMemory(device, of(900e6), () => remedies),
    DeviceError,
    "This run takes about 900.0 MB: weights 100.0 MB, trained 1.0 MB, optimiser 1.0 MB, activations 798.0 MB; " +
      "cpu (wasm simd, 2 threads) holds 500.0 MB: use --checkpoint-blocks --batch 2 --accumulate 2 (about 400.0 MB).",
  );
  assertThrows(() => requireMemory(device, of(900e6), () => []), DeviceError, "shorten the rows with --seq");
  requireMemory(device, of(500e6), () => remedies);
  requireMemory({ description: "a GPU" }, of(9e12), () => remedies);
  assertEquals(smallerBatches(6, 2), [{ batch: 3, accumulate: 4 }, { batch: 1, accumulate: 12 }]);
});
