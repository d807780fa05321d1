/** What `lowrank train` plans and reports: the memory that a run takes, its environment, its report. */
import project from "../deno.json" with { type: "json" };
import { LowrankError } from "../core/errors.ts";
import type { OpenedDevice } from "../kernels/device/open.ts";
import type { Evaluation } from "../train/evaluate.ts";
import { describeMemory, type Remedy, requireMemory, smallerBatches } from "../train/memory/check.ts";
import { estimateMemory, type MemoryEstimate, type MemoryPlan } from "../train/memory/estimate.ts";
import type { RunFacts } from "../train/watch/metrics.ts";
import { describeModel } from "../report/describe.ts";
import { type Objective, writeMeasure } from "../train/objectives/objective.ts";
import type { Trainee } from "../train/trainee.ts";
import type { Terminal } from "./command.ts";
import type { PredictiveModel } from "./open_model.ts";

/** How else a model can be trained: with packed weights, with blocks that are computed twice. */
interface Otherwise {
  readonly packed: boolean;
  readonly byBlocks: boolean;
}

/**
 * Says how much memory a run will take.
 *
 * @param byBlocks whether blocks are not computed twice yet
 * @param otherwise the same trainee otherwise; null where its weights can't be packed, or are
 * @throws {DeviceError} with a remedy, where the device can't hold the run
 */
export function planMemory(
  { trainee, byBlocks, otherwise, plan, device, terminal }: {
    trainee: Trainee;
    byBlocks: boolean;
    otherwise: (how: Otherwise) => Trainee | null;
    plan: MemoryPlan;
    device: Parameters<typeof requireMemory>[0];
    terminal: Terminal;
  },
): MemoryEstimate {
  const estimate = estimateMemory(trainee, plan);
  terminal.say(`memory    ${describeMemory(estimate)}`);
  requireMemory(device, estimate, () => {
    const packed = otherwise({ packed: true, byBlocks: !byBlocks }) !== null;
    // What costs nothing comes first; smaller batches only together with all else.
    const flags = [
      ...(plan.samples ? ["--samples 0"] as const : []),
      ...(packed ? ["--dtype packed"] as const : []),
      ...(byBlocks ? ["--checkpoint-blocks"] as const : []),
    ];
    const sets = subsets(flags).map((set) => ({ set, smaller: {}, change: set.join(" ") }));
    const blocks = flags.filter((flag) => flag === "--checkpoint-blocks");
    const smaller = smallerBatches(plan.batch, plan.accumulate).flatMap((smaller) =>
      [blocks, flags].map((set) => ({
        set,
        smaller,
        change: [...set, `--batch ${smaller.batch} --accumulate ${smaller.accumulate}`].join(" "),
      }))
    );
    return [...sets, ...smaller].map(({ set, smaller, change }): Remedy => ({
      change,
      estimate: () => {
        const how = {
          packed: set.includes("--dtype packed"),
          byBlocks: !byBlocks || set.includes("--checkpoint-blocks"),
        };
        const samples = set.includes("--samples 0") ? 0 : plan.samples;
        return estimateMemory(otherwise(how)!, { ...plan, ...smaller, samples });
      },
    }));
  });
  return estimate;
}

/** The sets of some of the items but the empty one, small ones first. */
function subsets<T>(items: readonly T[]): T[][] {
  const all = items.reduce<T[][]>((sets, item) => [...sets, ...sets.map((set) => [...set, item])], [[]]);
  return all.slice(1).sort((a, b) => a.length - b.length);
}

/** The environment of a run, for its metrics and report. */
export function describeSurroundings(
  model: PredictiveModel,
  data: string,
  device: OpenedDevice,
): RunFacts["environment"] {
  const { os, arch } = Deno.build;
  return {
    model: `${model.path}: ${describeModel(model)}`,
    ...(model.notes.length > 0 && { weights: model.notes.join("; ") }),
    data,
    device: `${device.description}: ${device.reason}`,
    system: `${os} ${arch}`,
    deno: Deno.version.deno,
    lowrank: project.version,
  };
}

/** `step 100: loss on the valid rows 1.2345, perplexity 3.44, the best so far`. */
export function describeEvaluation(
  step: number,
  { measures }: Objective,
  evaluation: Evaluation,
  best: boolean,
): string {
  const rest = measures.map((measure) => `, ${measure.name} ${writeMeasure(measure, evaluation)}`).join(
    "",
  );
  return `step ${step}: loss on the valid rows ${evaluation.loss.toFixed(4)}${rest}${best ? ", the best so far" : ""}`;
}

/** Writes the report of a run that is over. A failure is reported, and nothing else is lost. */
export async function tryReport(metrics: string, page: string, terminal: Terminal): Promise<void> {
  try {
    const { writeReport } = await import("./report.ts"); // it draws, which nothing else needs
    writeReport(metrics, page);
    terminal.print(`report    ${page}`);
  } catch (error) {
    // The run is over and saved, and does not fail for its report: the command tells all of what went wrong.
    const what = error instanceof LowrankError ? error.message : `${(error as Error).message.split("\n")[0]}.`;
    terminal.warn(`The report is not written: ${what} lowrank report ${metrics} writes it.`);
  }
}
