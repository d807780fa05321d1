/** The parts of a report that are tables. */
import { formatCount } from "../core/host/format.ts";
import { Html, html } from "./html.ts";
import { objectiveOfMeasures } from "../train/objectives/mod.ts";
import { writeMeasure } from "../train/objectives/objective.ts";
import type { AdaptedModule, RunHistory } from "../train/watch/metrics.ts";

/** Loss, perplexity: four places. A loss that was not finite is null in the metrics. */
export const figure = (n: number | null | undefined) => {
  if (typeof n !== "number" || !Number.isFinite(n)) return "not finite";
  return n < 100 ? n.toFixed(4) : n.toLocaleString("en", { maximumFractionDigits: 1 });
};

/** The most states of a prompt's answer that are shown openly. */
const maxShown = 8;

/** The model's continuations of each prompt over the run. */
export function samples({ samples }: RunHistory): Html | null {
  if (samples.length === 0) return null;
  const prompts = samples[0].samples.map(({ prompt }) => prompt);
  const last = samples.length - 1;
  const shown = new Set(
    Array.from(
      { length: Math.min(maxShown, last + 1) },
      (_, i, of = Math.min(maxShown, last + 1)) => of === 1 ? 0 : Math.round(i * last / (of - 1)),
    ),
  );
  const row = (at: number, i: number) =>
    html`
      <tr>
        <th scope="row">step ${formatCount(samples[at].step)}</th>
        <td>${samples[at].samples[i]?.text.trim() || "(nothing)"}</td>
      </tr>
    `;
  const table = (indices: readonly number[], i: number) =>
    html`
      <table>
        <tbody>${indices.map((at) => row(at, i))}</tbody>
      </table>
    `;
  const all = samples.map((_, at) => at);
  const rest = all.filter((at) => !shown.has(at));
  return html`<h2>Samples over time</h2>
${
    prompts.map((prompt, i) =>
      html`<div class="sample"><p class="prompt">${prompt.trim()}</p>
${table(all.filter((at) => shown.has(at)), i)}
${
        rest.length > 0
          ? html`<details><summary>${formatCount(rest.length)} more</summary>${table(rest, i)}</details>`
          : null
      }</div>`
    )
  }`;
}

/** Every evaluation, the best of them pointed out. */
export function evaluations({ evaluations }: RunHistory): Html | null {
  if (evaluations.length === 0) return null;
  const best = evaluations.findLast((e) => e.best);
  const { measures, unit } = objectiveOfMeasures(evaluations);
  return html`
    <h2>Evaluations</h2>
    <div class="scroll">
      <table class="compact">
        <thead>
          <tr>
            <th>step</th>
            <th class="number">loss</th>${measures.map(({ name }) => html`<th class="number">${name}</th>`)}
            <th class="number">${unit}</th>
            <th></th>
          </tr>
        </thead>
        <tbody>${evaluations.map((e) =>
          html`
            <tr${e === best ? new Html(' class="best"') : null}>
              <th scope="row">${formatCount(e.step)}</th>
              <td class="number">${figure(e.loss)}</td>${measures.map((m) =>
                html`<td class="number">${writeMeasure(m, e, 2, figure)}</td>`
              )}
              <td class="number">${formatCount(e.count)}</td>
              <td>${e === best ? "best" : null}</td>
              </tr>
          `
        )}</tbody>
      </table>
    </div>
  `;
}

/** One row for each kind of module, layers counted. */
export function adapter(modules: readonly AdaptedModule[]): Html | null {
  if (modules.length === 0) return null;
  const kinds = new Map<string, AdaptedModule[]>();
  for (const m of modules) {
    const name = m.path.replace(/\.\d+(?=\.|$)/g, ".*");
    const key = [name, m.shape.join(" × "), m.r, m.alpha].join("|");
    kinds.set(key, [...kinds.get(key) ?? [], m]);
  }
  return html`
    <h2>Adapter</h2>
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th>module</th>
            <th class="number">layers</th>
            <th class="number">shape</th>
            <th class="number">rank</th>
            <th class="number">alpha</th>
            <th class="number">trainable</th>
          </tr>
        </thead>
        <tbody>${[...kinds].map(([key, all]) =>
          html`
            <tr>
              <th scope="row" class="code">${key.split("|")[0]}</th>
              <td class="number">${formatCount(all.length)}</td>
              <td class="number">${key.split("|")[1]}</td>
              <td class="number">${all[0].r || "–"}</td>
              <td class="number">${all[0].r ? all[0].alpha : "–"}</td>
              <td class="number">${formatCount(sum(all))}</td>
            </tr>
          `
        )}</tbody>
        <tfoot>
          <tr>
            <th scope="row">in all</th>
            <td class="number">${formatCount(modules.length)}</td>
            <td></td>
            <td></td>
            <td></td>
            <td class="number">${formatCount(sum(modules))}</td>
          </tr>
        </tfoot>
      </table>
    </div>
  `;
}

const sum = (modules: readonly AdaptedModule[]) => modules.reduce((n, m) => n + m.trainable, 0);

/** Names with their values. */
export function pairs(title: string, entries: Readonly<Record<string, unknown>>): Html {
  const rows = Object.entries(entries).map(([name, value]) =>
    html`
      <tr>
        <th scope="row">${name}</th>
        <td class="code">${typeof value === "string" ? value : JSON.stringify(value)}</td>
      </tr>
    `
  );
  const half = Math.ceil(rows.length / 2);
  const part = (some: readonly Html[]) =>
    html`
      <table>
        <tbody>${some}</tbody>
      </table>
    `;
  // Long texts want the whole width, short ones two columns of it.
  const long = Object.values(entries).some((value) => String(value).length > 40);
  return html`<h2>${title}</h2>
${
    long
      ? html`<div class="pairs one">${part(rows)}</div>`
      : html`<div class="pairs">${part(rows.slice(0, half))}${part(rows.slice(half))}</div>`
  }`;
}
