/** Several adapters on one base: one compiled program and one copy of the weights. */
import { assert, assertEquals } from "@std/assert";
import { newInput, type Value } from "../../core/ir/graph.ts";
import { matmul } from "../../core/ops/contract.ts";
import { tanh } from "../../core/ops/elementwise.ts";
import { type HostTensor, type Operand, Tensor, upload } from "../../core/tensor.ts";
import { flatten } from "../../core/tree.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { read } from "../../kernels/runtime/read.ts";
import { lora } from "../../lora/lora.ts";
import { devices } from "../devices.ts";
import { fromOracle, toHost } from "../../testing/oracle.ts";
import { randomTensor } from "../../testing/toy_models.ts";
import type { Trainable } from "../../lora/mod.ts";

const width = 256;

for (const { name, open } of devices) {
  Deno.test(`${name}: two tasks on one base compile one program and hold the weights once`, async () => {
    using device = await open();
    let compiled = 0;
    const compile = device.compile.bind(device);
    device.compile = (program) => (compiled++, compile(program));
    const onDevice = (shape: number[], seed: number) =>
      upload(device, toHost(fromOracle(randomTensor(shape, seed, 0.1))));
    const model = {
      params: { up: { weight: onDevice([width, width], 1) }, down: { weight: onDevice([width, width], 2) } },
      sample: newInput({ shape: [1, width], dtype: "f32" }) as Operand,
      apply: (p: { up: { weight: Operand }; down: { weight: Operand } }, x: Operand): Value =>
        matmul(tanh(matmul(x, p.up.weight)), p.down.weight),
    };
    const base = device.memory.current;
    const tuned = lora(model, { r: 2, alpha: 4, targets: "all-linear" });
    const tasks = [3, 5].map((seed) =>
      Object.fromEntries(
        Object.entries(tuned.trainable).map(([path, { A, B }]) => [path, {
          A: onDevice([...A!.shape], seed),
          B: onDevice([...B!.shape], seed + 1),
        }]),
      )
    );
    const x = onDevice([4, width], 9);
    const run = jit((t: Trainable, p: typeof model.params, x: Operand) => tuned.apply(t, p, x));
    const [first, second] = tasks.map((task) => run(task, tuned.frozen, x));
    const results = await read([first, second]) as HostTensor[];
    assertEquals(compiled, 1);
    assert(results[0].data.some((v, i) => v !== results[1].data[i]), "the tasks give different results");
    assert(flatten(tuned.frozen).leaves.every((leaf, i) => leaf === flatten(model.params).leaves[i]));
    // Three adapters, x, two results and the program's own memory are all that came on top of the base.
    const adapters = 3 * 4 * (2 * width) * 4;
    assert(device.memory.current - base < adapters + 10 * 4 * 4 * width, `${device.memory.current - base} bytes more`);
    for (const leaf of flatten([tasks, tuned.trainable, model.params, x, first, second]).leaves) {
      (leaf as Tensor).dispose();
    }
  });
}
