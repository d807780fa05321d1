/**
 * How fast is a LoRA linear on WebGPU? y = x·W + s·(x·A)·B forward, and forward with the gradients of x, A and B, against
 * the same work in kernels that are not fused; with PEERS=1 also against jax-js, TensorFlow.js and ONNX Runtime Web on the
 * same adapter. All alternate in one run, and 20 calls share a wait, because a wait alone takes 10 ms in Deno.
 *
 * `deno bench --allow-read --allow-env bench/webgpu.ts`; SHAPES=512x768x768x8,1x768x2304x8 picks, M x K x N x r;
 * PARTS=forward leaves the gradients out.
 */
import { matmul } from "../core/ops/contract.ts";
import { reduceSum } from "../core/ops/broadcast.ts";
import { type Operand, type Tensor, upload } from "../core/tensor.ts";
import { trace } from "../core/trace.ts";
import { flatten } from "../core/tree.ts";
import { build } from "../kernels/compile.ts";
import { bytesOf } from "../kernels/describe.ts";
import { openWebGpu } from "../kernels/device/webgpu.ts";
import { jit, read } from "../kernels/jit.ts";
import { median, row } from "./alternate.ts";
import { lora, release, withGradients } from "./lora_work.ts";
import { type LoraShape, openPeers, type Runner } from "./webgpu_peers.ts";

const calls = Number(Deno.env.get("CALLS") ?? 20);
const rounds = Number(Deno.env.get("ROUNDS") ?? 3);
const parts = (Deno.env.get("PARTS") ?? "forward,both").split(",") as ("forward" | "both")[];
const shapes = (Deno.env.get("SHAPES") ?? "128x576x1536x8,512x768x768x8,512x768x2304x8,1x768x2304x8").split(",")
  .map((text) => text.split("x").map(Number) as unknown as LoraShape);
using device = await openWebGpu();

/** The values that every runner is given. */
function values(rows: number, columns: number, seed: number): Float32Array {
  return Float32Array.from({ length: rows * columns }, (_, i) => Math.sin((i + seed) * 1.7) / Math.sqrt(rows));
}

/** A function compiled: it is called many times, and waited for once. */
function runner(f: (...args: Operand[]) => unknown, args: readonly Tensor[], fuse = true) {
  const compiled = jit(f, { fuse });
  return async (calls: number): Promise<void> => {
    for (let i = 1; i < calls; i++) release(compiled(...args));
    const last = compiled(...args);
    const one = jit((y: Operand) => reduceSum(y))(flatten<Tensor>(last).leaves.at(-1));
    await read(one, { release: true });
    release(last);
  };
}

const widths = [22, 22, 10, 10, 10, 10, 12];
console.log(device.description);
console.log(row(["M x K x N, r", "", "fwd ms", "GFLOP/s", "f+b ms", "GFLOP/s", "steps, MB"], widths));
for (const shape of shapes) {
  const [m, k, n, r] = shape;
  const host = { x: values(m, k, 0), w: values(k, n, 1), a: values(k, r, 2), b: values(r, n, 3), ct: values(m, n, 4) };
  const tensor = (data: Float32Array, ...shape: number[]) => upload(device, { shape, dtype: "f32", data });
  const [x, a, b, w, ct] = [
    tensor(host.x, m, k),
    tensor(host.a, k, r),
    tensor(host.b, r, n),
    tensor(host.w, k, n),
    tensor(host.ct, m, n),
  ];
  const own: Runner[] = [
    { name: "lowrank", forward: runner(lora, [x, a, b, w]), both: runner(withGradients, [x, a, b, w, ct]) },
    {
      name: "lowrank, unfused",
      forward: runner(lora, [x, a, b, w], false),
      both: runner(withGradients, [x, a, b, w, ct], false),
    },
    { name: "frozen product alone", forward: runner((x, w) => matmul(x, w), [x, w]) },
  ];
  const work = [true, false].map((fuse) =>
    [{ f: lora, args: [x, a, b, w] }, { f: withGradients, args: [x, a, b, w, ct] }].map(({ f, args }) => {
      const { program } = build(trace(f as never, args).graph, new Set(), fuse);
      const bytes = program.steps.reduce((sum, { kernel }) => sum + bytesOf(kernel), 0);
      return `${program.steps.length}, ${(bytes / 1e6).toFixed(1)}`;
    }).join("; ")
  );
  const runners = [...own, ...(Deno.env.get("PEERS") ? await openPeers(shape, host) : [])];
  const times = new Map<Runner["forward"], number[]>();
  for (let round = -1; round < rounds; round++) {
    // There and back: what comes first finds memory that is not mapped yet, and nobody is to be first each time.
    const order = parts.flatMap((part) => runners.map((runner) => runner[part]));
    for (const each of round % 2 === 0 ? order : order.toReversed()) {
      if (!each) continue;
      const began = performance.now();
      await each(round < 0 ? 1 : calls);
      if (round >= 0) times.set(each, [...times.get(each) ?? [], (performance.now() - began) / calls]);
    }
  }
  const cells = (f: Runner["both"], flops: number) => {
    const taken = f && times.get(f);
    if (!taken) return ["", ""];
    const ms = median(taken);
    return [ms.toFixed(2), (flops / ms / 1e6).toFixed(1)];
  };
  const forwardFlops = 2 * m * k * n + 2 * m * r * (k + n);
  const bothFlops = forwardFlops + 2 * m * k * n + 4 * m * r * (k + n);
  runners.forEach(({ name, forward, both }, i) => {
    const flops = name.startsWith("frozen") ? 2 * m * k * n : forwardFlops;
    console.log(
      row(
        [`${m} x ${k} x ${n}, ${r}`, name, ...cells(forward, flops), ...cells(both, bothFlops), work[i] ?? ""],
        widths,
      ),
    );
  });
  for (const part of parts) {
    const [fused, apart] = [own[0][part]!, own[1][part]!].map((f) => times.get(f)!);
    console.log(`  unfused / fused, ${part}: ${median(fused.map((ms, i) => apart[i] / ms)).toFixed(3)}`);
  }
  release([x, a, b, w, ct]);
}
