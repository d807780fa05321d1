/** How fast a run goes. */

/** Seconds over which a rate means something. */
const minSeconds = 0.25;

/** What is known of a run's speed. */
export interface Speed {
  /** Tokens read a second, pauses left out; null until it was measured for a quarter of a second. */
  readonly tokensPerSecond: number | null;
  /** Seconds until the last step, pauses such as evaluations counted in; null until two steps are done. */
  readonly secondsLeft: number | null;
}

/** Measures a run of `total` steps. The first step also compiles, so time is counted from its end. */
export function speedMeter(
  total: number,
  now: () => number = () => performance.now(),
): { note(step: number, tokens: number): Speed; pause<T>(work: () => Promise<T>): Promise<T> } {
  let first: { step: number; tokens: number; time: number } | undefined;
  let paused = 0;
  return {
    note(step, tokens) {
      const time = now();
      first ??= { step, tokens, time };
      const seconds = (time - first.time) / 1000;
      if (seconds <= 0) return { tokensPerSecond: null, secondsLeft: null };
      const working = seconds - paused / 1000;
      return {
        tokensPerSecond: working < minSeconds ? null : (tokens - first.tokens) / working,
        secondsLeft: seconds / (step - first.step) * (total - step),
      };
    },
    async pause(work) {
      const begun = now();
      try {
        return await work();
      } finally {
        if (first) paused += now() - begun;
      }
    },
  };
}
