/** Whether a run fits: reported before it starts, with what would make it fit. */
import { DeviceError } from "../../core/errors.ts";
import { formatBytes } from "../../core/host/format.ts";
import type { MemoryEstimate } from "./estimate.ts";

/** `about 1.14 GB: weights 539.2 MB, trained 29.3 MB, optimiser 29.3 MB, activations 545.5 MB`. */
export function describeMemory({ total, ...parts }: MemoryEstimate): string {
  const named = Object.entries(parts).map(([name, bytes]) => `${name} ${formatBytes(bytes)}`);
  return `about ${formatBytes(total)}: ${named.join(", ")}`;
}

/** A change of the options, and what the run would take with it. */
export interface Remedy {
  /** As one gives it: `--checkpoint-blocks`. */
  readonly change: string;
  /** Planned only when it is asked for. */
  readonly estimate: () => MemoryEstimate;
}

/**
 * Refuses a run that its device can't hold, with the first of the remedies that would do.
 *
 * @throws {DeviceError} when the run takes more than the device's capacity; where that is not known nothing is refused
 */
export function requireMemory(
  device: { readonly description: string; readonly capacity?: number },
  estimate: MemoryEstimate,
  remedies: () => readonly Remedy[],
): void {
  const { capacity = Infinity } = device;
  if (estimate.total <= capacity) return;
  const remedy = firstThatFits(remedies(), capacity);
  throw new DeviceError(
    `This run takes ${describeMemory(estimate)}; ${device.description} holds ${formatBytes(capacity)}: ` +
      (remedy
        ? `use ${remedy.change} (about ${formatBytes(remedy.total)}).`
        : "shorten the rows with --seq, or choose a smaller model."),
  );
}

/** Each remedy is planned only once those before it have failed: a plan takes seconds. */
function firstThatFits(remedies: readonly Remedy[], capacity: number): { change: string; total: number } | null {
  for (const { change, estimate } of remedies) {
    const { total } = estimate();
    if (total <= capacity) return { change, total };
  }
  return null;
}

/**
 * Smaller batches that add up to the same step, each half of the one before: `--batch 2 --accumulate 4` of 4 and 2. Where
 * the numbers are odd, the larger step is taken.
 */
export function smallerBatches(batch: number, accumulate: number): { batch: number; accumulate: number }[] {
  const smaller = [];
  for (let rows = batch >> 1; rows >= 1; rows >>= 1) {
    smaller.push({ batch: rows, accumulate: Math.ceil(batch * accumulate / rows) });
  }
  return smaller;
}
