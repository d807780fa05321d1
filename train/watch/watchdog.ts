/** A watchdog: it barks when losses stay far above what they were, which a falling learning rate does not cure. */
import { OptionError } from "../../core/errors.ts";
import { checkOptions } from "../../core/options.ts";

/** When to bark. */
export interface WatchdogOptions {
  /** A loss is far above when it exceeds the running mean by this many times its running deviation. Default 6. */
  readonly deviations?: number;
  /** And by this many nats: where losses hardly vary, a small rise is no alarm. Default 1. */
  readonly margin?: number;
  /** Steps in a row far above before it barks. Default 5. */
  readonly steps?: number;
  /** Steps over which the running mean forgets. Default 50. */
  readonly memory?: number;
  /** The saved state of a resumed run. */
  readonly state?: WatchdogState;
}

/** Why a watchdog barks. */
export interface Alarm {
  /** Losses in a row that were far above. */
  readonly losses: readonly number[];
  /** The running mean that they were far above. */
  readonly mean: number;
  /** The most that they could have been. */
  readonly limit: number;
}

/** What is remembered between steps, as JSON. */
export interface WatchdogState {
  /** The running mean and variance of the losses that were not far above. */
  readonly mean: number;
  /** Of the losses. */
  readonly variance: number;
  /** How many these were. */
  readonly seen: number;
  /** The losses in a row that are far above now; null for one that is not a number. */
  readonly above: readonly (number | null)[];
}

/** Watches the losses of steps. */
export interface Watchdog {
  /** Of the next step's loss: an alarm, or null. */
  check(loss: number): Alarm | null;
  /** @ignore */
  readonly state: WatchdogState;
}

/**
 * Begins to watch, or goes on from a state. A loss that is far above does not move the mean, so that a run which leaves for
 * good cannot drag the mean along. Nothing is far above during the first `memory / 5` steps: there is no mean yet.
 *
 * @throws {OptionError} when a number is out of its range
 */
export function watchdog(options: WatchdogOptions = {}): Watchdog {
  checkOptions("watchdog", options, { deviations: true, margin: true, steps: true, memory: true, state: true });
  const { deviations = 6, margin = 1, steps = 5, memory = 50 } = options;
  const { state = { mean: 0, variance: 0, seen: 0, above: [] } } = options;
  for (const [name, value] of Object.entries({ deviations, margin, steps, memory })) {
    if (!(value > 0)) throw new OptionError(`the watchdog's ${name} is ${value}: give a number above 0`);
  }
  let { mean, variance, seen } = state;
  let above = state.above.map((loss) => loss ?? NaN);
  return {
    check(loss) {
      const limit = mean + Math.max(margin, deviations * Math.sqrt(variance));
      // A loss that is not a number counts as far above.
      if (seen >= memory / 5 && !(loss <= limit)) {
        above = [...above, loss];
        return above.length >= steps ? { losses: above, mean, limit } : null;
      }
      above = [];
      seen++;
      // Plain averages at first, exponential ones once `memory` steps were seen.
      const weight = 1 / Math.min(seen, memory);
      const off = loss - mean;
      mean += weight * off;
      variance = (1 - weight) * (variance + weight * off * off);
      return null;
    },
    get state() {
      return { mean, variance, seen, above: above.map((loss) => Number.isFinite(loss) ? loss : null) };
    },
  };
}
