/** Learning rates over a run, as transformers' `get_*_schedule_with_warmup` has them. */
import { OptionError } from "../../core/errors.ts";
import { checkOptions } from "../../core/options.ts";

/** A learning rate for each step, counted from 0. */
export type Schedule = (step: number) => number;

/** The shapes that a schedule can have after its warm-up. */
export type ScheduleName = "constant" | "linear" | "cosine";

/** All of them. */
export const scheduleNames: readonly ScheduleName[] = ["constant", "linear", "cosine"];

/** What makes a schedule. */
export interface ScheduleOptions {
  /** Which curve. */
  readonly schedule: ScheduleName;
  /** The highest learning rate. */
  readonly lr: number;
  /** Steps in the whole run; `linear` and `cosine` end at 0 after them. */
  readonly steps: number;
  /** Steps over which the rate rises from 0: with any, step 0 has lr 0. Default 0. */
  readonly warmup?: number;
}

/**
 * The learning rate of each step s: `lr·s/warmup` while s < warmup, then as the shape says, with the part p of the rest that
 * is done: constant `lr`, linear `lr·(1 - p)`, cosine `lr·(1 + cos πp)/2`.
 *
 * @throws {OptionError} when a number is out of its range
 */
export function makeSchedule(options: ScheduleOptions): Schedule {
  checkOptions("makeSchedule", options, { schedule: true, lr: true, steps: true, warmup: true });
  const { schedule, lr, steps, warmup = 0 } = options;
  if (!(lr > 0 && Number.isFinite(lr))) throw new OptionError(`the learning rate is ${lr}: give a number above 0`);
  if (!(warmup >= 0)) throw new OptionError(`the warm-up has ${warmup} steps: give at least 0`);
  const part = (step: number) => Math.min(1, (step - warmup) / Math.max(1, steps - warmup));
  const shapes: Record<ScheduleName, Schedule> = {
    constant: () => lr,
    linear: (step) => lr * (1 - part(step)),
    cosine: (step) => lr * 0.5 * (1 + Math.cos(Math.PI * part(step))),
  };
  if (!Object.hasOwn(shapes, schedule)) {
    throw new OptionError(`there is no schedule ${schedule}: choose one of ${scheduleNames.join(", ")}`);
  }
  return (step) => step < warmup ? lr * step / warmup : shapes[schedule](step);
}
