/** Early stopping: a run ends when its loss on kept-back rows has not fallen for some evaluations. */
import { OptionError } from "../core/errors.ts";

/** When to stop. */
export interface EarlyStoppingOptions {
  /** Evaluations in a row without a new best that end the run. */
  readonly patience: number;
  /** By how much a loss must be below the best to count as a new best. Default 0. */
  readonly minDelta?: number;
}

/** What an evaluation means: a new best, one more without, or the one at which to stop. */
export type Verdict = "best" | "wait" | "stop";

/**
 * Judges the losses of evaluations in their order. A loss that is not a number is never a new best.
 *
 * @throws {OptionError} when a number is out of its range
 */
export function earlyStopping({ patience, minDelta = 0 }: EarlyStoppingOptions): (loss: number) => Verdict {
  if (!(patience >= 1)) throw new OptionError(`patience is ${patience}: give at least 1 evaluation`);
  if (!(minDelta >= 0)) throw new OptionError(`minDelta is ${minDelta}: give a number of at least 0`);
  let best = Infinity;
  let since = 0;
  return (loss) => {
    if (loss < best - (best === Infinity ? 0 : minDelta)) {
      best = loss;
      since = 0;
      return "best";
    }
    return ++since >= patience ? "stop" : "wait";
  };
}
