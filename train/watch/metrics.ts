/** A run's metrics as JSONL: one object per line, written as things happen, so that a run which is cut off has left them. */
import { DataError, FileError } from "../../core/errors.ts";
import { explainOsError } from "../../core/host/os_error.ts";
import { refuseLink, writeAll } from "../../models/load/files/atomic_file.ts";
import { openBytes, pathKind } from "../../models/load/files/byte_source.ts";
import type { Evaluation } from "../evaluate.ts";
import { objectives } from "../objectives/mod.ts";
import type { StepLine } from "./watch.ts";
import { checkOptions, checkPath } from "../../core/options.ts";

/** The name of the metrics in a run's folder. */
export const metricsFile = "metrics.jsonl";

/** What a run is, known before its first step. Every entry is shown as it stands. */
export interface RunFacts {
  /** When it began, ISO 8601. */
  readonly started: string;
  /** How many are to be made. */
  readonly steps: number;
  /** The first step that is still to do: above 0 in a run that was resumed from a checkpoint. */
  readonly from: number;
  /** Model, data, device, versions: name to text. */
  readonly environment: Readonly<Record<string, string>>;
  /** The options, defaults included. */
  readonly configuration: Readonly<Record<string, unknown>>;
  /** Adapted modules. */
  readonly adapter: readonly AdaptedModule[];
}

/** One adapted module. */
export interface AdaptedModule {
  /** The module. */
  readonly path: string;
  /** Its weight's. */
  readonly shape: readonly number[];
  /** Its rank. */
  readonly r: number;
  /** Its alpha. */
  readonly alpha: number;
  /** How many numbers are trained. */
  readonly trainable: number;
}

/** A prompt with its continuation after some steps. */
export interface Sample {
  /** What it was given. */
  readonly prompt: string;
  /** What it wrote. */
  readonly text: string;
}

/** One line of the file. */
export type MetricsEvent =
  | { readonly event: "run" } & RunFacts
  | {
    readonly event: "step";
    /** Seconds that the run has taken, before it was resumed too. */
    readonly seconds: number;
    readonly tokensPerSecond: number | null;
    readonly secondsLeft: number | null;
    /** Bytes that the device holds. */
    readonly deviceBytes: number;
    /** Bytes of the whole process. */
    readonly processBytes: number;
  } & StepLine
  | { readonly event: "evaluation"; readonly step: number; readonly best: boolean; readonly seconds: number }
    & Evaluation
  | { readonly event: "samples"; readonly step: number; readonly samples: readonly Sample[] }
  | { readonly event: "end"; readonly step: number; readonly reason: string; readonly message?: string };

/** Somewhere metrics go. */
export interface MetricsLog extends Disposable {
  /** Appends a line. */
  write(event: MetricsEvent): void;
}

/**
 * Opens `path` for metrics. With `append` what is there stays: a resumed run appends to it, after the last whole line.
 *
 * @throws {FileError} when the file can't be written, now or later
 */
export function openMetrics(path: string, options: { readonly append?: boolean } = {}): MetricsLog {
  checkOptions("openMetrics", options, { append: true });
  checkPath("openMetrics", path);
  const { append = false } = options;
  const refused = (error: unknown) =>
    new FileError(`Cannot write metrics to ${path}: ${explainOsError(error) ?? (error as Error).message}.`);
  const attempt = <T>(work: () => T): T => {
    try {
      return work();
    } catch (error) {
      // A permission that is missing names its flag by itself.
      throw error instanceof Deno.errors.NotCapable || error instanceof FileError ? error : refused(error);
    }
  };
  refuseLink(path);
  if (append) attempt(() => cutTornLine(path));
  const file = attempt(() => Deno.openSync(path, { write: true, create: true, append, truncate: !append }));
  return {
    write(event) {
      const bytes = new TextEncoder().encode(`${JSON.stringify(event)}\n`);
      attempt(() => writeAll(file, bytes));
    },
    [Symbol.dispose]: () => file.close(),
  };
}

/** Takes a last line without its end off a file: the run was cut off while it was written. */
function cutTornLine(path: string): void {
  try {
    Deno.truncateSync(path, Deno.readFileSync(path).lastIndexOf(10) + 1);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** A run as its metrics tell it, in the order of steps. */
export interface RunHistory {
  /** What was run. */
  readonly run: RunFacts;
  /** Its steps. */
  readonly steps: readonly (MetricsEvent & { event: "step" })[];
  /** Its evaluations. */
  readonly evaluations: readonly (MetricsEvent & { event: "evaluation" })[];
  /** What it wrote on the way. */
  readonly samples: readonly (MetricsEvent & { event: "samples" })[];
  /** Absent while a run goes on, and after one that was cut off. */
  readonly end?: MetricsEvent & { event: "end" };
}

/**
 * Reads metrics. A run that went on from a checkpoint replaces the steps that it did again. A last line without its end is
 * left out: the run was cut off while it was written.
 *
 * @throws {FileError} when the file can't be read
 * @throws {DataError} naming the line that is no metric
 */
export function readMetrics(path: string): RunHistory {
  checkPath("readMetrics", path);
  return parseMetrics(readText(path), path);
}

function readText(path: string): string {
  if (pathKind(path) === null) {
    throw new FileError(
      `Cannot read metrics from ${path}: there is no such file; train writes it into the folder of the adapter.`,
    );
  }
  using source = openBytes(path);
  const bytes = new Uint8Array(source.size);
  source.read(0, bytes);
  return new TextDecoder().decode(bytes);
}

/** {@link readMetrics} of a text; `path` is for messages. */
export function parseMetrics(text: string, path: string): RunHistory {
  const whole = text.slice(0, text.lastIndexOf("\n") + 1);
  const events = whole.split("\n").flatMap((line, i) =>
    line.trim() === "" ? [] : [parseEvent(line, `${path} line ${i + 1}`)]
  );
  let run: RunFacts | undefined;
  let end: RunHistory["end"];
  let [steps, evaluations, samples]: any[][] = [[], [], []];
  for (const event of events) {
    if (event.event === "run") {
      run = event;
      end = undefined;
      const { from } = event;
      [steps, evaluations, samples] = [steps, evaluations, samples].map((all) => all.filter((e) => e.step <= from));
    } else if (event.event === "step") steps.push(event);
    else if (event.event === "evaluation") evaluations.push(event);
    else if (event.event === "samples") samples.push(event);
    else end = event;
  }
  if (!run) throw new DataError(`${path} has no line of the event "run": it is not a metrics file, or an empty one.`);
  return { run, steps, evaluations, samples, ...(end && { end }) };
}

/** Whatever an objective may measure. */
const measures = Object.fromEntries(
  objectives.flatMap(({ measures }) => measures).map(({ name }) => [name, maybe(isNumber)]),
);

/** What each event has. */
const required: Record<string, Record<string, (value: any) => boolean>> = {
  run: {
    started: isText,
    steps: Number.isInteger,
    from: Number.isInteger,
    environment: (all) => isRecord(all) && Object.values(all).every(isText),
    configuration: isRecord,
    adapter: (all) => Array.isArray(all) && all.every(isModule),
  },
  step: {
    step: Number.isInteger,
    loss: isNumber,
    gradNorm: isNumber,
    lr: isFinite,
    tokens: isFinite,
    seconds: isFinite,
    tokensPerSecond: maybe(isNumber),
    secondsLeft: maybe(isNumber),
    deviceBytes: maybe(isFinite),
    processBytes: maybe(isFinite),
    ...measures,
  },
  evaluation: {
    step: Number.isInteger,
    loss: isNumber,
    count: isFinite,
    ...measures,
  },
  samples: {
    step: Number.isInteger,
    samples: (all) => Array.isArray(all) && all.every((s) => isRecord(s) && isText(s.prompt) && isText(s.text)),
  },
  end: { step: Number.isInteger, reason: isText, message: maybe(isText) },
};

function isText(value: unknown): value is string {
  return typeof value === "string";
}
/** JSON has no numbers that are not finite: those are written as null. */
function isNumber(value: unknown): boolean {
  return typeof value === "number" || value === null;
}
function isFinite(value: unknown): boolean {
  return typeof value === "number";
}
function maybe(fits: (value: unknown) => boolean): (value: unknown) => boolean {
  return (value) => value === undefined || fits(value);
}
function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
function isModule(value: unknown): boolean {
  return isRecord(value) && isText(value.path) && Array.isArray(value.shape) &&
    [value.r, value.alpha, value.trainable, ...value.shape].every((n) => typeof n === "number");
}

function parseEvent(line: string, place: string): MetricsEvent {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw new DataError(`${place} is not JSON (${(error as Error).message}): remove the line.`);
  }
  const event = isRecord(value) ? value.event : undefined;
  if (!isRecord(value) || !isText(event) || !Object.hasOwn(required, event)) {
    throw new DataError(`${place} is not a metric: its "event" must be one of ${Object.keys(required).join(", ")}.`);
  }
  for (const [key, fits] of Object.entries(required[event])) {
    if (fits(value[key])) continue;
    const found = value[key] === undefined ? "nothing" : JSON.stringify(value[key]).slice(0, 40);
    throw new DataError(`${place} has ${found} as the "${key}" of a ${event}.`);
  }
  return value as unknown as MetricsEvent;
}
