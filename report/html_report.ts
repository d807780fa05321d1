/** A run as one page: curves, samples over time, adapter, configuration, environment. It needs no script and no network. */
import { formatBytes, formatCount, formatSeconds } from "../core/host/format.ts";
import { Html, html } from "./html.ts";
import { objectiveOfMeasures } from "../train/objectives/mod.ts";
import { writeMeasure } from "../train/objectives/objective.ts";
import type { RunHistory } from "../train/watch/metrics.ts";
import { drawFigure, type Figure, type Point } from "./plot.ts";
import { reportStyle } from "./style.ts";
import { adapter, evaluations, figure, pairs, samples } from "./tables.ts";

/** What a report shows besides the metrics. */
export interface ReportOptions {
  /** Default: the name of the model. */
  readonly title?: string;
}

/** Writes the page of a run. */
export function reportHtml(history: RunHistory, options: ReportOptions = {}): string {
  const { run } = history;
  const title = options.title ?? String(run.configuration.model ?? "Training run");
  const page = html`
    <!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>${title}: training report</title>
        <style>
    ${new Html(reportStyle)}
    </style>
      </head>
      <body>
    <header>
    <h1>${title}</h1>
    <p>Training run of ${run.started.slice(0, 16).replace("T", " ")} UTC</p>
    ${statusOf(history)}
    </header>
    ${tiles(history)}
    ${curves(history)}
    ${samples(history)}
    ${evaluations(history)}
    ${adapter(run.adapter)}
    ${pairs("Configuration", run.configuration)}
    ${pairs("Environment", run.environment)}
    <footer>Written by lowrank from the run's metrics.</footer>
      </body>
    </html>
  `;
  return page.text.trimStart();
}

/** How runs end, in words; whether that is good. */
const ends: Record<string, readonly [string, boolean]> = {
  done: ["Finished", true],
  "no progress": ["Stopped early", true],
  interrupted: ["Interrupted", false],
  diverged: ["Stopped: diverged", false],
  "not finite": ["Stopped: not finite", false],
};

function statusOf({ run, steps, end }: RunHistory): Html {
  const last = steps.at(-1)?.step ?? run.from;
  const [words, good] = end === undefined
    ? ["Not finished", false]
    : Object.hasOwn(ends, end.reason)
    ? ends[end.reason]
    : [end.reason, false];
  return html`<div class="status ${good ? "good" : "bad"}">${words} after ${formatCount(last)} of ${
    formatCount(run.steps)
  } steps</div>
${end?.message !== undefined && html`<p class="remark">${end.message}</p>` || null}`;
}

function tiles({ run, steps, evaluations }: RunHistory): Html {
  const last = steps.at(-1);
  const best = evaluations.reduce<typeof evaluations[number] | null>(
    (low, e) => low === null || e.loss <= low.loss ? e : low,
    null,
  );
  const trainable = run.adapter.reduce((n, m) => n + m.trainable, 0);
  const speed = steps.findLast((s) => s.tokensPerSecond !== null)?.tokensPerSecond;
  const tile = (name: string, value: string, more?: string) =>
    html`
      <div>
        <dt>${name}</dt>
        <dd>${value}${more && html`<small>${more}</small>`}</dd>
      </div>
    `;
  return html`<dl class="tiles">
${
    best && [
      tile(
        "Best evaluation",
        figure(best.loss),
        [
          ...objectiveOfMeasures([best]).measures.map((m) => `${m.name} ${writeMeasure(m, best, 1, figure)}`),
          `step ${formatCount(best.step)}`,
        ].join(", "),
      ),
    ]
  }
${
    last && [
      tile("Training loss", figure(last.loss), `from ${figure(steps[0].loss)}`),
      tile("Tokens read", formatCount(last.tokens), speed ? `${formatCount(Math.round(speed))} a second` : undefined),
      tile("Time", formatSeconds(last.seconds), `${formatCount(steps.length)} steps`),
      tile(
        "Device memory",
        formatBytes(steps.reduce((most, s) => Math.max(most, s.deviceBytes), 0)),
        `process ${formatBytes(steps.reduce((most, s) => Math.max(most, s.processBytes), 0))}`,
      ),
    ]
  }
${tile("Trainable", formatCount(trainable), `${formatCount(run.adapter.length)} modules`)}
</dl>`;
}

function curves({ steps, evaluations }: RunHistory): Html | null {
  if (steps.length === 0) return null;
  const of = (key: "loss" | "lr" | "gradNorm" | "tokensPerSecond" | "deviceBytes"): Point[] =>
    steps.map((s) => ({ step: s.step, value: s[key] ?? NaN }));
  const marked = evaluations.map(({ step, loss }) => ({ step, value: loss }));
  const best = evaluations.findLast((e) => e.best)?.step;
  const loss = { label: "loss (nats a token)", points: of("loss"), marked, best, smooth: steps.length > 20 };
  const small = (name: string, figure: Omit<Figure, "width" | "height">) =>
    html`<figure><h3>${name}</h3>${draw({ ...figure, width: 300, height: 190 })}</figure>`;
  return html`
    <h2>Curves</h2>
    <figure>
      <div class="wide">${draw({ ...loss, width: 920, height: 380 })}</div>
      <div class="narrow">${draw({ ...loss, width: 360, height: 270 })}</div>
      <figcaption><span class="key"><i class="train"></i>training${loss.smooth
        ? ", thin as measured, thick smoothed"
        : ""}</span>
    ${marked.length > 0
      ? html`<span class="key"><i class="evaluation"></i>validation rows, the best in a circle</span>`
      : null}</figcaption>
    </figure>
    <div class="figures">
        ${small("Learning rate", { label: "lr", points: of("lr"), zero: true })}
        ${small("Gradient norm", { label: "norm before clipping", points: of("gradNorm") })}
        ${small("Speed", { label: "tokens a second", points: of("tokensPerSecond"), zero: true, format: "count" })}
        </div>
  `;
}

const draw = (figure: Figure) => new Html(drawFigure(figure));
