/** `lowrank report`: a run's metrics as one page to read, print or send. */
import { pathKind } from "../models/load/files/byte_source.ts";
import { writeFileAtomic } from "../models/load/files/atomic_file.ts";
import { metricsFile, readMetrics } from "../train/watch/metrics.ts";
import type { OptionTable } from "../train/options/option_table.ts";
import { reportHtml } from "../report/html_report.ts";
import { type Command, formatUsage, readFlags, UsageError } from "./command.ts";

/** The name of the report in a run's folder. */
export const reportFile = "report.html";

const table = {
  out: { kind: "text", value: "FILE", help: `Where to write the page; by default ${reportFile} next to the metrics` },
  title: { kind: "text", help: "The title; by default the model" },
} as const satisfies OptionTable;

export const command: Command = {
  name: "report",
  summary: "write a run's metrics as one page: curves, samples, configuration, adapter",
  usage: formatUsage({
    call: "report FOLDER [OPTIONS]",
    table,
    example: "lowrank report out/letters",
    more: `FOLDER is the --out of train, or a ${metricsFile} by itself. Train writes the page too, at its end.`,
  }),
  // deno-lint-ignore require-await -- a command's interface
  run: async (args, terminal) => {
    const { options: { out, title }, rest: [place] } = readFlags(args, table, 1);
    if (place === undefined) throw new UsageError("no run is named: give its folder");
    const metrics = pathKind(place) === "file" ? place : `${place}/${metricsFile}`;
    const page = out ?? metrics.replace(/[^/\\]*$/, reportFile);
    const history = writeReport(metrics, page, title);
    terminal.print(`written   ${page}`);
    terminal.result({ page, steps: history.steps.at(-1)?.step ?? 0, evaluations: history.evaluations.length });
  },
};

/** Writes the page of a file of metrics; its history. */
export function writeReport(metrics: string, page: string, title?: string) {
  const history = readMetrics(metrics);
  writeFileAtomic(page, reportHtml(history, { title }));
  return history;
}
