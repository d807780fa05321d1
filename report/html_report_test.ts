import { assert, assertEquals } from "@std/assert";
import { parseHTML } from "linkedom";
import { type MetricsEvent, parseMetrics, type RunFacts } from "../train/watch/metrics.ts";
import { reportHtml } from "./html_report.ts";

const facts: RunFacts = {
  started: "2026-01-02T03:04:05Z",
  steps: 30,
  from: 0,
  environment: { device: "cpu (wasm simd, 2 threads)" },
  configuration: { model: "models/tiny", lr: 1e-3, targets: ["c_attn"], patience: null },
  adapter: [0, 1, 2].map((i) => ({ path: `h.${i}.attn.c_attn`, shape: [16, 48], r: 4, alpha: 8, trainable: 256 })),
};

/** The metrics of a run of so many steps, evaluated every so many. */
function runOf(steps: number, more: readonly MetricsEvent[] = [], every = 10): string {
  const events: MetricsEvent[] = [{ event: "run", ...facts, steps }];
  for (let step = 1; step <= steps; step++) {
    const loss = 4 * Math.exp(-step / 10) + 0.1;
    events.push({
      event: "step",
      ...{ step, loss, gradNorm: 1 / step, lr: 1e-3, tokens: 50 * step, seconds: step },
      ...{ tokensPerSecond: 50, secondsLeft: steps - step, deviceBytes: 2e6, processBytes: 3e6 },
    });
    if (step % every === 0) {
      events.push({ event: "evaluation", step, loss, perplexity: Math.exp(loss), count: 9, best: true, seconds: 1 });
    }
  }
  return [...events, ...more].map((event) => `${JSON.stringify(event)}\n`).join("");
}

/** The page of some metrics, and its document. */
function render(text: string): { page: string; document: any } {
  const page = reportHtml(parseMetrics(text, "metrics.jsonl"));
  return { page, document: (parseHTML(page) as any).document };
}

/** The cells of the table below a heading, as text. */
function rowsOf(document: any, heading: string): string[][] {
  const section = [...document.querySelectorAll("h2")].find((h) => h.textContent === heading).nextElementSibling;
  return [...section.querySelectorAll("tr")].map((tr) => [...tr.children].map((cell) => cell.textContent));
}

Deno.test("a page holds all that it needs: no script, nothing loaded", () => {
  const { page, document } = render(runOf(30));
  assert(page.startsWith("<!doctype html>"));
  assertEquals(document.querySelectorAll("script, link, img, iframe, object").length, 0);
  for (const element of document.querySelectorAll("*")) {
    for (const { name } of element.attributes) assert(!/^(on|src|href|xlink)/.test(name), name);
  }
  assert(!/@import|url\(/.test(page));
});

Deno.test("curves, evaluations, adapter and configuration are shown", () => {
  const { document } = render(runOf(30, [{ event: "end", step: 30, reason: "done" }]));
  assertEquals(document.querySelector(".status")!.textContent, "Finished after 30 of 30 steps");
  assertEquals(document.querySelectorAll("figure svg").length, 5);
  assertEquals(document.querySelectorAll(".wide svg g[aria-label=dot] circle").length, 4); // three, and the best's ring
  assertEquals(rowsOf(document, "Evaluations").map((row) => [row[0], row.at(-1)]), [
    ["step", ""],
    ["10", ""],
    ["20", ""],
    ["30", "best"],
  ]);
  assertEquals(rowsOf(document, "Adapter").slice(1), [
    ["h.*.attn.c_attn", "3", "16 × 48", "4", "8", "768"],
    ["in all", "3", "", "", "", "768"],
  ]);
  assertEquals(rowsOf(document, "Configuration"), [
    ["model", "models/tiny"],
    ["lr", "0.001"],
    ["targets", '["c_attn"]'],
    ["patience", "null"],
  ]);
});

Deno.test("what a model writes is text, never HTML", () => {
  const text = `</td><script>alert("&")</script>`;
  const samples = [0, 10].map((step): MetricsEvent => ({
    event: "samples",
    step,
    samples: [{ prompt: `<b>${step}`, text }],
  }));
  const { document } = render(runOf(20, samples));
  assertEquals(document.querySelector("script"), null);
  assertEquals(document.querySelector(".prompt")!.textContent, "<b>0");
  assertEquals([...document.querySelectorAll(".sample td")].map((td: any) => td.textContent), [text, text]);
});

Deno.test("a classifier's evaluations show its accuracy", () => {
  const evaluation: MetricsEvent = {
    event: "evaluation",
    ...{ step: 30, loss: 0.25, accuracy: 0.9321, count: 100, best: true, seconds: 1 },
  };
  const { document } = render(runOf(5, [evaluation]));
  assertEquals(rowsOf(document, "Evaluations")[1], ["30", "0.2500", "93.21 %", "100", "best"]);
});

Deno.test("a run without a step, one cut off, and one whose loss is not finite have a page", () => {
  const empty = render(runOf(0)).document;
  assertEquals(empty.querySelector(".status")!.textContent, "Not finished after 0 of 0 steps");
  assertEquals(empty.querySelectorAll("svg").length, 0);
  const message = "The loss of step 3 is NaN.";
  const { document } = render(runOf(2, [{ event: "end", step: 2, reason: "not finite", message }]));
  assertEquals(document.querySelector(".status")!.textContent, "Stopped: not finite after 2 of 2 steps");
  assertEquals(document.querySelector(".remark")!.textContent, message);
  const holes = runOf(30).replaceAll(/"loss":[^,]*/g, '"loss":null');
  assert(render(holes).document.querySelectorAll("svg").length > 0);
});

Deno.test("a long run's page is not longer for it", () => {
  const [short, long] = [4_000, 20_000].map((steps) => render(runOf(steps, [], 1_000)).page);
  assert(long.length < 1.2 * short.length, `${short.length} ${long.length}`);
});

Deno.test("an unknown end is shown by its own name", () => {
  for (const reason of ["constructor", "__proto__", "toString"]) {
    const { document } = render(runOf(2, [{ event: "end", step: 2, reason }]));
    assert(document.querySelector(".status")!.textContent!.startsWith(reason));
  }
});
