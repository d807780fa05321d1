/**
 * How good are the kernels on a real GPU? Against cuBLAS by way of PyTorch, in f32 with TF32 off: a product of 4096 x 4096 x 4096 and
 * the LoRA linear on it (r 16), forward and with gradients; fused against our own unfused; a LoRA step of GPT-2 small against
 * PyTorch + PEFT. All take turns on the same GPU in one run, which ends with the row of the table in bench/README.md.
 *
 * `deno run --allow-read --allow-env --allow-run --allow-write=out bench/gpu.ts [--python PROGRAM] [--rounds 7] [--minutes 8]
 * [--no-tune] [--json out/gpu.json]`: says first whether the adapter is a GPU, and what else is missing. `--try` runs the same at
 * small sizes on whatever adapter there is, with PyTorch on the CPU: for trying the command, not for figures.
 */
import { parseArgs } from "node:util";
import { LowrankError } from "../core/errors.ts";
import { matmul } from "../core/ops/contract.ts";
import { reduceSum } from "../core/ops/broadcast.ts";
import { type HostTensor, type Operand, type Tensor, upload } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { openAdapter, type WebGpuDevice } from "../kernels/device/webgpu/webgpu.ts";
import { findAdapter } from "../kernels/device/webgpu/adapter.ts";
import { jit } from "../kernels/runtime/jit.ts";
import { read } from "../kernels/runtime/read.ts";
import { median, row } from "./alternate.ts";
import { type Contender, startContender } from "./contender.ts";
import { askPython, driverMisses, pythonMisses } from "./gpu_facts.ts";
import { lora, release, scale, withGradients } from "./lora_work.ts";
import { trainingStep } from "./training.ts";

const { values: flags } = parseArgs({
  options: {
    try: { type: "boolean", default: false },
    tune: { type: "boolean" },
    python: { type: "string", default: "python3" },
    rounds: { type: "string", default: "7" },
    minutes: { type: "string", default: "8" },
    json: { type: "string", default: "out/gpu.json" },
  },
  allowNegative: true,
});
const trial = flags.try;
const [rounds, minutes] = [Number(flags.rounds), Number(flags.minutes)];
const [large, small] = trial ? ["256x256x256x16", "64x96x96x8"] : ["4096x4096x4096x16", "512x768x768x8"];
const model = trial ? "gpt2-tiny" : "gpt2-small";
/** Calls that share a wait take about so many milliseconds: a wait alone takes Deno 10. */
const [sampleMs, maxCalls] = [600, 1000];

/** Medians of milliseconds, and of the ratios of neighbours to `fused`. */
interface Measured {
  readonly what: string;
  readonly ms: Readonly<Record<string, number>>;
  readonly overFused: Readonly<Record<string, number>>;
  readonly calls: number;
  readonly rounds: number;
}
const results: Measured[] = [];
const missing: string[] = [];
const facts: Record<string, unknown> = { trial, model };

type Timer = (calls: number) => Promise<number>;

/** Takes times in turn until the rounds are done or this part's share of the time is up. */
async function measure(what: string, timers: Readonly<Record<string, Timer>>): Promise<void> {
  const until = performance.now() + minutes * 60e3 / 9;
  await timers.fused(1); // compiles
  let calls = 1;
  for (let i = 0; i < 3; i++) { // of a few short calls the wait is most of the time
    calls = Math.max(1, Math.min(maxCalls, Math.round(sampleMs / await timers.fused(Math.min(100, calls)))));
  }
  const runners = new Map(Object.entries(timers));
  const taken: Record<string, number>[] = [];
  for (let i = -1; i < rounds && (i < 1 || performance.now() < until); i++) {
    const round: Record<string, number> = {};
    for (const [name, timer] of runners) {
      try {
        round[name] = await timer(i < 0 ? 1 : calls);
      } catch (error) {
        if (name === "fused") throw error;
        missing.push(`${what} has no ${name}: ${(error as Error).message}.`);
        runners.delete(name);
      }
    }
    if (i >= 0) taken.push(round);
  }
  const each = (of: (round: Record<string, number>, name: string) => number) =>
    Object.fromEntries([...runners.keys()].map((name) => [name, median(taken.map((round) => of(round, name)))]));
  const ms = each((round, name) => round[name]);
  results.push({ what, ms, overFused: each((round, name) => round[name] / round.fused), calls, rounds: taken.length });
  const cell = (name: string) => ms[name]?.toFixed(3) ?? "";
  console.log(row([what, cell("fused"), cell("unfused"), cell("torch"), calls, taken.length], widths));
  save();
}
const widths = [42, 12, 12, 12, 6, 7];

function save(): void {
  const folder = flags.json.slice(0, flags.json.lastIndexOf("/"));
  if (folder) Deno.mkdirSync(folder, { recursive: true });
  Deno.writeTextFileSync(flags.json, `${JSON.stringify({ ...facts, missing, results }, null, 2)}\n`);
}

/** The row of the table, of what was measured. */
function markdown(name: string): string {
  const find = (what: string, of: string) => results.find((one) => one.what === what)?.overFused[of]?.toFixed(2) ?? "?";
  const pair = (shape: string, of: string) => `${find(`${shape} forward`, of)}; ${find(`${shape} both`, of)}`;
  const cells = [
    name,
    find(`${large} product`, "torch"),
    pair(large, "torch"),
    pair(large, "unfused"),
    pair(small, "unfused"),
    find(`${model} step`, "torch"),
  ];
  return `| ${cells.join(" | ")} |`;
}

function finish(name: string): void {
  save();
  console.log(`\n${markdown(name)}`);
  if (trial) console.log("Tried at small sizes, PyTorch on the CPU: these are no figures of a GPU.");
  if (missing.length > 0) console.log(`Missing:\n${missing.map((sentence) => `- ${sentence}`).join("\n")}`);
  console.log(`written: ${flags.json}`);
}

const found = await findAdapter();
if ("missing" in found || (found.software && !trial)) {
  const remedy = "--try runs this at small sizes on a software adapter.";
  console.error([...driverMisses(found), remedy].join("\n"));
  Deno.exit(1);
}
const { vendor, architecture } = found.adapter.info;
Object.assign(facts, { adapter: found.name, vendor, architecture, software: found.software });
console.log(`${found.name}: ${found.software ? "a software adapter" : "a GPU"}`);

const here = "bench";
const python = await askPython(flags.python, `${here}/torch_device.py`);
Object.assign(facts, { python });
const misses = pythonMisses(flags.python, python, !trial);
missing.push(...misses.all, ...misses.step);
missing.forEach((sentence) => console.log(sentence));
const on = trial ? "cpu" : "cuda";
const peer = async (needed: readonly string[], args: readonly string[]): Promise<Contender | null> => {
  if (needed.length > 0) return null;
  try {
    return await startContender(flags.python, args);
  } catch (error) {
    missing.push(`${args[0]} does not run (its own words are above): ${(error as Error).message}`);
    return null;
  }
};
if (misses.all.length === 0) {
  console.log(`PyTorch ${python.torch} on ${trial ? "the CPU" : python.cuda}, f32, TF32 off`);
}

const watchdog = setTimeout(() => {
  missing.push(`The time was over before all was measured: --minutes gives more than ${minutes}.`);
  finish(found.name);
  Deno.exit(1);
}, minutes * 60e3);

/** A part that fails leaves the others to be measured. */
async function attempt(part: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof LowrankError)) console.error(error);
    missing.push(`${part} ended early: ${(error as Error).message}`);
  }
}
await attempt("The run", async () => {
  using device = await openAdapter(found, { tune: flags.tune });
  Object.assign(facts, { tiles: device.remark });
  console.log(device.remark);
  console.log(row(["milliseconds a call", "fused", "unfused", "torch", "calls", "rounds"], widths));
  const torch = await peer(misses.all, [`${here}/torch_products.py`, on]);
  await attempt(large, () => products(device, large, torch));
  const torchStep = await peer([...misses.all, ...misses.step], [`${here}/torch_step.py`, model, on]);
  await attempt(`The ${model} step`, () => step(device, torchStep));
  await attempt(small, () => products(device, small, torch));
  for (const one of [torch, torchStep]) one?.stop();
  Object.assign(facts, { device_mb: device.memory.peak / 1e6 });
});
clearTimeout(watchdog);
finish(found.name);

async function products(device: WebGpuDevice, shape: string, torch: Contender | null): Promise<void> {
  const [m, k, n, r] = shape.split("x").map(Number);
  const sizes = [[m, k], [k, r], [r, n], [k, n], [m, n]];
  const host = sizes.map(([rows, columns], seed) =>
    Float32Array.from({ length: rows * columns }, (_, i) => Math.sin((i + seed) * 1.7) / Math.sqrt(rows))
  );
  const tensors = host.map((data, i) => upload(device, { shape: sizes[i], dtype: "f32", data }));
  const [x, a, b, w, ct] = tensors;
  const work: Record<string, [(...args: Operand[]) => unknown, Tensor[]]> = {
    product: [(x, w) => matmul(x, w), [x, w]],
    forward: [lora, [x, a, b, w]],
    both: [withGradients, [x, a, b, w, ct]],
  };
  for (const [part, [f, args]] of Object.entries(work)) {
    await measure(`${shape} ${part}`, {
      fused: timer(f, args, true),
      ...(part !== "product" && { unfused: timer(f, args, false) }),
      ...(torch && { torch: (calls: number) => torch.sample(`${part} ${m} ${k} ${n} ${r} ${calls}`) }),
    });
  }
  await check(jit(lora)(x, a, b, w), host, [m, k, n, r]);
  release(tensors);
}

/** Compares some numbers of a LoRA linear with sums in f64, within the bound on the rounding of such sums: a wrong kernel has no speed. */
async function check(y: Tensor, [x, a, b, w]: readonly Float32Array[], [m, k, n, r]: readonly number[]): Promise<void> {
  const { data } = await read(y, { release: true }) as HostTensor;
  const unit = 2 ** -24 * (k + r + 4);
  for (let at = 0; at < m * n; at += Math.ceil(m * n / 64) + 1) {
    const [row, column] = [Math.floor(at / n), at % n];
    let [sum, size] = [0, 0];
    const count = (term: number) => (sum += term, size += Math.abs(term));
    for (let i = 0; i < k; i++) {
      count(x[row * k + i] * w[i * n + column]);
      for (let j = 0; j < r; j++) count(scale * x[row * k + i] * a[i * r + j] * b[j * n + column]);
    }
    if (!(Math.abs(data[at] - sum) <= 2 * unit * size)) {
      missing.push(
        `y[${row}, ${column}] of ${m} x ${k} x ${n} is ${data[at]} and should be ${sum}: times count for nothing.`,
      );
      return;
    }
  }
}

/** Milliseconds of a call, of some that share a wait for a single number of the last result. */
function timer(f: (...args: Operand[]) => unknown, args: readonly Tensor[], fuse: boolean): Timer {
  const [compiled, sum] = [jit(f, { fuse }), jit((y: Operand) => reduceSum(y))];
  return async (calls) => {
    const began = performance.now();
    for (let i = 1; i < calls; i++) release(compiled(...args));
    const last = compiled(...args);
    await read(sum(flatten<Tensor>(last).leaves.at(-1)!), { release: true });
    release(last);
    return (performance.now() - began) / calls;
  };
}

async function step(device: WebGpuDevice, torch: Contender | null): Promise<void> {
  const own = trainingStep(device, model, false);
  let loss = NaN;
  await measure(`${model} step`, {
    fused: async (steps) => {
      const began = performance.now();
      loss = await own.once(steps);
      return (performance.now() - began) / steps;
    },
    ...(torch && { torch: (steps: number) => torch.sample(String(steps)) }),
  });
  if (!Number.isFinite(loss)) missing.push(`The loss of the ${model} step is ${loss}: its time counts for nothing.`);
}
