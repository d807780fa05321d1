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

/** The value below which a quarter, a half, and three quarters of the values lie. */
export function quartiles(values: readonly number[]): [number, number, number] {
  const sorted = [...values].sort((a, b) => a - b), half = sorted.length / 2;
  return [median(sorted.slice(0, Math.ceil(half))), median(sorted), median(sorted.slice(Math.floor(half)))];
}

/** Calls `f` for half a second, or `ms`, with pauses, in which the engine's optimising compiler can finish. */
export async function warmUp(f: () => void, ms = 500): Promise<void> {
  for (const began = performance.now(); performance.now() - began < ms;) {
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

/**
 * The first sample is taken before and after each of the others, there and back: the ratio of each to the mean of its two
 * neighbours, `rounds` times (1 for the first), and the medians of the milliseconds. Between samples is a pause of a fifth of
 * their time: what else the machine has to do, it does then rather than in a sample.
 */
export async function besideFirst(
  samples: readonly Sample[],
  rounds: number,
): Promise<{ ms: number[]; ratios: number[][] }> {
  const take = async (sample: Sample) => {
    const began = performance.now(), time = sample();
    await new Promise((resolve) => setTimeout(resolve, (performance.now() - began) / 5));
    return time;
  };
  const [first, ...others] = samples;
  const times: number[][] = samples.map(() => []), ratios: number[][] = samples.map(() => []);
  let before = await take(first);
  for (let round = 0; round < rounds; round++) {
    const order = others.map((_, i) => round % 2 === 0 ? i : others.length - 1 - i);
    for (const i of order) {
      const time = await take(others[i]), after = await take(first);
      times[i + 1].push(time);
      times[0].push(after);
      ratios[i + 1].push(2 * time / (before + after));
      before = after;
    }
  }
  return { ms: times.map(median), ratios: ratios.map((r, i) => i === 0 ? [1] : r) };
}

/** A line of a table: cells padded to their columns. */
export function row(cells: readonly (string | number)[], widths: readonly number[]): string {
  return cells.map((cell, i) => i === 0 ? String(cell).padEnd(widths[i]) : String(cell).padStart(widths[i])).join(" ");
}
