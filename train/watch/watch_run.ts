/** The watcher that programs use: evaluates, keeps the best parameters, stops what is lost or done, and writes metrics. */
import { OptionError } from "../../core/errors.ts";
import type { Tensor } from "../../core/tensor.ts";
import { flatten } from "../../core/tree.ts";
import type { Device } from "../../kernels/device/device.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { earlyStopping, type StoppingState } from "./early_stopping.ts";
import type { Evaluation } from "../evaluate.ts";
import type { MetricsEvent, MetricsLog, Sample } from "./metrics.ts";
import { type Speed, speedMeter } from "./speed.ts";
import type { StepLine, Stop, Watch } from "./watch.ts";
import { watchdog, type WatchdogOptions, type WatchdogState } from "./watchdog.ts";
import { checkOptions, type OptionNames } from "../../core/options.ts";

/** What is watched, and how. `P` is the tree of trained parameters. */
export interface WatchOptions<P> {
  /** Steps of the whole run. */
  readonly steps: number;
  /** Where the run lives: its memory is written down. */
  readonly device: Device;
  /** Measures parameters on validation rows: {@link evaluator} makes one. Without it nothing is evaluated. */
  readonly evaluate?: (params: P) => Promise<Evaluation>;
  /** Steps between two evaluations; one at the start and one at the end are added. Default 100. */
  readonly evaluateEvery?: number;
  /** Evaluations in a row without a new best that end the run. By default they do not. */
  readonly patience?: number;
  /** By how much a loss must be below the best to be a new best. Default 0. */
  readonly minDelta?: number;
  /** null for none. */
  readonly watchdog?: WatchdogOptions | null;
  /** Continues some prompts, to be read beside each other; done at every evaluation, or without one as often. */
  readonly sample?: (params: P) => Promise<readonly Sample[]>;
  /** Where lines of metrics go. */
  readonly metrics?: MetricsLog;
  /** Called for every step with its speed. */
  readonly onStep?: (line: StepLine, speed: Speed) => void;
  /** Called for every evaluation. */
  readonly onEvaluation?: (step: number, evaluation: Evaluation, best: boolean) => void;
  /** Milliseconds on a clock. */
  readonly now?: () => number;
}

const watchNames: OptionNames<WatchOptions<unknown>> = {
  ...{ steps: true, device: true, evaluate: true, evaluateEvery: true, patience: true, minDelta: true, watchdog: true },
  ...{ sample: true, metrics: true, onStep: true, onEvaluation: true, now: true },
};

/** The best parameters so far. */
export interface Best<P> {
  /** When it was. */
  readonly step: number;
  /** The loss on the validation rows; without an evaluation, the mean of the last steps' losses. */
  readonly loss: number;
  /** A copy, disposed of with the watch. */
  readonly params: P;
}

/** A {@link Watch} that remembers. */
export interface RunWatch<P> extends Watch, Disposable {
  /** The best parameters so far, or null before the first evaluation. */
  readonly best: Best<P> | null;
  /** All so far. */
  readonly evaluations: readonly { readonly step: number; readonly evaluation: Evaluation }[];
  /** Writes how the run ended. */
  end(step: number, end: "done" | { readonly reason: string; readonly message?: string }): void;
}

/** What goes into a checkpoint. */
interface WatchState {
  readonly stopping: StoppingState;
  readonly guard: WatchdogState | null;
  readonly recent: readonly number[];
  readonly best: { readonly step: number; readonly loss: number | null } | null;
  readonly seconds: number;
}

/**
 * Watches one run: give it to `train` as `watch`. The best parameters are those with the lowest loss on the validation rows.
 * Without such rows they are those after the steps with the lowest mean loss: all that is known then.
 *
 * @throws {OptionError} when a number is out of its range
 */
export function watchRun<P>(options: WatchOptions<P>): RunWatch<P> {
  checkOptions("watchRun", options, watchNames);
  const { steps, device, evaluate, evaluateEvery: every = 100, metrics, sample, onStep, onEvaluation } = options;
  if (!Number.isInteger(every) || every < 1) {
    throw new OptionError(`evaluateEvery is ${every}: give a whole number of steps of at least 1`);
  }
  const { patience = Infinity, minDelta, now = () => performance.now() } = options;
  let stopping = earlyStopping({ patience, minDelta });
  let guard = options.watchdog === null ? null : watchdog(options.watchdog);
  const speed = speedMeter(steps, now);
  const copy = jit((params: P) => params);
  const evaluations: { step: number; evaluation: Evaluation }[] = [];
  const begun = now();
  let before = 0; // seconds of the run that this one goes on with
  const seconds = () => before + (now() - begun) / 1000;
  let best: Best<P> | null = null;
  let recent: number[] = [];

  const dispose = () => best && flatten<Tensor>(best.params).leaves.forEach((leaf) => leaf.dispose());
  const keep = (step: number, loss: number, params: P) => {
    dispose();
    best = { step, loss, params: copy(params) as P };
  };
  const note = (event: MetricsEvent) => metrics?.write(event);

  return {
    get best() {
      return best;
    },
    evaluations,
    onStep(line) {
      const known = speed.note(line.step, line.tokens);
      const memory = { deviceBytes: device.memory.current, processBytes: Deno.memoryUsage().rss };
      const { measures, ...own } = line;
      note({ event: "step", ...own, ...measures, seconds: seconds(), ...known, ...memory });
      onStep?.(line, known);
      recent.push(line.loss);
      const alarm = guard?.check(line.loss);
      if (!alarm) return null;
      const losses = alarm.losses.map((loss) => loss.toFixed(2)).join(", ");
      return {
        reason: "diverged",
        step: line.step,
        message: `The losses of the last ${alarm.losses.length} steps, ${losses}, are far above the running mean of ` +
          `${alarm.mean.toFixed(2)}: the run was stopped after step ${line.step}. ${describeBest(best)}`,
      };
    },
    due: (step) => step % every === 0 || step === steps,
    evaluate: (step, given) =>
      speed.pause(async (): Promise<Stop | null> => {
        const params = given as P;
        if (sample) note({ event: "samples", step, samples: await sample(params) });
        if (!evaluate) {
          // Before the first step there is no loss to go by.
          const mean = recent.length > 0 ? recent.reduce((a, b) => a + b) / recent.length : Infinity;
          recent = [];
          if (best === null || mean < best.loss) keep(step, mean, params);
          return null;
        }
        const from = now();
        const evaluation = await evaluate(params);
        const verdict = stopping.judge(evaluation.loss);
        evaluations.push({ step, evaluation });
        if (verdict === "best" || best === null) keep(step, evaluation.loss, params);
        const isBest = best!.step === step;
        note({ event: "evaluation", step, best: isBest, seconds: (now() - from) / 1000, ...evaluation });
        onEvaluation?.(step, evaluation, isBest);
        if (verdict !== "stop") return null;
        return {
          reason: "no progress",
          step,
          message:
            `The loss on the validation rows has not fallen for ${patience} evaluations: the run was stopped after ` +
            `step ${step}. ${describeBest(best)}`,
        };
      }),
    save: (): WatchState => ({
      stopping: stopping.state,
      guard: guard?.state ?? null,
      recent,
      seconds: seconds(),
      best: best && { step: best.step, loss: Number.isFinite(best.loss) ? best.loss : null },
    }),
    restore(saved, params) {
      const { stopping: state, guard: dog, recent: losses, best: last, seconds } = saved as WatchState;
      before = seconds;
      stopping = earlyStopping({ patience, minDelta, state });
      if (guard && dog) guard = watchdog({ ...options.watchdog, state: dog });
      recent = [...losses];
      if (last && params) best = { step: last.step, loss: last.loss ?? Infinity, params: params as P };
    },
    end(step, end) {
      note({ event: "end", step, ...(end === "done" ? { reason: "done" } : pick(end)) });
    },
    [Symbol.dispose]() {
      dispose();
      best = null;
    },
  };
}

/** Of an end, what metrics keep. */
function pick({ reason, message }: { readonly reason: string; readonly message?: string }) {
  return { reason, ...(message !== undefined && { message }) };
}

function describeBest(best: Best<unknown> | null): string {
  if (best === null) return "No parameters were kept.";
  const loss = best.loss === Infinity ? "" : `, with a loss of ${best.loss.toFixed(4)}`;
  return `The best parameters are those after step ${best.step}${loss}.`;
}
