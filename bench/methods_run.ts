/**
 * One line of `bench/methods.ts`, in a process of its own so that its peak memory is its own: a method on a task with each
 * seed. Prints one JSON object.
 */
import { LowrankError } from "../core/errors.ts";
import type { Operand, Tensor } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { optionsOf } from "../lora/check_options.ts";
import { tuneFromWeights } from "../lora/start.ts";
import { tune, type Tuned } from "../lora/mod.ts";
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import { jit } from "../kernels/runtime/jit.ts";
import { mergeParams } from "../formats/merge.ts";
import { sizeOfTree } from "../report/describe.ts";
import { train } from "../train/loop.ts";
import { type Trainee, wholeModel } from "../train/trainee.ts";
import { median, sampleOf, warmUp } from "./alternate.ts";
import { compared, methodOf } from "./methods_compared.ts";
import { type OpenedTask, taskNamed } from "./methods_tasks.ts";

/** What one line found. */
export interface Found {
  readonly quality: readonly number[];
  readonly trainable: number;
  /** Bytes of what is saved, f32. */
  readonly saved: number;
  readonly secondsPerStep: number;
  /** The most memory that the process held. */
  readonly peak: number;
  /** Milliseconds for one row; null where it can't be merged. */
  readonly unmerged: number;
  readonly merged: number | null;
}

if (import.meta.main) {
  const { task, name, steps, seeds, testRows, model, blas } = JSON.parse(Deno.args[0]);
  using device = await openCpu({ blas });
  const line = compared.find((one) => one.name === name)!, method = methodOf(line);
  const { open, batch, seq, targets, modulesToSave } = taskNamed(task, device, { steps, testRows, model });
  const make = async (opened: OpenedTask, seed: number): Promise<Trainee<any, any>> => {
    if (line.method === null) return wholeModel(opened.model);
    const known = optionsOf(method!);
    const shared = Object.entries({ targets, modulesToSave, seed }).filter(([name]) => name in known);
    const options = { ...line.options, ...Object.fromEntries(shared) } as { targets: readonly string[] };
    return method!.start === undefined
      ? tune(opened.model, method!, options)
      : await tuneFromWeights(opened.model, { ...method!, start: method!.start }, options as any) as any;
  };
  try {
    const found: number[] = [], times: number[] = [];
    let last!: Omit<Found, "quality" | "secondsPerStep" | "peak">;
    for (let seed = 0; seed < seeds; seed++) {
      using opened = await open(seed);
      const trainee = await make(opened, seed);
      let at = performance.now();
      const run = await train<any, any>(trainee, {
        ...{ data: opened.data, steps, batch, lr: line.lr, warmup: Math.min(10, steps - 1), seq, seed },
        onStep: () => {
          times.push((performance.now() - at) / 1000);
          at = performance.now();
        },
      });
      found.push(await opened.measure(trainee, run.trainable));
      if (seed === seeds - 1) last = await costs(opened, trainee, run.trainable);
    }
    // The first steps of each seed compile.
    const steady = times.filter((_, i) => i % steps >= Math.min(2, steps - 1));
    const result: Found = { ...last, quality: found, secondsPerStep: median(steady), peak: peakBytes() };
    console.log(JSON.stringify(result));
  } catch (error) {
    if (!(error instanceof LowrankError)) throw error;
    console.log(JSON.stringify({ refused: error.message }));
  }
}

/** What an adapter costs once it is trained. */
async function costs(
  { model, row }: OpenedTask,
  trainee: Trainee<any, any>,
  trained: any,
): Promise<Pick<Found, "trainable" | "saved" | "unmerged" | "merged">> {
  const { count, bytes } = sizeOfTree(trained);
  const time = async (f: (p: any, x: any) => Operand, params: any) => {
    const g = jit(f);
    const once = () => flatten<Tensor>(g(params, row)).leaves.forEach((leaf) => leaf.dispose());
    await warmUp(once, 300);
    const sample = sampleOf(once);
    return median(Array.from({ length: 15 }, () => sample()));
  };
  const unmerged = await time(({ t, f }, x) => trainee.apply(t, f, x), { t: trained, f: trainee.frozen });
  let merged: number | null = null;
  try {
    const params = "plan" in trainee ? mergeParams(trainee as unknown as Tuned<any, any, any>, trained) : trained;
    merged = await time((p, x) => model.apply(p, x), params);
  } catch (error) {
    if (!(error instanceof LowrankError)) throw error;
  }
  return { trainable: count, saved: bytes, unmerged, merged };
}

/** The most memory that the process ever held; what it holds now where the system does not say. */
function peakBytes(): number {
  try {
    return Number(/VmHWM:\s+(\d+)/.exec(Deno.readTextFileSync("/proc/self/status"))![1]) * 1024;
  } catch {
    return Deno.memoryUsage().rss;
  }
}
