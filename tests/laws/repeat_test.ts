/** A run on the processor can be repeated: each way of computing gives the same bits again, on any number of threads. */
import { assert, assertEquals } from "@std/assert";
import { findBlas } from "../../kernels/device/cpu/blas.ts";
import { type CpuOptions, openCpu } from "../../kernels/device/cpu/cpu.ts";
import { read } from "../../kernels/runtime/read.ts";
import { quantize } from "../../kernels/runtime/quantize.ts";
import { lora } from "../../lora/mod.ts";
import { loadModel } from "../../models/load/load_model.ts";
import type { Example } from "../../data/examples.ts";
import { train } from "../../train/loop.ts";
import { withoutBlas } from "../devices.ts";

const base = `${import.meta.dirname}/../../assets/letters-base`;

const paths: Readonly<Record<string, { device: CpuOptions; packed?: boolean }>> = {
  "WebAssembly": { device: { blas: false } },
  "WebAssembly without relaxed SIMD": { device: { blas: false, relaxed: false } },
  "a packed base": { device: { blas: false }, packed: true },
  ...("library" in findBlas() && {
    "a BLAS": { device: { blas: { from: 0 } } },
    "a packed base with a BLAS": { device: { blas: { from: 0 } }, packed: true },
  }),
};
if (withoutBlas !== null) console.log(`Repeated runs with a BLAS are left out: ${withoutBlas}`);

/** Some steps of training: the losses and what was learned. */
async function run({ device: options, packed = false }: typeof paths[string], threads: number) {
  using device = await openCpu({ ...options, threads });
  using model = await loadModel(base, { device });
  const params = packed ? await quantize(model.params, { type: "q8_0", skip: ["wpe"] }) : model.params;
  const tuned = lora({ ...model, params }, { r: 4, alpha: 8, targets: ["c_attn", "c_proj"], dropout: 0.1 });
  const data = Array.from({ length: 6 }, (_, row): Example => {
    const ids = Array.from({ length: 24 }, (_, i) => 5 + (7 * row + 3 * i) % 200);
    return { ids, labels: ids };
  });
  const { losses, trainable } = await train(tuned, { data, steps: 3, batch: 3, lr: 1e-2 });
  return { losses, trainable: await read(trainable) };
}

for (const [name, path] of Object.entries(paths)) {
  Deno.test(`training by ${name} gives the same bits again, on any number of threads`, async () => {
    const first = await run(path, 2);
    assert(new Set(first.losses).size === 3);
    for (const threads of [2, 1, 3]) assertEquals(await run(path, threads), first);
  });
}
