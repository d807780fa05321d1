/**
 * How fast is a LoRA linear on WebGPU? y = x·W + s·(x·A)·B forward, and forward with the gradients of x, A and B, against
 * the same work in kernels that are not fused; with PEERS=1 also against jax-js, TensorFlow.js and ONNX Runtime Web on the
 * same adapter. All alternate in one run, and 20 calls share a wait, because a wait alone takes 10 ms in Deno. Fused and
 * unfused, which are close, then alternate again, run by run, on the adapter's own clock, where it has one.
 *
 * `deno run --allow-read --allow-env bench/webgpu.ts`; SHAPES=512x768x768x8,1x768x2304x8 picks, M x K x N x r;
 * PARTS=forward leaves the gradients out; ROUNDS=0 leaves the table out; SECONDS=5 is for each ratio.
 */
import { sizeOf } from "../core/aval.ts";
import { storageBytes } from "../core/dtype.ts";
import { matmul } from "../core/ops/contract.ts";
import { reduceSum } from "../core/ops/broadcast.ts";
import { type Operand, type Tensor, upload } from "../core/tensor.ts";
import { trace } from "../core/trace.ts";
import { flatten } from "../core/tree.ts";
import { build } from "../kernels/runtime/compile.ts";
import { bytesOf } from "../kernels/explain/describe.ts";
import type { DeviceBuffer } from "../kernels/device/executable.ts";
import { openWebGpu } from "../kernels/device/webgpu/webgpu.ts";
import { jit } from "../kernels/runtime/jit.ts";
import { read } from "../kernels/runtime/read.ts";
import { median, quartiles, row } from "./alternate.ts";
import { lora, release, withGradients } from "./lora_work.ts";
import { type LoraShape, openPeers, type Runner } from "./webgpu_peers.ts";

const calls = Number(Deno.env.get("CALLS") ?? 20);
const rounds = Number(Deno.env.get("ROUNDS") ?? 3);
const seconds = Number(Deno.env.get("SECONDS") ?? 5);
const parts = (Deno.env.get("PARTS") ?? "forward,both").split(",") as ("forward" | "both")[];
const shapes = (Deno.env.get("SHAPES") ?? "128x576x1536x8,512x768x768x8,512x768x2304x8,1x768x2304x8").split(",")
  .map((text) => text.split("x").map(Number) as unknown as LoraShape);
using device = await openWebGpu();
const clock = device.gpu.features.has("timestamp-query");

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
    const one = jit((y: Operand) => reduceSum(y))(flatten<Tensor>(last).leaves.at(-1)!);
    await read(one, { release: true });
    release(last);
  };
}

type Work = readonly [f: (...args: any[]) => unknown, args: readonly Tensor[]];
const programOf = ([f, args]: Work, fuse: boolean) => build(trace(f, args).graph, new Set(), fuse);

/** `2, 5.0`: the dispatches of a run, and the megabytes that they read and write. */
function sizeOfWork(work: Work, fuse: boolean): string {
  const { steps } = programOf(work, fuse).program;
  return `${steps.length}, ${(steps.reduce((sum, { kernel }) => sum + bytesOf(kernel), 0) / 1e6).toFixed(1)}`;
}

/** Runs of a program, each in milliseconds by the device's clock, kernel by kernel. */
function clocked(work: Work, fuse: boolean): { run(): Promise<number>; free(): void } {
  const { graph, program } = programOf(work, fuse);
  const executable = device.compile(program);
  const outputs = graph.outputs.map(({ shape, dtype }) => device.allocate(storageBytes(dtype, sizeOf(shape))));
  const args = work[1].map(({ buffer }) => buffer as DeviceBuffer);
  return {
    run: async () => (await executable.time!(args, outputs)).reduce((sum, ms) => sum + ms, 0),
    free() {
      executable.free();
      outputs.forEach((buffer) => device.free(buffer));
    },
  };
}

/** Unfused over fused in runs side by side, there and back; every ratio that was seen. */
async function ratiosOf(work: Work): Promise<number[]> {
  const pair = [true, false].map((fuse) => clocked(work, fuse));
  const ratios: number[] = [];
  for (const one of pair) await one.run();
  for (const began = performance.now(); ratios.length < 9 || performance.now() - began < seconds * 1000;) {
    const order = ratios.length % 2 === 0 ? pair : pair.toReversed();
    const ms = new Map<unknown, number>();
    for (const one of order) ms.set(one, await one.run());
    ratios.push(ms.get(pair[1])! / ms.get(pair[0])!);
  }
  pair.forEach((one) => one.free());
  return ratios;
}

const widths = [22, 22, 10, 10, 10, 10, 12];
console.log(device.description);
if (rounds > 0) console.log(row(["M x K x N, r", "", "fwd ms", "GFLOP/s", "f+b ms", "GFLOP/s", "steps, MB"], widths));
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
  const work: Record<"forward" | "both", Work> = {
    forward: [lora, [x, a, b, w]],
    both: [withGradients, [x, a, b, w, ct]],
  };
  const own: Runner[] = [true, false].map((fuse) => ({
    name: fuse ? "lowrank" : "lowrank, unfused",
    forward: runner(...work.forward, fuse),
    both: runner(...work.both, fuse),
  }));
  const done = [true, false].map((fuse) => `${sizeOfWork(work.forward, fuse)}; ${sizeOfWork(work.both, fuse)}`);
  own.push({ name: "frozen product alone", forward: runner((x, w) => matmul(x, w), [x, w]) });
  const runners = rounds === 0 ? [] : [...own, ...(Deno.env.get("PEERS") ? await openPeers(shape, host) : [])];
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
        [`${m} x ${k} x ${n}, ${r}`, name, ...cells(forward, flops), ...cells(both, bothFlops), done[i] ?? ""],
        widths,
      ),
    );
  });
  for (const part of parts) {
    const [fused, apart] = [own[0][part]!, own[1][part]!].map((f) => times.get(f) ?? []);
    const ratios = clock ? await ratiosOf(work[part]) : fused.map((ms, i) => apart[i] / ms);
    if (ratios.length === 0) continue;
    const [low, middle, high] = quartiles(ratios).map((ratio) => ratio.toFixed(3));
    console.log(
      `  ${
        shape.join(" x ")
      } ${part}, unfused / fused: ${middle}, the middle half ${low} to ${high}, of ${ratios.length} pairs ` +
        (clock ? "by the adapter's clock" : `of ${calls} calls`),
    );
  }
  release([x, a, b, w, ct]);
}
