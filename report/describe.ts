/** Descriptions for people, as text. */
import { sizeOf } from "../core/aval.ts";
import { storageBytes } from "../core/dtype.ts";
import { FileError, OptionError } from "../core/errors.ts";
import { formatBytes, formatCount } from "../core/host/format.ts";
import type { Leaf } from "../core/model.ts";
import type { Device } from "../kernels/device/device.ts";
import { avalOf } from "../core/trace.ts";
import { flatten } from "../core/tree.ts";
import type { Match } from "../lora/mod.ts";
import type { TrainResult } from "../train/loop.ts";
import type { MergeCheck } from "../formats/merge.ts";
import { Interrupted } from "./errors.ts";
import { checkList, checkMembers } from "../core/options.ts";
import { pathKind } from "../models/load/files/byte_source.ts";

/** How many numbers a tree of parameters holds, and in how many bytes. */
export function sizeOfTree(params: unknown): { count: number; bytes: number } {
  const sizes = flatten<Leaf | number>(params).leaves.map((leaf) => {
    const { shape, dtype } = avalOf(leaf);
    return { count: sizeOf(shape), bytes: storageBytes(dtype, sizeOf(shape)) };
  });
  return {
    count: sizes.reduce((sum, s) => sum + s.count, 0),
    bytes: sizes.reduce((sum, s) => sum + s.bytes, 0),
  };
}

/** `gpt2, 1,878,336 parameters in 3.8 MB`. */
export function describeModel(model: { architecture: string; params: unknown }): string {
  checkMembers("describeModel", "a model", model, ["architecture", "params"]);
  const { count, bytes } = sizeOfTree(model.params);
  return `${model.architecture}, ${formatCount(count)} parameters in ${formatBytes(bytes)}`;
}

/** One line for each kind of adapted module: `h.*.attn.c_attn  192 x 576  r 8  alpha 16  (4)`. */
export function describeMatches(matched: readonly Match[]): string[] {
  checkList("describeMatches", "adapted modules", matched);
  const kinds = new Map<string, number>();
  for (const { path, method, shape, r, alpha } of matched) {
    const kind = `${path.replace(/\.\d+(?=\.|$)/g, ".*").padEnd(28)} ${shape.join(" x ").padEnd(12)} ${
      r === 0 ? method : `r ${r}  alpha ${alpha}`
    }`;
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  return [...kinds].map(([kind, n]) => n === 1 ? kind : `${kind}  (${n} layers)`);
}

/** `trainable 86,016 of 1,964,352 (4.38 %)`, the base and what is trained beside it together being the whole, as PEFT counts. */
export function describeTrainable(trainable: unknown, params: unknown): string {
  const trained = sizeOfTree(trainable).count;
  const all = trained + sizeOfTree(params).count;
  return `trainable ${formatCount(trained)} of ${formatCount(all)} (${(100 * trained / all).toFixed(2)} %)`;
}

/**
 * `16 merged layers keep their bound: the largest difference is 0.02 of it`.
 *
 * @throws {Error} where one does not: merging is wrong then
 */
export function describeMergeChecks(checks: readonly MergeCheck[]): string {
  checkList("describeMergeChecks", "checks", checks);
  if (checks.length === 0) throw new OptionError("describeMergeChecks needs at least one check");
  const worst = checks.reduce((a, b) => b.ratio <= a.ratio ? a : b);
  if (!(worst.ratio <= 1)) {
    throw new Error(`merged and adapted ${worst.path} differ by ${worst.ratio} times what rounding allows`);
  }
  const each = checks.length === 1 ? "the merged layer" : `each of ${checks.length} merged layers`;
  return `${each} keeps its bound: ` +
    `the largest difference is ${worst.ratio.toFixed(3)} of it, in ${worst.path}`;
}

/**
 * Says why a run failed, once its adapter is saved in `folder`; returns where it did not, early stopping included.
 *
 * @throws {Interrupted} after Ctrl-C
 * @throws {OptionError} after a loss or gradient that was not finite, or a loss that a watchdog stopped
 */
export function reportEnd(end: TrainResult<unknown>["end"], steps: number, folder: string): void {
  if (end === "done") return;
  checkMembers("reportEnd", "the end of a run", end, ["reason", "step"]);
  if (end.reason === "interrupted") {
    throw new Interrupted(`Stopped after step ${end.step} of ${steps}; the adapter is saved in ${folder}.`);
  }
  if ("message" in end) {
    if (end.reason === "no progress") return;
    throw new OptionError(`${end.message} The adapter is saved in ${folder}.`);
  }
  throw new OptionError(
    `The loss of step ${end.step} is ${end.loss} and its gradients' norm ${end.gradNorm}: the adapter as it was before ` +
      `that step is saved in ${folder}; lower the learning rate, or look for broken rows and weights.`,
  );
}

/** `346 kB, beside 3.8 MB of the base (9.2 %)`. */
export function describeSizes(adapterFolder: string, params: unknown): string {
  const file = `${adapterFolder}/adapter_model.safetensors`;
  if (pathKind(file) !== "file") throw new FileError(`There is no ${file}: give the folder of an adapter.`);
  const adapter = Deno.statSync(file).size;
  const { bytes } = sizeOfTree(params);
  return `${formatBytes(adapter)}, beside ${formatBytes(bytes)} of the base (${(100 * adapter / bytes).toFixed(1)} %)`;
}

/** Watches what a run holds, on the device and in the process, to say whether it is steady. */
export function memoryWatch(device: Device): { note(step: number): void; describe(): string } {
  const held = () => ({ device: device.memory.current, process: Deno.memoryUsage().rss });
  const seen: { step: number; device: number; process: number }[] = [];
  return {
    note(step) {
      if (seen.length > 1) seen.pop(); // the first and the last are kept
      seen.push({ step, ...held() });
    },
    describe: () =>
      seen.map((s) =>
        `${formatBytes(s.device)} on the device and ${formatBytes(s.process)} in all after step ${s.step}`
      )
        .join(", "),
  };
}

/**
 * The number of a flag, or undefined where it is not given.
 *
 * @throws {OptionError} when it is not a whole number of at least 1
 */
export function wholeNumber(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^0*[1-9]\d{0,14}$/.test(text)) {
    throw new OptionError(`${flag} must be a whole number of at least 1, got ${text}`);
  }
  return Number(text);
}
