/** Early stopping: a run ends when its loss on kept-back rows has not fallen for some evaluations. */
import { OptionError } from "../../core/errors.ts";
import { checkOptions } from "../../core/options.ts";

/** When to stop. */
export interface EarlyStoppingOptions {
  /** Evaluations in a row without a new best that end the run. */
  readonly patience: number;
  /** By how much a loss must be below the best to count as a new best. Default 0. */
  readonly minDelta?: number;
  /** The saved state of a resumed run. */
  readonly state?: StoppingState;
}

/** What an evaluation means: a new best, one more without, or the one at which to stop. */
export type Verdict = "best" | "wait" | "stop";

/** What is remembered between evaluations, as JSON. */
export interface StoppingState {
  /** The lowest loss, or null before the first. */
  readonly best: number | null;
  /** Evaluations since then. */
  readonly since: number;
}

/** Judges the losses of evaluations. */
export interface EarlyStopping {
  /** Of the next evaluation's loss. One that is not a number is never a new best. */
  judge(loss: number): Verdict;
  /** @ignore */
  readonly state: StoppingState;
}

/**
 * Begins to judge, or goes on from a state.
 *
 * @throws {OptionError} when a number is out of its range
 */
export function earlyStopping(options: EarlyStoppingOptions): EarlyStopping {
  checkOptions("earlyStopping", options, { patience: true, minDelta: true, state: true });
  const { patience, minDelta = 0, state = { best: null, since: 0 } } = options;
  if (!(patience >= 1)) throw new OptionError(`patience is ${patience}: give at least 1 evaluation`);
  if (!(minDelta >= 0)) throw new OptionError(`minDelta is ${minDelta}: give a number of at least 0`);
  let { best, since } = state;
  return {
    judge(loss) {
      if (best === null ? loss < Infinity : loss < best - minDelta) {
        best = loss;
        since = 0;
        return "best";
      }
      return ++since >= patience ? "stop" : "wait";
    },
    get state() {
      return { best, since };
    },
  };
}
