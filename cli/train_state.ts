/** How a run of `lowrank train` begins or goes on, is kept, and ends. */
import { FileError, OptionError } from "../core/errors.ts";
import { countOf } from "../core/host/format.ts";
import { checkpointSteps, type CheckpointStore } from "../train/checkpoint/checkpoint.ts";
import type { TrainConfig } from "../train/options/config.ts";
import type { Checkpoints, TrainResult } from "../train/loop.ts";
import { metricsFile, type MetricsLog } from "../train/watch/metrics.ts";
import { reportEnd } from "../report/describe.ts";
import type { RunWatch } from "../train/watch/watch_run.ts";
import type { Terminal } from "./command.ts";
import { writeLabels } from "./open_model.ts";
import { reportFile } from "./report.ts";
import { tryReport } from "./train_watch.ts";

/**
 * Refuses to start in the folder of a run, and to resume where there is none.
 *
 * @throws {OptionError} naming the checkpoint that is there
 * @throws {FileError} where there is none to resume from
 */
export function refuseOtherRun(
  out: string,
  { resume, overwrite }: { readonly resume: boolean; readonly overwrite: boolean },
): void {
  const last = checkpointSteps(`${out}/${checkpointFolder}`).at(-1);
  if (resume && last === undefined) throw noCheckpoint(out);
  if (resume || overwrite || last === undefined) return;
  throw new OptionError(
    `${out} holds a run with a checkpoint of step ${last}: add --resume to continue it, --overwrite to start over, or ` +
      `choose another --out.`,
  );
}

/** The folder of a run's checkpoints in its own. */
export const checkpointFolder = "checkpoints";

function noCheckpoint(out: string): FileError {
  return new FileError(
    `There is no checkpoint in ${out}/${checkpointFolder} to resume from: leave --resume out to start.`,
  );
}

/** The checkpoint to go on from; undefined for a run that begins. */
export function findStart(store: CheckpointStore, out: string, resume: boolean, terminal: Terminal) {
  if (!resume) {
    store.clear();
    return undefined;
  }
  const found = store.newest();
  if (found === null) throw noCheckpoint(out);
  for (const note of found.notes) terminal.warn(note);
  terminal.say(`resuming  after step ${found.snapshot.step}`);
  return found.snapshot;
}

/** Metrics that can't be written end with a warning, not with the run. */
export function tolerantMetrics(log: MetricsLog, terminal: Terminal): MetricsLog {
  let failed = false;
  return {
    write(event) {
      if (failed) return;
      try {
        log.write(event);
      } catch (error) {
        if (!(error instanceof FileError)) throw error;
        failed = true;
        terminal.warn(`${error.message} No more metrics are written; the run continues.`);
      }
    },
    [Symbol.dispose]: () => log[Symbol.dispose](),
  };
}

/** When to save, and what is reported if that fails: a run continues without a checkpoint rather than end. */
export function keepCheckpoints(
  store: CheckpointStore,
  { saveEvery }: TrainConfig,
  watch: RunWatch<unknown>,
  terminal: Terminal,
): Checkpoints {
  return {
    due: (step, best) => best || step % saveEvery === 0,
    save: async (snapshot, params) => {
      try {
        for (const note of await store.save(snapshot, params, watch.best?.step ?? null)) {
          terminal.warn(`An old checkpoint stays: ${note} The run continues.`);
        }
      } catch (error) {
        if (!(error instanceof FileError)) throw error;
        terminal.warn(`The checkpoint of step ${snapshot.step} is not saved: ${error.message} The run continues.`);
      }
    },
  };
}

/** Where a run can be resumed from, after one that could not write everything. */
function describeNewest(store: CheckpointStore, out: string): string {
  const newest = store.steps().at(-1);
  if (newest === undefined) return `No checkpoint is in ${out}/checkpoints, so nothing can continue from there.`;
  return `The last complete state is the checkpoint of step ${newest} in ${out}/checkpoints: lowrank train --resume --out ` +
    `${out} continues from there.`;
}

/** Writes the result and says how the run went. */
export async function finish(
  run: TrainResult<unknown>,
  { store, steps, from, out, watch, evaluated, classes, writeResult }: {
    store: CheckpointStore;
    steps: number;
    from: number;
    out: string;
    watch: RunWatch<unknown>;
    evaluated: boolean;
    classes?: readonly string[];
    writeResult: (folder: string, params: unknown) => Promise<void>;
  },
  terminal: Terminal,
): Promise<void> {
  const { end, losses, shapes } = run;
  const step = from + losses.length;
  // Interrupted, the run will go on: what it has come to is what is wanted. Else the best that is known.
  const interrupted = end !== "done" && end.reason === "interrupted";
  const useBest = watch.best !== null && !interrupted && (evaluated || end !== "done");
  watch.end(step, end);
  try {
    if (classes) writeLabels(out, classes);
    await writeResult(out, useBest ? watch.best!.params : run.trainable);
  } catch (error) {
    if (!(error instanceof FileError)) throw error;
    throw new FileError(`${error.message} ${describeNewest(store, out)}`);
  }
  if (shapes.length > 0) terminal.say(`batches   ${countOf(shapes.length, "shape")}: ${shapes.join(", ")} tokens`);
  if (losses.length > 0) {
    terminal.print(
      `loss      ${losses[0].toFixed(4)} at step ${from + 1}, ${losses.at(-1)!.toFixed(4)} at step ${step}`,
    );
  }
  if (useBest) {
    terminal.print(
      `best      after step ${watch.best!.step}, loss ${watch.best!.loss.toFixed(4)}: this is what is saved`,
    );
  }
  if (end !== "done" && end.reason === "no progress") terminal.print(`stopped   ${end.message}`);
  terminal.print(`saved     ${out}`);
  terminal.result({
    ...{ out, steps: step, end: end === "done" ? "done" : end.reason, losses, shapes },
    ...(watch.evaluations.length > 0 && { evaluations: watch.evaluations }),
    ...(useBest && { best: { step: watch.best!.step, loss: watch.best!.loss } }),
  });
  await tryReport(`${out}/${metricsFile}`, `${out}/${reportFile}`, terminal);
  if ((end === "done" || interrupted) && store.steps().at(-1) !== step) {
    terminal.warn(`note: ${describeNewest(store, out)}`);
  } else if (interrupted) terminal.say(`resuming  lowrank train --resume --out ${out} continues after step ${step}`);
  reportEnd(end, steps, out);
}
