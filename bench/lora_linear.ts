/**
 * What does a low-rank pair beside a frozen product cost? y = x·W + s·(x·A)·B against y = x·W, forward, and forward with
 * gradients of x, A and B against the two products that a frozen layer needs.
 *
 * `deno bench bench/lora_linear.ts`: a table of medians of alternated runs, then Deno's own timings.
 */
import { newInput } from "../core/ir/graph.ts";
import { reduceSum } from "../core/ops/broadcast.ts";
import { matmul } from "../core/ops/contract.ts";
import { mul } from "../core/ops/elementwise.ts";
import { type Operand, upload } from "../core/tensor.ts";
import { valueAndGrad } from "../core/transforms/grad.ts";
import { flatten } from "../core/tree.ts";
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import { jit } from "../kernels/runtime/jit.ts";
import { lora } from "../lora/lora.ts";
import { alternate, row, sampleOf, timesFor, warmUp } from "./alternate.ts";
import type { Trainable } from "../lora/mod.ts";

const device = await openCpu();
const shapes = [[128, 576, 1536, 8], [128, 768, 768, 8], [512, 768, 768, 8], [512, 768, 2304, 8], [
  512,
  2048,
  2048,
  16,
]];
const widths = [26, 10, 10, 8, 10, 10, 8];
console.log(device.description);
console.log(row(["M x K x N, r", "frozen ms", "GFLOP/s", "LoRA", "f+b ms", "GFLOP/s", "LoRA"], widths));

for (const [m, k, n, r] of shapes) {
  const random = (...shape: number[]) =>
    upload(device, {
      shape,
      dtype: "f32",
      data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i * 1.7) / Math.sqrt(k)),
    });
  const [x, ct] = [random(m, k), random(m, n)];
  const model = {
    params: { linear: { weight: random(k, n) } },
    apply: (p: { linear: { weight: Operand } }, input: { x: Operand }) => matmul(input.x, p.linear.weight),
    sample: { x: newInput({ shape: [1, k], dtype: "f32" }) },
  };
  const tuned = lora(model, { r, alpha: 16, targets: ["linear"] });
  const release = (tree: unknown) => flatten(tree).leaves.forEach((t) => (t as { dispose(): void }).dispose());

  const { apply } = model;
  type Params = typeof model.params;
  const frozen = jit((p: Params, x: Operand) => apply(p, { x }));
  const adapted = jit((t: Trainable, p: Params, x: Operand) => tuned.apply(t, p, { x }));
  const forward = [() => release(frozen(model.params, x)), () => release(adapted(tuned.trainable, model.params, x))];

  const loss = (y: Operand, ct: Operand) => reduceSum(mul(y, ct));
  const frozenBack = jit((p: Params, x: Operand, ct: Operand) =>
    valueAndGrad((x: Operand) => loss(apply(p, { x }), ct))(x)
  );
  const adaptedBack = jit((t: Trainable, p: Params, x: Operand, ct: Operand) =>
    valueAndGrad((t: Trainable, x: Operand) => loss(tuned.apply(t, p, { x }), ct), { argnums: [0, 1] })(t, x)
  );
  const both = [
    () => release(frozenBack(model.params, x, ct)),
    () => release(adaptedBack(tuned.trainable, model.params, x, ct)),
  ];

  for (const f of [...forward, ...both]) await warmUp(f);
  const measured = [forward, both].map((pair) => {
    const times = timesFor(pair[0], 50);
    return alternate(pair.map((f) => sampleOf(f, times)), 9);
  });
  const flops = 2 * m * k * n;
  const [f, b] = measured;
  console.log(row([
    `${m} x ${k} x ${n}, ${r}`,
    f.ms[0].toFixed(2),
    (flops / f.ms[0] / 1e6).toFixed(1),
    f.ratio[1].toFixed(3),
    b.ms[0].toFixed(2),
    (2 * flops / b.ms[0] / 1e6).toFixed(1),
    b.ratio[1].toFixed(3),
  ], widths));
  Deno.bench(`frozen ${m}x${k}x${n}`, { group: `${m}x${k}x${n} forward`, baseline: true }, forward[0]);
  Deno.bench(`LoRA r ${r} ${m}x${k}x${n}`, { group: `${m}x${k}x${n} forward` }, forward[1]);
}
addEventListener("unload", () => device[Symbol.dispose]());
