/**
 * Ratios that hold on a shared machine: the things compared run in turn, A B A B …, and the median of the ratios of
 * neighbours is quoted, never a single time.
 */

/** Something to time: one call is one sample, in milliseconds. */
export type Sample = () => number;

/** Times `f` called `times` times as one sample. */
export function sampleOf(f: () => void, times = 1): Sample {
  return () => {
    const began = performance.now();
    for (let i = 0; i < times; i++) f();
    return (performance.now() - began) / times;
  };
}

/** How often `f` has to be called for a sample of about `ms` milliseconds. */
export function timesFor(f: () => void, ms: number): number {
  f();
  const began = performance.now();
  f();
  return Math.max(1, Math.min(1000, Math.round(ms / Math.max(0.01, performance.now() - began))));
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Calls `f` for half a second with pauses, in which the engine's optimising compiler can finish. */
export async function warmUp(f: () => void): Promise<void> {
  for (const began = performance.now(); performance.now() - began < 500;) {
    f();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Medians over `rounds` rounds in which every sample is taken once, in order; and the ratios of each to the first. */
export function alternate(samples: readonly Sample[], rounds = 5): { ms: number[]; ratio: number[] } {
  for (const sample of samples) sample();
  const taken = Array.from({ length: rounds }, () => samples.map((sample) => sample()));
  return {
    ms: samples.map((_, i) => median(taken.map((round) => round[i]))),
    ratio: samples.map((_, i) => median(taken.map((round) => round[i] / round[0]))),
  };
}

/** A line of a table: cells padded to their columns. */
export function row(cells: readonly (string | number)[], widths: readonly number[]): string {
  return cells.map((cell, i) => i === 0 ? String(cell).padEnd(widths[i]) : String(cell).padStart(widths[i])).join(" ");
}
